"""Where the windows of a volume lie, and which of them each voxel belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Without any word on the window: at most this edge, and a multiple that five
# halvings divide, so that common encoders run.
_MAX_EDGE = 96
_MULTIPLE = 32


@dataclass(frozen=True, eq=False)
class WindowPlan:
    """Windows that own sampled points, and the points each one owns."""

    window_size: tuple[int, ...]  # edges of a window, in voxels
    # Voxels to add before and after each axis so that a window fits.
    padding: tuple[tuple[int, int], ...]
    starts: NDArray[np.intp]  # first voxel of each window in the padded volume
    owned: list[NDArray[np.intp]]  # for each window, the points that belong to it
    positions: NDArray[np.float64]  # points in voxels of the padded volume
    n_planned: int  # windows of the whole grid with this overlap, those that own no point included

    def widened(self, margin: Sequence[int]) -> WindowPlan:
        """Add voxels around every window, which a network without padding leaves out."""
        if not any(margin):
            return self
        return replace(
            self,
            window_size=tuple(n + 2 * m for n, m in zip(self.window_size, margin, strict=True)),
            padding=tuple((a + m, b + m) for (a, b), m in zip(self.padding, margin, strict=True)),
            positions=self.positions + np.array(margin),
        )

    def batches(self, batch_size: int) -> Iterator[range]:
        """Consecutive windows, `batch_size` at a time."""
        for start in range(0, len(self.starts), batch_size):
            yield range(start, min(start + batch_size, len(self.starts)))


def default_window_size(shape: Sequence[int]) -> tuple[int, ...]:
    """Choose a window for a volume when neither user nor entry names one."""
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
    windows: str = "grid",
) -> WindowPlan:
    """Choose windows for points, and give each to the one it lies deepest inside."""
    missing = [max(0, window - size) for size, window in zip(shape, window_size, strict=True)]
    padding = tuple((n // 2, n - n // 2) for n in missing)  # so that a window fits
    positions = points.astype(np.float64) + np.array([before for before, _ in padding])
    padded = [size + sum(pad) for size, pad in zip(shape, padding, strict=True)]
    grid = [
        axis_starts(size, window, overlap) for size, window in zip(padded, window_size, strict=True)
    ]
    starts = np.stack([a.ravel() for a in np.meshgrid(*grid, indexing="ij")], axis=1)
    n_planned = len(starts)
    if windows == "cover" and len(positions):
        starts = cover_points(positions, padded, window_size, overlap, starts)
        owner = _deepest_of(positions, starts, window_size)
    else:
        index = [
            deepest_on_axis(positions[:, axis], starts, window)
            for axis, (starts, window) in enumerate(zip(grid, window_size, strict=True))
        ]
        owner = np.ravel_multi_index(tuple(index), tuple(len(starts) for starts in grid))
    order = np.argsort(owner, kind="stable")
    owned = np.split(order, np.searchsorted(owner[order], np.arange(1, len(starts))))
    used = [i for i, points in enumerate(owned) if len(points)] or [len(starts) // 2]
    return WindowPlan(
        window_size=tuple(window_size),
        padding=padding,
        starts=starts[used],
        owned=[owned[i] for i in used],
        positions=positions,
        n_planned=n_planned,
    )


def axis_starts(size: int, window: int, overlap: float) -> NDArray[np.intp]:
    """Evenly spaced starts of windows along an axis, the last flush with the end."""
    step = max(1.0, window * (1.0 - overlap))
    n_windows = math.ceil((size - window) / step) + 1
    return np.round(np.linspace(0, size - window, n_windows)).astype(np.intp)


def deepest_on_axis(
    positions: NDArray[np.float64], starts: NDArray[np.intp], window: int
) -> NDArray[np.intp]:
    """Index of the window whose centre is nearest; the first of two at equal distance."""
    centres = starts + (window - 1) / 2
    right = np.clip(np.searchsorted(centres, positions), 1, max(1, len(centres) - 1))
    if len(centres) == 1:
        return np.zeros(len(positions), dtype=np.intp)
    nearer_left = positions - centres[right - 1] <= centres[right] - positions
    return np.where(nearer_left, right - 1, right)


def _deepest_of(
    positions: NDArray[np.float64], starts: NDArray[np.intp], window_size: Sequence[int]
) -> NDArray[np.intp]:
    """Index of the window in which each point is farthest from every face."""
    last = np.array(window_size) - 1
    best = np.full(len(positions), -np.inf)
    owner = np.zeros(len(positions), dtype=np.intp)
    for k, start in enumerate(starts):
        # Relative to the edge, so that thin axes do not decide; sums break ties.
        depths = (np.minimum(positions - start, start + last - positions) + 0.5) / (last + 1)
        depth = np.where(depths.min(axis=1) >= 0, depths.min(axis=1), -np.inf)
        depth += 1e-9 * depths.sum(axis=1)
        deeper = depth > best
        best[deeper], owner[deeper] = depth[deeper], k
    return owner


# Starts tried along each of the free axes, for the window that covers most points.
_N_TRIED = 24


def cover_points(
    positions: NDArray[np.float64],
    shape: Sequence[int],
    window_size: Sequence[int],
    overlap: float,
    grid: NDArray[np.intp],
) -> NDArray[np.intp]:
    """Place windows until every point lies in one, away from its faces."""
    size = np.array(window_size)
    # A window of one voxel has no inside: its margin is zero.
    margin = np.minimum(np.floor(0.5 * overlap * size), (size - 1) // 2)
    cover = _Cover(np.array(shape), size, margin)
    left = np.ones(len(positions), dtype=bool)
    starts: list[NDArray[np.intp]] = []
    while left.any():
        first = np.flatnonzero(left)[np.argmin(positions[left, 0])]
        start = cover.best_start(positions[first], positions[left])
        starts.append(start)
        left &= ~cover.inside(positions, start)
        left[first] = False  # it is in, whatever rounding says: the loop must end
    found = np.unique(np.array(starts, dtype=np.intp).reshape(-1, len(shape)), axis=0)
    return min((cover.needed(one, positions) for one in (found, grid)), key=len)


class _Cover(NamedTuple):
    """Windows that hold points away from their faces, but for those of the volume."""

    shape: NDArray[np.intp]  # of the volume
    size: NDArray[np.intp]  # of a window
    margin: NDArray[np.float64]  # voxels along each axis

    def within(
        self, axis: int, values: NDArray[np.float64], starts: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Which values lie inside windows along one axis, shape (n_starts, n_values)."""
        length, size, margin = self.shape[axis], self.size[axis], self.margin[axis]
        # A voxel reaches half its size beyond its centre; fractional positions lie there.
        low = np.where(starts > 0, starts + margin - 0.5, -0.5)
        high = np.where(starts + size < length, starts + size - 0.5 - margin, length - 0.5)
        return np.asarray((values >= low[:, None]) & (values <= high[:, None]))

    def inside(self, points: NDArray[np.float64], start: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which points lie inside a window."""
        axes = range(len(start))
        held = [self.within(axis, points[:, axis], start[axis : axis + 1])[0] for axis in axes]
        return np.asarray(np.all(held, axis=0))

    def best_start(
        self, first: NDArray[np.float64], points: NDArray[np.float64]
    ) -> NDArray[np.intp]:
        """Start of the window that contains `first` and most of the other points."""
        furthest, margin = self.shape - self.size, self.margin
        start = np.zeros(len(furthest), dtype=np.intp)
        start[0] = np.clip(np.round(first[0] - margin[0]), 0, furthest[0])
        kept = self.within(0, points[:, 0], start[:1])[0]
        tried, masks = [], []
        for axis in range(1, len(start)):
            values = points[kept, axis]
            # Windows that have a point at their margin, as far as they still hold `first`.
            lowest = first[axis] - (self.size[axis] - 1 - 2 * margin[axis])
            edges = np.unique(values[(values >= lowest) & (values <= first[axis])])
            chosen = edges[np.linspace(0, len(edges) - 1, min(_N_TRIED, len(edges))).astype(int)]
            begins = np.clip(np.round(chosen - margin[axis]), 0, furthest[axis]).astype(np.intp)
            begins = np.unique([*begins, 0, furthest[axis]])  # flush with the volume, too
            begins = begins[self.within(axis, first[axis : axis + 1], begins)[:, 0]]
            tried.append(begins)
            masks.append(self.within(axis, values, begins))
        counts = masks[0].astype(np.float64) @ masks[1].T.astype(np.float64)
        best = np.unravel_index(int(np.argmax(counts)), counts.shape)
        start[1:] = [begins[i] for begins, i in zip(tried, best, strict=True)]
        return start

    def needed(self, starts: NDArray[np.intp], points: NDArray[np.float64]) -> NDArray[np.intp]:
        """Take away, one by one, windows all of whose points lie in others."""
        held = np.stack([self.inside(points, start) for start in starts])
        starts, held = starts[held.any(axis=1)], held[held.any(axis=1)]
        times = held.sum(axis=0)
        kept = np.ones(len(starts), dtype=bool)
        for k in np.argsort(held.sum(axis=1), kind="stable"):
            if (times[held[k]] > 1).all():
                kept[k] = False
                times -= held[k]
        return starts[kept]
