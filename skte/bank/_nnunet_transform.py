"""nnU-Net's preprocessing as one transform that keeps the affine true."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from skte._digests import versioned


@versioned("preprocessing of nnU-Net", 2)
class NNUNetPreprocessing(tio.SpatialTransform):
    """Transpose, crop to nonzero, normalise and resample, in nnU-Net's order.

    The result's axes are those of the network: z, y, x of the image, permuted as the plans
    say; in a 2-D configuration the slices come last. Air that the crop removed is put back
    after normalisation, so that voxels sampled there are found in every model of a bank.
    Parameters are those of the plans (Isensee et al., Nature Methods, 2021).
    """

    def __init__(
        self,
        *,
        transpose: Sequence[int],
        spacing: Sequence[float],
        schemes: Sequence[str],
        use_mask: Sequence[bool],
        intensities: Sequence[Mapping[str, float]],
        resampling: str,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.transpose = tuple(transpose)
        self.spacing = tuple(spacing)
        self.schemes = tuple(schemes)
        self.use_mask = tuple(use_mask)
        self.intensities = tuple(dict(one) for one in intensities)
        self.resampling = resampling
        self.options = dict(options)
        self.args_names = [
            "transpose", "spacing", "schemes", "use_mask", "intensities", "resampling", "options",
        ]  # fmt: skip

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Preprocess every image."""
        for image in self.get_images(subject):
            affine = np.asarray(image.affine)
            # nnU-Net takes the spacing of the header: that of an affine is rounded, which
            # changes sizes at half a voxel. It counts until a transform changes the affine.
            spacing = np.linalg.norm(affine[:3, :3], axis=0)
            stated = image.get("stated_spacing")
            if stated is not None and np.allclose(stated, spacing, rtol=1e-4, atol=0):
                spacing = np.asarray(stated, dtype=np.float64)
            data, affine = self._run(image.data.numpy(), affine, spacing)
            image.set_data(torch.from_numpy(data))
            image.affine = affine
        return subject

    def _run(
        self, data: NDArray[Any], affine: NDArray[np.float64], spacing: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        if len(data) != len(self.schemes):
            raise ValueError(
                f"the model takes {len(self.schemes)} channels, but the image has {len(data)}; "
                "give the channels of its dataset.json, in that order"
            )
        axes = [(2, 1, 0)[i] for i in self.transpose]  # of x, y, z, after z, y, x is permuted
        # Contiguous before it is permuted: sums depend on how values lie in memory.
        zyx = np.ascontiguousarray(data.transpose(0, 3, 2, 1), dtype=np.float32)
        turned = zyx.transpose(0, *(i + 1 for i in self.transpose))
        mask = ndimage.binary_fill_holes((turned != 0).any(axis=0))
        box = ndimage.find_objects(mask.astype(np.int8))[0] if mask.any() else (slice(None),) * 3
        cropped = np.array(turned, order="K")[(slice(None), *box)]
        air = self._normalize(cropped, mask[box])
        resampled = self._resample(cropped, [float(edge) for edge in spacing[axes]])
        starts = [part.indices(n)[0] for part, n in zip(box, mask.shape, strict=True)]
        whole, to_turned = _put_back(resampled, cropped.shape[1:], starts, mask.shape, air)
        from_axes = np.eye(4)[:, [*axes, 3]]
        if len(self.spacing) == 2:  # slices last
            whole, to_turned = whole.transpose(0, 2, 3, 1), to_turned[:, [1, 2, 0, 3]]
        return np.ascontiguousarray(whole), affine @ from_axes @ to_turned

    def _normalize(self, data: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[float]:
        air = []
        for channel, (name, masked, intensity) in enumerate(
            zip(self.schemes, self.use_mask, self.intensities, strict=True)
        ):
            inside = mask if masked else None
            data[channel], value = SCHEMES[name](data[channel], inside, intensity)
            air.append(value)
        return air

    def _resample(self, data: NDArray[np.float32], spacing: list[float]) -> NDArray[np.float32]:
        resample = RESAMPLERS[self.resampling]
        if resample is None:
            return data
        target = [*spacing[: 3 - len(self.spacing)], *self.spacing]
        shape = resampled_shape(data.shape[1:], spacing, target)
        if min(shape) < 1:
            raise ValueError(
                f"nothing is left of an image of {data.shape[1:]} voxels of {spacing} mm at the "
                f"model's spacing of {target} mm"
            )
        options = dict(self.options)
        axis = separate_axis(
            spacing,
            target,
            force=options.pop("force_separate_z", _FORCE[self.resampling]),
            threshold=options.pop("separate_z_anisotropy_threshold", 3.0),
        )
        result: NDArray[np.float32] = resample(data, shape, axis, **options)
        return result

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.args_names)

    def __hash__(self) -> int:
        return hash((self.transpose, self.spacing, self.schemes))


# What a function of the plans does where its options say nothing.
_FORCE = {"resample_data_or_seg_to_shape": False, "resample_torch_fornnunet": None}


def _put_back(
    data: NDArray[np.float32],
    cropped: Sequence[int],
    starts: Sequence[int],
    shape: Sequence[int],
    air: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Pad the crop with air to the old image's faces; return it and its matrix to old indices."""
    pads, to_old = [], np.eye(4)
    for axis, (n, old, start, whole) in enumerate(
        zip(data.shape[1:], cropped, starts, shape, strict=True)
    ):
        step = old / n
        before = math.ceil(start / step - 1e-6)
        pads.append((before, math.ceil((whole - start - old) / step - 1e-6)))
        to_old[axis, axis] = step
        to_old[axis, 3] = start + (0.5 - before) * step - 0.5
    if not any(edge for pair in pads for edge in pair):
        return data, to_old
    channels = [
        np.pad(one, pads, constant_values=np.float32(value))
        for one, value in zip(data, air, strict=True)
    ]
    return np.stack(channels), to_old


Image: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_] | None
Intensity: TypeAlias = Mapping[str, float]
#: Returns the normalised channel, and what it makes of air (an intensity of zero).
Scheme: TypeAlias = Callable[[Image, Mask, Intensity], tuple[Image, float]]

INTENSITY_KEYS = ("mean", "std", "percentile_00_5", "percentile_99_5")
_SMALLEST = 1e-8  # smaller ones count as this


def _zscore(image: Image, mask: Mask, intensity: Intensity) -> tuple[Image, float]:
    """Mean 0 and deviation 1, within the mask if there is one; outside it nothing changes."""
    if mask is not None:
        inside = image[mask]
        image[mask] = (inside - inside.mean()) / max(inside.std(), _SMALLEST)
        return image, 0.0
    mean, deviation = image.mean(), max(image.std(), _SMALLEST)
    image -= mean
    image /= deviation
    return image, float(-mean / deviation)


def _ct(image: Image, mask: Mask, intensity: Intensity) -> tuple[Image, float]:
    """Clip to the training data's percentiles, then its mean and deviation."""
    low, high = intensity["percentile_00_5"], intensity["percentile_99_5"]
    deviation = max(intensity["std"], _SMALLEST)
    np.clip(image, low, high, out=image)
    image -= intensity["mean"]
    image /= deviation
    return image, float((np.clip(0.0, low, high) - intensity["mean"]) / deviation)


def _rescale(image: Image, mask: Mask, intensity: Intensity) -> tuple[Image, float]:
    """From 0 to 1 over this channel."""
    low = image.min()
    image -= low
    width = max(image.max(), _SMALLEST)
    image /= width
    return image, float(np.clip(-low / width, 0.0, 1.0))


def _rgb(image: Image, mask: Mask, intensity: Intensity) -> tuple[Image, float]:
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
    "NoNormalization": lambda image, mask, intensity: (image, 0.0),
    "RGBTo01Normalization": _rgb,
    "RescaleTo01Normalization": _rescale,
    "ZScoreNormalization": _zscore,
}


# Voxels this many times longer along one axis than along another are resampled apart.
_ANISOTROPIC = 3.0


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Return the size of an image at another spacing, to the nearest voxel."""
    return tuple(round(old / new * n) for n, old, new in zip(shape, spacing, target, strict=True))


def separate_axis(
    spacing: Sequence[float],
    target: Sequence[float],
    *,
    force: bool | None = None,
    threshold: float = _ANISOTROPIC,
) -> int | None:
    """Return the axis that is resampled apart from the others, None where there is none."""
    if force is False:
        return None
    for candidate in (spacing,) if force else (spacing, target):
        if force or max(candidate) / min(candidate) > threshold:
            longest = [i for i, edge in enumerate(candidate) if edge == max(candidate)]
            return longest[0] if len(longest) == 1 else None
    return None


def _spline(
    data: NDArray[np.float32],
    shape: tuple[int, ...],
    axis: int | None,
    *,
    order: int = 3,
    order_z: int = 0,
    **_: Any,
) -> NDArray[np.float32]:
    """Splines of an order; along `axis`, if any, of another one and after the rest."""
    if data.shape[1:] == shape:
        return data
    result = np.empty((len(data), *shape), dtype=np.float32)
    for channel, values in enumerate(data.astype(np.float64)):
        if axis is None:
            result[channel] = _zoom(values, shape, order)
            continue
        plane = tuple(n for i, n in enumerate(shape) if i != axis)
        slices = [_zoom(one, plane, order) for one in np.moveaxis(values, axis, 0)]
        result[channel] = _along(np.stack(slices, axis=axis), axis, shape[axis], order_z)
    return result


def _zoom(values: NDArray[np.float64], shape: tuple[int, ...], order: int) -> NDArray[np.float64]:
    """Interpolate at the centres of new voxels; splines do not overshoot the old values."""
    if values.shape == shape:
        return values
    factors = [new / old for old, new in zip(values.shape, shape, strict=True)]
    found = ndimage.zoom(values, factors, order=order, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(found, values.min(), values.max()))


def _along(values: NDArray[np.float64], axis: int, n: int, order: int) -> NDArray[np.float64]:
    old = values.shape[axis]
    if n == old:
        return values
    at = old / n * (np.arange(n) + 0.5) - 0.5
    if order == 0:
        nearest = np.clip(np.floor(at + 0.5).astype(np.intp), 0, old - 1)
        return np.asarray(values.take(nearest, axis=axis))
    rest = [np.arange(edge, dtype=float) for edge in values.shape]
    rest[axis] = at
    grid = np.array(np.meshgrid(*rest, indexing="ij"))
    return np.asarray(ndimage.map_coordinates(values, grid, order=order, mode="nearest"))


def _linear(
    data: NDArray[np.float32], shape: tuple[int, ...], axis: int | None, **options: Any
) -> NDArray[np.float32]:
    """Linear interpolation; along `axis`, if any, the nearest voxel, after the rest."""
    tensor = torch.from_numpy(np.ascontiguousarray(data))
    if axis is None:
        return _interpolated(tensor, shape, "trilinear").numpy()
    moved = tensor.movedim(axis + 1, 1).flatten(0, 1)  # the slices of all channels
    plane = tuple(n for i, n in enumerate(shape) if i != axis)
    mode = options.get("mode", "linear")
    moved = _interpolated(moved, plane, "bilinear" if mode == "linear" else mode)
    slices = moved.reshape(len(data), data.shape[axis + 1], *plane)
    tensor = slices.movedim(1, axis + 1)
    return _interpolated(tensor, shape, options.get("aniso_axis_mode", "nearest-exact")).numpy()


def _interpolated(tensor: torch.Tensor, shape: tuple[int, ...], mode: str) -> torch.Tensor:
    if tuple(tensor.shape[1:]) == shape:
        return tensor
    return functional.interpolate(tensor[None], shape, mode=mode)[0]


#: By the names that plans use, with the options that may be set; None: nothing is resampled.
RESAMPLERS: dict[str, Any] = {
    "resample_data_or_seg_to_shape": _spline,
    "resample_torch_fornnunet": _linear,
    "no_resampling_hack": None,
}
