"""Resampling by nnU-Net's rules: which shape, which axis apart, which interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

__all__ = ["RESAMPLERS", "resampled_shape", "separate_axis"]

# Voxels this many times longer along one axis than along another are resampled apart.
_ANISOTROPIC = 3.0


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Return the size of an image at another spacing, to the nearest voxel.

    Examples
    --------
    >>> resampled_shape((10, 20, 20), (3.0, 0.5, 0.5), (1.0, 1.0, 0.5))
    (30, 10, 20)
    """
    return tuple(round(old / new * n) for n, old, new in zip(shape, spacing, target, strict=True))


def separate_axis(
    spacing: Sequence[float],
    target: Sequence[float],
    *,
    force: bool | None = None,
    threshold: float = _ANISOTROPIC,
) -> int | None:
    """Return the axis that is resampled apart from the others, None where there is none.

    Parameters
    ----------
    spacing, target : sequence of float
        Sizes of a voxel before and after, in mm.
    force : bool, optional
        True: the axis of the longest voxels; False: none. Default: only where they are
        more than `threshold` times as long as the shortest.
    threshold : float
        See `force`.

    Returns
    -------
    int or None
        None also where two axes share the longest edge.

    Examples
    --------
    >>> separate_axis((5.0, 1.0, 1.0), (1.0, 1.0, 1.0)), separate_axis((2.0, 1.0, 1.0), (1, 1, 1))
    (0, None)
    """
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
