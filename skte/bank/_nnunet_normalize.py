"""Intensity normalisation by nnU-Net's schemes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["INTENSITY_KEYS", "SCHEMES"]

Image: TypeAlias = NDArray[np.float32]
#: Returns the normalised channel, and what it makes of air (an intensity of zero).
Scheme: TypeAlias = Callable[
    [Image, NDArray[np.bool_] | None, Mapping[str, float]], tuple[Image, float]
]

INTENSITY_KEYS = ("mean", "std", "percentile_00_5", "percentile_99_5")
_SMALLEST = 1e-8  # a deviation that is no deviation


def _zscore(
    image: Image, mask: NDArray[np.bool_] | None, intensity: Mapping[str, float]
) -> tuple[Image, float]:
    """Mean 0 and deviation 1, within the mask if there is one; outside it nothing changes."""
    if mask is not None:
        inside = image[mask]
        image[mask] = (inside - inside.mean()) / max(inside.std(), _SMALLEST)
        return image, 0.0
    mean, deviation = image.mean(), max(image.std(), _SMALLEST)
    image -= mean
    image /= deviation
    return image, float(-mean / deviation)


def _ct(
    image: Image, mask: NDArray[np.bool_] | None, intensity: Mapping[str, float]
) -> tuple[Image, float]:
    """Clip to the training data's percentiles, then its mean and deviation."""
    low, high = intensity["percentile_00_5"], intensity["percentile_99_5"]
    deviation = max(intensity["std"], _SMALLEST)
    np.clip(image, low, high, out=image)
    image -= intensity["mean"]
    image /= deviation
    return image, float((np.clip(0.0, low, high) - intensity["mean"]) / deviation)


def _none(
    image: Image, mask: NDArray[np.bool_] | None, intensity: Mapping[str, float]
) -> tuple[Image, float]:
    return image, 0.0


def _rescale(
    image: Image, mask: NDArray[np.bool_] | None, intensity: Mapping[str, float]
) -> tuple[Image, float]:
    """From 0 to 1 over this channel."""
    low = image.min()
    image -= low
    width = max(image.max(), _SMALLEST)
    image /= width
    return image, float(np.clip(-low / width, 0.0, 1.0))


def _rgb(
    image: Image, mask: NDArray[np.bool_] | None, intensity: Mapping[str, float]
) -> tuple[Image, float]:
    """8-bit colours from 0 to 1."""
    if image.min() < 0 or image.max() > 255:
        raise ValueError(
            "the model takes 8-bit colour images (RGBTo01Normalization), but this one has values "
            f"from {image.min():g} to {image.max():g}; give colours from 0 to 255"
        )
    image /= 255.0
    return image, 0.0


#: By the names that plans use.
SCHEMES: dict[str, Scheme] = {
    "CTNormalization": _ct,
    "NoNormalization": _none,
    "RGBTo01Normalization": _rgb,
    "RescaleTo01Normalization": _rescale,
    "ZScoreNormalization": _zscore,
}
