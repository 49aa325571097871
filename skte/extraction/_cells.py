"""Parts of a volume that a bounded number of windows can serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from skte.extraction._draw import Region, is_informative
from skte.extraction._windows import axis_starts, default_window_size

__all__ = ["Lattice", "choose_cells"]

# Draws of a voxel that must not be in air, before the volume is taken to be all air.
_TRIES = 10_000


class Lattice:
    """Cells of a volume: what each window of a grid owns.

    Parameters
    ----------
    shape : sequence of int
        Size of the label map in voxels.
    window_size : sequence of int or None
        Edges of the window the grid is made for; None for the default of that shape.
    overlap : float
        Share of the edge that neighbours share. Cells are as large as the part of a
        window that is nearer to its centre than to any other's.
    """

    def __init__(
        self, shape: Sequence[int], window_size: Sequence[int] | None, overlap: float
    ) -> None:
        size = default_window_size(shape) if window_size is None else tuple(window_size)
        self.edges: list[NDArray[np.intp]] = []
        for length, window in zip(shape, size, strict=True):
            starts = axis_starts(max(length, window), window, overlap)
            between = (starts[1:] + starts[:-1] + window - 1) // 2 + 1
            self.edges.append(np.array([0, *between[between < length], length]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return tuple(len(edges) - 1 for edges in self.edges)

    def index(self, voxel: NDArray[np.intp]) -> int:
        """Return the number of the cell that a voxel lies in."""
        at = [
            np.searchsorted(e, v, side="right") - 1 for e, v in zip(self.edges, voxel, strict=True)
        ]
        return int(np.ravel_multi_index(at, self.shape))

    def cell(self, index: int) -> Region:
        """Return the voxels of a cell."""
        at = np.unravel_index(index, self.shape)
        x, y, z = (slice(int(e[i]), int(e[i + 1])) for e, i in zip(self.edges, at, strict=True))
        return x, y, z


def choose_cells(
    lattice: Lattice,
    image: torch.Tensor,
    label: NDArray[np.int64],
    counts: Mapping[int, int],
    max_cells: int,
    rng: np.random.Generator,
) -> tuple[list[int], list[int]]:
    """Draw the cells that a case is looked at in.

    Parameters
    ----------
    lattice : Lattice
        The cells.
    image : Tensor of shape (n_channels, x, y, z)
        Tells where there is air.
    label : ndarray of shape (x, y, z)
        Class ids.
    counts : mapping of int to int
        The classes that should be seen, and the voxels of each.
    max_cells : int
        At least 1.
    rng : Generator
        What the draw depends on.

    Returns
    -------
    random : list of int
        Half of the cells (rounded up), each drawn with a probability proportional to
        the voxels in it that are not air: the whole-case sample comes from these.
    others : list of int
        The rest: for each class that no cell holds yet, rarest first, the cell of a
        random voxel of it; then cells drawn like the first ones.
    """
    n_random = -(-max_cells // 2)
    random = _draw_cells(lattice, image, n_random, set(), rng)
    chosen = set(random)
    others: list[int] = []
    for value in sorted(counts, key=lambda k: (counts[k], k)):
        if len(chosen) == max_cells:
            break
        if not any((label[lattice.cell(i)] == value).any() for i in chosen):
            voxel = _random_voxel(label, value, counts[value], rng)
            others.append(lattice.index(voxel))
            chosen.add(others[-1])
    others += _draw_cells(lattice, image, max_cells - len(chosen), chosen, rng)
    return random, others


def _draw_cells(
    lattice: Lattice, image: torch.Tensor, n: int, taken: set[int], rng: np.random.Generator
) -> list[int]:
    """Cells of random voxels that are not air, other than those taken."""
    shape = np.array(image.shape[1:])
    found: list[int] = []
    n_cells = int(np.prod(lattice.shape))
    for _ in range(_TRIES):
        if len(found) == n or len(found) + len(taken) == n_cells:
            break
        voxel = (rng.random(3) * shape).astype(np.intp)
        index = lattice.index(voxel)
        if index in taken or index in found or not is_informative(image, voxel[None])[0]:
            continue
        found.append(index)
    return found


def _random_voxel(
    label: NDArray[np.int64], value: int, count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Position of a random voxel of a class, slab by slab."""
    rank = int(rng.integers(count))
    for x, slab in enumerate(label):
        here = np.flatnonzero(slab == value)
        if rank < len(here):
            return np.array([x, *np.unravel_index(here[rank], slab.shape)])
        rank -= len(here)
    raise AssertionError("count is the number of voxels of the class")
