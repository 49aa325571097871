"""Where the windows of a volume lie, and which of them each voxel belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["WindowPlan", "default_window_size", "plan_windows"]

# Without any word on the window: at most this edge, and a multiple that five
# halvings divide, so that common encoders run.
_MAX_EDGE = 96
_MULTIPLE = 32


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Windows that own sampled points, and the points each one owns.

    Attributes
    ----------
    window_size : tuple of int
        Edges of a window, in voxels.
    padding : tuple of (int, int)
        Voxels to add before and after each axis so that a window fits.
    starts : ndarray of shape (n_windows, n_axes)
        First voxel of each window in the padded volume.
    owned : list of ndarray of int
        For each window, the points that belong to it.
    positions : ndarray of shape (n_points, n_axes)
        Points in voxels of the padded volume.
    n_planned : int
        Windows of the whole grid, those that own no point included.
    """

    window_size: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    starts: NDArray[np.intp]
    owned: list[NDArray[np.intp]]
    positions: NDArray[np.float64]
    n_planned: int

    def batches(self, batch_size: int) -> Iterator[range]:
        """Consecutive windows, `batch_size` at a time."""
        for start in range(0, len(self.starts), batch_size):
            yield range(start, min(start + batch_size, len(self.starts)))


def default_window_size(shape: Sequence[int]) -> tuple[int, ...]:
    """Choose a window for a volume when neither user nor entry names one.

    Parameters
    ----------
    shape : sequence of int
        Size of the volume in voxels.

    Returns
    -------
    tuple of int
        The volume's edges, rounded up to a multiple of 32 (thin axes to a power
        of two), and at most 96.

    Examples
    --------
    >>> from skte.extraction._windows import default_window_size
    >>> default_window_size((300, 50, 14))
    (96, 64, 16)
    """
    return tuple(
        min(_MAX_EDGE, _MULTIPLE * math.ceil(n / _MULTIPLE))
        if n > _MULTIPLE // 2
        else 2 ** math.ceil(math.log2(n))
        for n in shape
    )


def plan_windows(
    points: NDArray[np.float64],
    shape: Sequence[int],
    window_size: Sequence[int],
    overlap: float,
) -> WindowPlan:
    """Lay a grid of windows and give each point to the one it lies deepest inside.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_axes)
        Positions in voxels, 0 being the centre of the first voxel; may be
        fractional.
    shape : sequence of int
        Size of the volume in voxels. Axes smaller than the window are padded.
    window_size : sequence of int
        Edges of the window in voxels.
    overlap : float
        Share of a window's edge that neighbours share, in [0, 1).

    Returns
    -------
    WindowPlan
        Only windows that own a point, in scan order.
    """
    padding, index, axis_starts = [], [], []
    positions = points.astype(np.float64, copy=True)
    for axis, (size, window) in enumerate(zip(shape, window_size, strict=True)):
        missing = max(0, window - size)
        padding.append((missing // 2, missing - missing // 2))
        positions[:, axis] += missing // 2
        starts = _axis_starts(size + missing, window, overlap)
        axis_starts.append(starts)
        index.append(_deepest(positions[:, axis], starts, window))
    grid = tuple(len(starts) for starts in axis_starts)
    flat = np.ravel_multi_index(tuple(index), grid)
    order = np.argsort(flat, kind="stable")
    used, first = np.unique(flat[order], return_index=True)
    chosen = np.unravel_index(used, grid)
    return WindowPlan(
        window_size=tuple(window_size),
        padding=tuple(padding),
        starts=np.stack([s[i] for s, i in zip(axis_starts, chosen, strict=True)], axis=1),
        owned=np.split(order, first[1:]),
        positions=positions,
        n_planned=math.prod(grid),
    )


def _axis_starts(size: int, window: int, overlap: float) -> NDArray[np.intp]:
    """Evenly spaced starts, the last flush with the end."""
    step = max(1.0, window * (1.0 - overlap))
    n_windows = math.ceil((size - window) / step) + 1
    return np.round(np.linspace(0, size - window, n_windows)).astype(np.intp)


def _deepest(
    positions: NDArray[np.float64], starts: NDArray[np.intp], window: int
) -> NDArray[np.intp]:
    """Index of the window whose centre is nearest; the first of two at equal distance.

    The grid is a product of axes, so the nearest centre on each axis is the window
    in which the point is farthest from every face.
    """
    centres = starts + (window - 1) / 2
    right = np.clip(np.searchsorted(centres, positions), 1, max(1, len(centres) - 1))
    if len(centres) == 1:
        return np.zeros(len(positions), dtype=np.intp)
    nearer_left = positions - centres[right - 1] <= centres[right] - positions
    return np.where(nearer_left, right - 1, right)
