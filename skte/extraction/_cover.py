"""Few windows that contain given points, anywhere in the volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["cover_points"]

# Starts tried along each of the free axes, for the window that covers most points.
_N_TRIED = 24


def cover_points(
    positions: NDArray[np.float64],
    shape: Sequence[int],
    window_size: Sequence[int],
    overlap: float,
    grid: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Place windows until every point lies in one, away from its faces.

    Parameters
    ----------
    positions : ndarray of shape (n_points, 3)
        Points in voxels of the volume.
    shape : sequence of int
        Size of the volume, at least that of a window.
    window_size : sequence of int
        Edges of a window.
    overlap : float
        In [0, 1). A point keeps half this share of the edge from the faces of its
        window, except where the face is the volume's own.
    grid : ndarray of shape (n_grid_windows, 3)
        Starts of a grid with this overlap, which covers everything.

    Returns
    -------
    ndarray of shape (n_windows, 3)
        First voxel of each window, in scan order, without repetition.

    Notes
    -----
    The fewest windows are hard to find (it is a set cover); this is greedy: the first
    uncovered point along the first axis must be in some window, and of the windows
    that begin there the one that covers most others is taken. Last, windows that others
    make superfluous are taken away. The same is done to `grid`, and the shorter of both
    lists is returned: a sample that fills the volume is covered best by the grid.
    """
    shape_, size = np.array(shape), np.array(window_size)
    # A window of one voxel has no inside: its margin is zero.
    margin = np.minimum(np.floor(0.5 * overlap * size), (size - 1) // 2)
    left = np.ones(len(positions), dtype=bool)
    starts: list[NDArray[np.intp]] = []
    while left.any():
        first = np.flatnonzero(left)[np.argmin(positions[left, 0])]
        start = _best_start(positions[first], positions[left], shape_, size, margin)
        starts.append(start)
        left &= ~_inside(positions, start, shape_, size, margin)
        left[first] = False  # it is in, whatever rounding says: the loop must end
    found = np.unique(np.array(starts, dtype=np.intp).reshape(-1, len(shape)), axis=0)
    lists = [_needed(one, positions, shape_, size, margin) for one in (found, grid)]
    return min(lists, key=len)


def _best_start(
    first: NDArray[np.float64],
    points: NDArray[np.float64],
    shape: NDArray[np.intp],
    size: NDArray[np.intp],
    margin: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Start of the window that contains `first` and most of the other points."""
    furthest = shape - size
    start = np.zeros(len(shape), dtype=np.intp)
    start[0] = np.clip(np.round(first[0] - margin[0]), 0, furthest[0])
    kept = _within(points[:, 0], start[:1], shape[0], size[0], margin[0])[0]
    tried, masks = [], []
    for axis in range(1, len(shape)):
        values = points[kept, axis]
        # Windows that have a point at their margin, as far as they still hold `first`.
        lowest = first[axis] - (size[axis] - 1 - 2 * margin[axis])
        edges = np.unique(values[(values >= lowest) & (values <= first[axis])])
        chosen = edges[np.linspace(0, len(edges) - 1, min(_N_TRIED, len(edges))).astype(int)]
        begins = np.clip(np.round(chosen - margin[axis]), 0, furthest[axis]).astype(np.intp)
        begins = np.unique([*begins, 0, furthest[axis]])  # flush with the volume, too
        held = _within(first[axis : axis + 1], begins, shape[axis], size[axis], margin[axis])[:, 0]
        begins = begins[held]
        tried.append(begins)
        masks.append(_within(values, begins, shape[axis], size[axis], margin[axis]))
    counts = masks[0].astype(np.float64) @ masks[1].T.astype(np.float64)
    best = np.unravel_index(int(np.argmax(counts)), counts.shape)
    start[1:] = [begins[i] for begins, i in zip(tried, best, strict=True)]
    return start


def _within(
    values: NDArray[np.float64],
    starts: NDArray[np.intp],
    length: int,
    size: int,
    margin: float,
) -> NDArray[np.bool_]:
    """Which values lie inside windows along one axis, shape (n_starts, n_values)."""
    # A voxel reaches half its size beyond its centre; fractional positions lie there.
    low = np.where(starts > 0, starts + margin - 0.5, -0.5)
    high = np.where(starts + size < length, starts + size - 0.5 - margin, length - 0.5)
    return np.asarray((values >= low[:, None]) & (values <= high[:, None]))


def _inside(
    positions: NDArray[np.float64],
    start: NDArray[np.intp],
    shape: NDArray[np.intp],
    size: NDArray[np.intp],
    margin: NDArray[np.float64],
) -> NDArray[np.bool_]:
    result = np.ones(len(positions), dtype=bool)
    for axis in range(len(shape)):
        result &= _within(
            positions[:, axis],
            start[axis : axis + 1],
            int(shape[axis]),
            int(size[axis]),
            float(margin[axis]),
        )[0]
    return result


def _needed(
    starts: NDArray[np.intp],
    positions: NDArray[np.float64],
    shape: NDArray[np.intp],
    size: NDArray[np.intp],
    margin: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Take away, one by one, windows all of whose points lie in others."""
    held = np.stack([_inside(positions, start, shape, size, margin) for start in starts])
    starts, held = starts[held.any(axis=1)], held[held.any(axis=1)]
    times = held.sum(axis=0)
    kept = np.ones(len(starts), dtype=bool)
    for k in np.argsort(held.sum(axis=1), kind="stable"):
        if (times[held[k]] > 1).all():
            kept[k] = False
            times -= held[k]
    return starts[kept]
