"""Random draws of voxels that depend on names and seeds alone."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "CLASS",
    "WHOLE_CASE",
    "WINDOWS",
    "Region",
    "count_labels",
    "draw",
    "draw_informative",
    "generator",
    "is_informative",
]

#: Part of a volume, by the first and last voxel along each axis.
Region = tuple[slice, slice, slice]

# Voxels looked at together when the n-th voxel of a mask is searched.
_SLAB = 4_000_000
# Regions up to this size are looked at whole; in larger ones this many rounds of drawing
# must find enough voxels that are not air.
_FEW, _ROUNDS = 100_000, 50
#: What a draw is for: each has random numbers of its own.
WHOLE_CASE, CLASS, WINDOWS = 0, 1, 2


def generator(random_state: int, case_id: str, kind: int, label: int = 0) -> np.random.Generator:
    """Random numbers of one draw: by seed, case, what it is for, and class."""
    digest = hashlib.sha256(case_id.encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.default_rng([random_state, *words, kind, label])


def count_labels(label: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return the distinct labels of a flat array, sorted, and how often each occurs."""
    lowest, highest = int(label.min()), int(label.max())
    if highest - lowest < 65_536:  # much faster than sorting a large volume
        # An ignore label may be negative, which bincount refuses.
        counts = np.bincount(label - lowest if lowest < 0 else label)
        classes = np.flatnonzero(counts)
        return classes.astype(np.int64) + min(lowest, 0), counts[classes]
    return np.unique(label, return_counts=True)


def draw_informative(
    image: torch.Tensor, region: Region, wanted: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw voxels of a region uniformly from those where the image is not constant.

    Parameters
    ----------
    image : Tensor of shape (n_channels, x, y, z)
        The image. A voxel counts where its 3 x 3 x 3 neighbourhood is not constant in
        every channel.
    region : tuple of slice
        Part of the volume; every slice has a start and a stop.
    wanted : int
        Voxels to draw, without repetition.
    rng : Generator
        What the draw depends on.

    Returns
    -------
    ndarray of shape (n_voxels, 3)
        Indices into the volume, in random order; fewer than `wanted` where the region
        has fewer. None where all of it is constant.

    Notes
    -----
    In a large region voxels are drawn and looked at one by one, which costs the same
    whatever the volume. Where that finds too few (nearly all is air), and in a small
    one, all are looked at.
    """
    start = np.array([part.start for part in region])
    size = np.array([part.stop - part.start for part in region])
    n = int(size.prod())
    if n > _FEW:
        found: dict[int, None] = {}
        for _ in range(_ROUNDS):
            flat = rng.integers(n, size=2 * wanted)
            at = start + np.stack(np.unravel_index(flat, tuple(size)), axis=1)
            found |= dict.fromkeys(flat[is_informative(image, at)].tolist())
            if len(found) >= wanted:
                chosen = np.array(list(found)[:wanted])
                return start + np.stack(np.unravel_index(chosen, tuple(size)), axis=1)
    mask = _informative_mask(image, region)
    chosen = draw(mask, int(np.count_nonzero(mask)), wanted, rng)
    return start + np.stack(np.unravel_index(chosen, tuple(size)), axis=1)


def is_informative(image: torch.Tensor, at: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell whether the image varies in the 3 x 3 x 3 voxels around each position.

    Parameters
    ----------
    image : Tensor of shape (n_channels, x, y, z)
        The image.
    at : ndarray of shape (n_points, 3)
        Indices of voxels.

    Returns
    -------
    ndarray of shape (n_points,)
        True where any channel varies.
    """
    values = image.numpy()
    last = np.array(image.shape[1:]) - 1
    x, y, z = at.T
    centre = values[:, x, y, z]
    result = np.zeros(len(at), dtype=bool)
    for offset in itertools.product((-1, 0, 1), repeat=3):
        x, y, z = np.clip(at + offset, 0, last).T
        result |= (values[:, x, y, z] != centre).any(axis=0)
    return result


def _informative_mask(image: torch.Tensor, region: Region) -> NDArray[np.bool_]:
    """Flat mask of a region; looked at in slabs, so that memory stays small."""
    x, y, z = region
    n_planes = max(1, _SLAB // ((y.stop - y.start) * (z.stop - z.start)))
    slabs = []
    for begin in range(x.start, x.stop, n_planes):
        part = (slice(begin, min(begin + n_planes, x.stop)), y, z)
        # One voxel more on every side, so that edges of the part see their neighbours.
        around = tuple(slice(max(0, p.start - 1), p.stop + 1) for p in part)
        inner = tuple(
            slice(p.start - a.start, p.stop - a.start) for p, a in zip(part, around, strict=True)
        )
        slabs.append(_varies(image.numpy()[:, *around])[inner].reshape(-1))
    return np.concatenate(slabs)


def _varies(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    highest, lowest = values.copy(), values.copy()
    for axis in (1, 2, 3):  # a maximum over a cube is one along each axis in turn
        for extreme, pick in ((highest, np.maximum), (lowest, np.minimum)):
            along, before = np.moveaxis(extreme, axis, 0), np.moveaxis(extreme.copy(), axis, 0)
            pick(along[1:], before[:-1], out=along[1:])
            pick(along[:-1], before[1:], out=along[:-1])
    return np.asarray((highest > lowest).any(axis=0))


def draw(
    mask: NDArray[np.bool_], count: int, wanted: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Positions of `wanted` of the `count` true entries, in random order."""
    ranks = rng.choice(count, size=min(count, wanted), replace=False)
    order = np.argsort(ranks)
    found = np.empty(len(ranks), dtype=np.intp)
    seen = placed = 0
    for start in range(0, len(mask), _SLAB):
        slab = mask[start : start + _SLAB]
        n_here = int(np.count_nonzero(slab))
        end = int(np.searchsorted(ranks[order], seen + n_here))
        if end > placed:
            chosen = order[placed:end]
            found[chosen] = start + np.flatnonzero(slab)[ranks[chosen] - seen]
        placed, seen = end, seen + n_here
    return found
