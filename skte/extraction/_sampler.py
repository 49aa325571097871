"""Which voxels of a case are looked at: the same for every model and layer."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skte.datasets import Case
from skte.exceptions import DatasetError
from skte.extraction._windows import axis_starts, default_window_size

# The label that is no class of interest, as CC-FV's default has it.
_BACKGROUND = 0
# Share of a class's voxels in its sample, between floor and cap.
_CLASS_SHARE = 0.25
_CLASS_FLOOR = 50


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """Sampled voxels of one case.

    Attributes
    ----------
    voxels : ndarray of shape (n_voxels, 3)
        Indices into the label map: the class sample, then the whole-case sample.
    labels : ndarray of shape (n_class_voxels,)
        Label of each voxel of the class sample; equal labels are adjacent.
    class_voxels : dict of int to int
        By label, how many voxels its sample was drawn from.
    """

    voxels: NDArray[np.intp]
    labels: NDArray[np.int64]
    class_voxels: dict[int, int]

    def rows(self, share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of the class sample and of the whole-case sample that a coarse layer uses.

        Parameters
        ----------
        share : float
            Share of the voxels kept, the first ones, of each class and of the whole case; a class
            keeps at least 50.
        """
        n_class = len(self.labels)
        _, starts, counts = np.unique(self.labels, return_index=True, return_counts=True)
        kept = [np.arange(a, a + _prefix(n, share)) for a, n in zip(starts, counts, strict=True)]
        n_case = _prefix(len(self.voxels) - n_class, share)
        none = np.zeros(0, dtype=np.intp)  # a case without foreground may have no class at all
        return np.concatenate([none, *kept]), np.arange(n_class, n_class + n_case)


@dataclass(frozen=True)
class SamplePlan:
    """Which voxels are drawn, for all models alike; see `SegmentationFeatureExtractor`."""

    n_class_samples: int
    n_case_samples: int
    random_state: int
    samples: str = "all"
    overlap: float = 0.25
    max_windows: int | None = None
    cell_size: tuple[int, ...] | None = None

    def draw(self, case: Case) -> VoxelSample:
        """Draw the class sample and the whole-case sample of a case."""
        label = case.label.numpy()
        counts = {
            int(value): int(count)
            for value, count in zip(*count_labels(label.reshape(-1)), strict=True)
            if value != case.ignore_label
        }
        whole: list[Region] = [tuple(slice(0, n) for n in label.shape)]  # type: ignore[list-item]
        random = seen = whole
        if self.max_windows is not None:
            lattice = Lattice(label.shape, self.cell_size, self.overlap)
            rng = generator(self.random_state, case.case_id, WINDOWS)
            first, others = choose_cells(lattice, case.image, label, counts, self.max_windows, rng)
            random = [lattice.cell(i) for i in first]
            seen = [lattice.cell(i) for i in sorted({*first, *others})]
            counts = {k: sum(int((label[r] == k).sum()) for r in seen) for k in counts}
            counts = {k: count for k, count in counts.items() if count}
        voxels, labels = [np.zeros((0, 3), dtype=np.intp)], [np.zeros(0, dtype=np.int64)]
        for value, count in counts.items():
            if self.samples == "foreground" and value == _BACKGROUND:
                continue
            share = math.ceil(_CLASS_SHARE * count)
            wanted = int(np.clip(share, _CLASS_FLOOR, self.n_class_samples))
            rng = generator(self.random_state, case.case_id, CLASS, value)
            mask = np.concatenate([(label[region] == value).reshape(-1) for region in seen])
            voxels.append(_positions(draw(mask, count, wanted, rng), seen))
            labels.append(np.full(len(voxels[-1]), value, dtype=np.int64))
        if self.samples == "all":
            voxels.append(_draw_whole_case(case, random, self.n_case_samples, self.random_state))
        return VoxelSample(np.concatenate(voxels), np.concatenate(labels), counts)


def _positions(flat: NDArray[np.intp], regions: Sequence[Region]) -> NDArray[np.intp]:
    """Turn positions in the regions laid end to end into indices into the volume."""
    starts = np.array([[part.start for part in region] for region in regions])
    sizes = np.array([[part.stop - part.start for part in region] for region in regions])
    ends = np.cumsum(sizes.prod(axis=1))
    which = np.searchsorted(ends, flat, side="right")
    inside = flat - (ends - sizes.prod(axis=1))[which]
    x, rest = np.divmod(inside, sizes[which, 1] * sizes[which, 2])
    y, z = np.divmod(rest, sizes[which, 2])
    return np.asarray(starts[which] + np.stack([x, y, z], axis=1))


def _draw_whole_case(
    case: Case, regions: Sequence[Region], wanted: int, random_state: int
) -> NDArray[np.intp]:
    rng = generator(random_state, case.case_id, WHOLE_CASE)
    shares = [wanted // len(regions) + (i < wanted % len(regions)) for i in range(len(regions))]
    parts = [
        draw_informative(case.image, region, share, rng)
        for region, share in zip(regions, shares, strict=True)
        if share
    ]
    drawn = np.concatenate([np.zeros((0, 3), dtype=np.intp), *parts])
    if len(drawn) == 0:
        raise DatasetError(
            f"Case {case.case_id!r}: the image is constant everywhere; leave the case out."
        )
    # Layers keep a prefix of the sample, which must not be one region alone.
    return drawn if len(regions) == 1 else rng.permutation(drawn)


def _prefix(n: int, share: float) -> int:
    return min(n, max(_CLASS_FLOOR, math.ceil(n * share)))


#: Part of a volume, by the first and last voxel along each axis.
Region = tuple[slice, slice, slice]

# Voxels looked at together: for air, and when the n-th voxel of a mask is searched.
_SLAB, _BLOCK = 4_000_000, 4096
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
    """Draw voxels of a region uniformly from those where the image is not constant."""
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
    """Tell whether the image varies in the 3 x 3 x 3 voxels around each position."""
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
    starts = np.arange(0, len(mask), _BLOCK)
    counts = np.add.reduceat(mask, starts, dtype=np.intp) if len(mask) else starts
    ends = np.cumsum(counts)
    block = np.searchsorted(ends, ranks, side="right")
    inside = ranks - (ends - counts)[block]
    found = np.empty(len(ranks), dtype=np.intp)
    for b in np.unique(block):  # all true entries of a large volume are never listed
        chosen, start = block == b, starts[b]
        found[chosen] = start + np.flatnonzero(mask[start : start + _BLOCK])[inside[chosen]]
    return found


# Draws of a voxel that must not be in air, before the volume is taken to be all air.
_TRIES = 10_000


class Lattice:
    """Cells of a volume: what each window of a grid owns."""

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
    """Draw the cells that a case is looked at in."""
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
