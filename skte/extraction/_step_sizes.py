"""What a step of an entry's preprocessing will take, known before it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torchio as tio

from skte._memory import memory_problem

__all__ = ["size_problem"]

Shape = Sequence[float]

_USUAL = 2.0  # times the image's own size: where that fitted, this does


def size_problem(step: Any, image: tio.Image) -> str | None:
    """Say why a step must not run on an image; None if it may, or if its size is not known.

    Parameters
    ----------
    step : tio.Transform
        Of an entry's preprocessing, which a file may have described.
    image : tio.Image
        What it is to be applied to.

    Returns
    -------
    str or None
        One clause that names the step.
    """
    for inner in getattr(step, "transforms", ()):  # each sees what the one before it made
        problem = size_problem(inner, image)
        if problem:
            return problem
    kind = getattr(step, "kind", None)  # of one of MONAI's transforms, which has options
    name = str(kind or type(step).__name__)
    known = _SIZES.get(name)
    if known is None:
        return None
    shape, spacing = tuple(image.spatial_shape), np.linalg.norm(image.affine[:3, :3], axis=0)
    try:
        found = known(step.options if kind else vars(step), shape, spacing)
        n_voxels = math.prod(max(float(edge), 1.0) for edge in found)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, ZeroDivisionError):
        return None  # it will say itself what is wrong with its parameters
    if n_voxels <= _USUAL * math.prod(shape):
        return None
    n_bytes = int(min(n_voxels * image.num_channels * 4, 2.0**62))
    problem = memory_problem(n_bytes)
    if problem is None:
        return None
    return (
        f"{name} would make {' x '.join(f'{edge:.4g}' for edge in found)} voxels of an image of "
        f"{' x '.join(map(str, shape))}; that {problem}; check its parameters"
    )


def _per_axis(value: Any, n: int = 3) -> list[float]:
    values = [float(one) for one in np.atleast_1d(np.asarray(value, dtype=float)).ravel()]
    return values * n if len(values) == 1 else values


def _resampled(shape: Shape, spacing: Shape, target: Any) -> list[float]:
    """Edges at another spacing; axes that are not named, or not positive, stay."""
    wanted = _per_axis(target)
    wanted += list(spacing[len(wanted) :])
    return [
        n * old / new if new > 0 else n for n, old, new in zip(shape, spacing, wanted, strict=False)
    ]


def _nnunet(options: Mapping[str, Any], shape: Shape, spacing: Shape) -> list[float]:
    axes = [(2, 1, 0)[i] for i in options["transpose"]]
    turned, old = [shape[i] for i in axes], [spacing[i] for i in axes]
    given = list(options["spacing"])
    return _resampled(turned, old, [*old[: 3 - len(given)], *given])


def _at_least(shape: Shape, edges: Any) -> list[float]:
    return [max(n, edge) for n, edge in zip(shape, _per_axis(edges), strict=False)]


def _padded(shape: Shape, padding: Any) -> list[float]:
    values = _per_axis(padding)
    pairs = values if len(values) == 6 else [one for one in values for _ in (0, 1)]
    return [n + pairs[2 * i] + pairs[2 * i + 1] for i, n in enumerate(shape)]


def _multiple(shape: Shape, of: Any) -> list[float]:
    return [
        math.ceil(n / k) * k if k > 0 else n for n, k in zip(shape, _per_axis(of), strict=False)
    ]


def _smoothed(shape: Shape, widths: Sequence[float]) -> list[float]:
    """Return the longer of image and kernel, which is as long as the smoothing is wide."""
    return [max(n, 8 * abs(width)) for n, width in zip(shape, widths, strict=False)]


def _blurred(options: Mapping[str, Any], shape: Shape, spacing: Shape) -> list[float]:
    std = options.get("std", options.get("std_ranges", 0))
    return _smoothed(shape, [a / b for a, b in zip(_per_axis(std), spacing, strict=False)])


Size = Callable[[Mapping[str, Any], Shape, Shape], Sequence[float]]

# By the names of torchio, of MONAI and of skte's own; where two share one, options tell.
_SIZES: dict[str, Size] = {
    "Resample": lambda o, shape, spacing: _resampled(shape, spacing, o["target"]),
    "Resize": lambda o, shape, _: _per_axis(o.get("target_shape", o.get("spatial_size"))),
    "CropOrPad": lambda o, shape, _: _at_least(shape, o["target_shape"]),
    "Pad": lambda o, shape, _: _padded(shape, o["padding"]),
    "EnsureShapeMultiple": lambda o, shape, _: _multiple(shape, o["target_multiple"]),
    "Blur": _blurred,
    "NNUNetPreprocessing": _nnunet,
    "Spacing": lambda o, shape, spacing: _resampled(shape, spacing, o["pixdim"]),
    "SpatialPad": lambda o, shape, _: _at_least(shape, o["spatial_size"]),
    "BorderPad": lambda o, shape, _: _padded(shape, o["spatial_border"]),
    "DivisiblePad": lambda o, shape, _: _multiple(shape, o["k"]),
    "GaussianSmooth": lambda o, shape, _: _smoothed(shape, _per_axis(o.get("sigma", 1.0))),
}
