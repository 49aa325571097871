"""Cutting a case's label map into the voxels that each window of a grid owns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import find_objects

from skte.exceptions import ExtractionError
from skte.extraction._windows import deepest_on_axis

__all__ = ["ClassBox", "LabelBox", "label_boxes"]

# How far (in voxels, across the whole image) an axis may lean and still count as kept.
_LEAN = 1e-3
# Rounding of the affines is undone below this, as for sampled voxels.
_ROUNDING = 1e-6
# A larger range of labels is sorted instead of counted.
_MANY_LABELS = 65_536


@dataclass(frozen=True, eq=False)
class ClassBox:
    """Voxels of one class that a window owns, in their bounding box.

    Attributes
    ----------
    mask : ndarray of bool, shape (n0, n1, n2)
        Voxels of the class.
    positions : tuple of ndarray
        For each axis, the voxels' positions in voxels of the window.
    window_size : tuple of int
        Edges of the window in voxels.
    """

    mask: NDArray[np.bool_]
    positions: tuple[NDArray[np.float64], ...]
    window_size: tuple[int, ...]

    @cached_property
    def count(self) -> int:
        """Number of voxels of the class."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True, eq=False)
class LabelBox:
    """Labelled voxels that one window owns: a box, whatever lies in it.

    Parameters
    ----------
    labels : ndarray of int, shape (n0, n1, n2)
        Axes are those of the image; may be a view.
    positions : tuple of ndarray, of shapes (n0,), (n1,), (n2,)
        For each axis, the voxels' positions in voxels of the window, ascending; 0 is
        the centre of the first voxel. They may be fractional.
    window_size : tuple of int
        Edges of the window in voxels, three of them.
    ignore_label : int, optional
        Voxels that belong to no class.
    """

    labels: NDArray[np.integer]
    positions: tuple[NDArray[np.float64], ...]
    window_size: tuple[int, ...]
    ignore_label: int | None = None

    @cached_property
    def classes(self) -> Mapping[int, ClassBox]:
        """Voxels of each class present, in sorted order; computed once for all layers."""
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if highest - lowest < _MANY_LABELS:
            values: Sequence[int] = range(lowest, highest + 1)
            codes = (self.labels - (lowest - 1)).astype(np.int32)
        else:
            unique, inverse = np.unique(self.labels, return_inverse=True)
            values, codes = unique.tolist(), inverse.reshape(self.labels.shape) + 1
        boxes = {}
        for value, where in zip(values, find_objects(codes), strict=True):
            if where is not None and value != self.ignore_label:
                boxes[value] = ClassBox(
                    np.ascontiguousarray(self.labels[where] == value),
                    tuple(at[part] for at, part in zip(self.positions, where, strict=True)),
                    self.window_size,
                )
        return boxes


def label_boxes(
    label: torch.Tensor,
    to_image: ArrayLike,
    *,
    image_shape: Sequence[int],
    padding: Sequence[tuple[int, int]],
    grid: Sequence[NDArray[np.intp]],
    window_size: Sequence[int],
    n_axes: int = 3,
    ignore_label: int | None = None,
) -> Iterator[LabelBox | None]:
    """Cut a label map into the parts that the windows of a grid own.

    Every labelled voxel belongs to the window in which it lies deepest, as in
    `plan_windows`: to one window and no other.

    Parameters
    ----------
    label : Tensor of int, shape (x, y, z)
        The case's label map, as it lies on disk.
    to_image : array-like of shape (4, 4)
        From indices of the label map to those of the preprocessed image. Axes may be
        permuted, flipped, scaled and shifted.
    image_shape : sequence of int
        Size of the preprocessed image, three axes, unpadded.
    padding : sequence of (int, int)
        Voxels added before and after each axis of the image.
    grid : sequence of ndarray
        For each axis, the starts of the windows in the padded image.
    window_size : sequence of int
        Edges of a window; the third is 1 for a 2-D network.
    n_axes : {2, 3}, default=3
        Spatial axes of the network. For 2, voxels go to the nearest slice.
    ignore_label : int, optional
        Voxels that belong to no class.

    Returns
    -------
    iterator of LabelBox or None
        One a window, in scan order of the grid (the last axis varies fastest). None
        where a window owns no labelled voxel.

    Raises
    ------
    ExtractionError
        If the axes of the image are not those of the label map.
    """
    labels, positions = _along_image(label.numpy(), np.asarray(to_image, dtype=np.float64))
    stretches = []
    for axis, (starts, window) in enumerate(zip(grid, window_size, strict=True)):
        at = np.clip(positions[axis], 0, image_shape[axis] - 1)  # as sampled voxels are
        if axis >= n_axes:
            at = np.round(at)
        at = at + padding[axis][0]
        # Positions ascend, so that what a window owns is one stretch.
        owner = deepest_on_axis(at, starts, window)
        edges = np.searchsorted(owner, np.arange(len(starts) + 1))
        stretches.append(
            [
                (slice(a, b), at[a:b] - start)
                for start, (a, b) in zip(starts, itertools.pairwise(edges.tolist()), strict=True)
            ]
        )
    return _boxes(labels, stretches, tuple(window_size), ignore_label)


def _boxes(
    labels: NDArray[np.integer],
    stretches: list[list[tuple[slice, NDArray[np.float64]]]],
    window_size: tuple[int, ...],
    ignore_label: int | None,
) -> Iterator[LabelBox | None]:
    for window in itertools.product(*stretches):
        part = labels[tuple(where for where, _ in window)]
        if part.size == 0 or (ignore_label is not None and bool((part == ignore_label).all())):
            yield None
        else:
            yield LabelBox(part, tuple(at for _, at in window), window_size, ignore_label)


def _along_image(
    labels: NDArray[Any], to_image: NDArray[np.float64]
) -> tuple[NDArray[Any], list[NDArray[np.float64]]]:
    """Give the label map the image's axes, and each voxel its position on each axis."""
    linear = to_image[:3, :3]
    source = np.abs(linear).argmax(axis=1)
    lean = np.abs(linear) * (np.array(labels.shape) - 1)
    lean[np.arange(3), source] = 0.0
    if sorted(source.tolist()) != [0, 1, 2] or lean.sum(axis=1).max() > _LEAN:
        raise ExtractionError(
            "moments='all' needs preprocessing that keeps the axes (it may permute, flip, "
            "scale, crop and pad them), and this one rotates or shears the image. Use "
            "moments='sample', or leave the rotation out of the preprocessing"
        )
    labels = labels.transpose(source)
    positions = []
    for axis, along in enumerate(source):
        at = linear[axis, along] * np.arange(labels.shape[axis]) + to_image[axis, 3]
        rounded = np.round(at)
        positions.append(np.where(np.abs(at - rounded) < _ROUNDING, rounded, at))
    for axis in range(3):
        if linear[axis, source[axis]] < 0:
            labels, positions[axis] = np.flip(labels, axis), positions[axis][::-1]
    return labels, positions
