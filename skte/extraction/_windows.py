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
    points: NDArray[np.float64], shape: Sequence[int], window_size: Sequence[int], overlap: float
) -> WindowPlan:
    """Lay a grid of windows over points, and give each to the one it lies deepest inside."""
    missing = [max(0, window - size) for size, window in zip(shape, window_size, strict=True)]
    padding = tuple((n // 2, n - n // 2) for n in missing)  # so that a window fits
    positions = points.astype(np.float64) + np.array([before for before, _ in padding])
    padded = [size + sum(pad) for size, pad in zip(shape, padding, strict=True)]
    box = positions.min(axis=0), positions.max(axis=0)
    axes = list(zip(*box, padded, window_size, strict=True))
    grid = [AxisGrid.over(*axis, overlap).starts(axis[-1]) for axis in axes]
    starts = np.stack([a.ravel() for a in np.meshgrid(*grid, indexing="ij")], axis=1)
    index = [
        deepest_on_axis(at, starts, window)
        for at, starts, window in zip(positions.T, grid, window_size, strict=True)
    ]
    owner = np.ravel_multi_index(tuple(index), tuple(len(starts) for starts in grid))
    order = np.argsort(owner, kind="stable")
    owned = np.split(order, np.searchsorted(owner[order], np.arange(1, len(starts))))
    used = [i for i, points in enumerate(owned) if len(points)]
    return WindowPlan(
        window_size=tuple(window_size),
        padding=padding,
        starts=starts[used],
        owned=[owned[i] for i in used],
        positions=positions,
        n_planned=len(starts),
    )


class AxisGrid(NamedTuple):
    """Windows along one axis that hold an interval and a margin around it."""

    low: int  # first voxel of all windows
    high: int  # behind the last one
    n_windows: int
    step: float  # at most this many voxels from window to window
    margin: int  # voxels that the interval keeps from the outer faces, where the volume has them

    @classmethod
    def over(cls, first: float, last: float, size: int, window: int, overlap: float) -> AxisGrid:
        """Return the grid for voxels `first` to `last` of an axis."""
        step, margin = max(1.0, window * (1.0 - overlap)), int(window * overlap / 2)
        low = max(0, math.floor(first) - margin)
        high = min(size, math.ceil(last) + 1 + margin)
        if high - low < window:
            low = min(max((low + high - window) // 2, 0), size - window)
            high = low + window
        n_steps = math.ceil(round((high - low - window) / step, 6))
        return cls(low, high, n_steps + 1, step, margin)

    def starts(self, window: int) -> NDArray[np.intp]:
        """First voxels of evenly spaced windows."""
        return np.round(np.linspace(self.low, self.high - window, self.n_windows)).astype(np.intp)

    def reach(self, size: int, window: int) -> slice:
        """Voxels that as many windows can hold, a margin away from their outer faces."""
        span = min(size, int((self.n_windows - 1) * self.step + 1e-6) + window)
        start = min(max((self.low + self.high - span) // 2, 0), size - span)
        stop = start + span
        return slice(start + self.margin * (start > 0), stop - self.margin * (stop < size))


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
