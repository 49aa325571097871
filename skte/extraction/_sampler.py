"""Which voxels of a case are looked at: the same for every model and layer."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skte.datasets import Case
from skte.exceptions import DatasetError
from skte.extraction._windows import AxisGrid, default_window_size

#: Part of a volume.
Box = tuple[slice, ...]

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
        return np.concatenate(kept), np.arange(n_class, n_class + n_case)


@dataclass(frozen=True)
class SamplePlan:
    """Which voxels are drawn, for all models alike; see `SegmentationFeatureExtractor`."""

    n_class_samples: int
    n_case_samples: int
    random_state: int
    samples: str = "all"
    overlap: float = 0.375
    roi_window: tuple[int, ...] | None = None  # None: one fitted to each label map

    def draw(self, case: Case) -> VoxelSample:
        """Draw the class sample and, with ``samples="all"``, the whole-case sample of a case."""
        if all(channel.min() == channel.max() for channel in case.image):
            raise DatasetError(
                f"Case {case.case_id!r}: the image is constant everywhere; leave the case out."
            )
        label, places = case.label.numpy(), self._places(case)
        voxels: list[NDArray[np.intp]] = []
        labels: list[NDArray[np.int64]] = []
        for value, (box, count) in sorted(places.items()):
            share = math.ceil(_CLASS_SHARE * count)
            wanted = int(np.clip(share, _CLASS_FLOOR, self.n_class_samples))
            rng = generator(self.random_state, case.case_id, CLASS, value)
            part = label[box]
            chosen = draw((part == value).reshape(-1), count, wanted, rng)
            corner = np.array([axis.start for axis in box])
            voxels.append(corner + np.stack(np.unravel_index(chosen, part.shape), axis=1))
            labels.append(np.full(len(voxels[-1]), value, dtype=np.int64))
        if self.samples == "all":
            rng = generator(self.random_state, case.case_id, WHOLE_CASE)
            voxels.append(draw_informative(case.image, self.n_case_samples, rng))
        counts = {value: count for value, (_, count) in places.items()}
        return VoxelSample(np.concatenate(voxels), np.concatenate(labels), counts)

    def _places(self, case: Case) -> dict[int, tuple[Box, int]]:
        """By class: the box that its voxels are drawn from, and how many it has there."""
        label = case.label.numpy()
        foreground = label != _BACKGROUND
        if case.ignore_label is not None:
            foreground &= label != case.ignore_label
        box = _bounding_box(foreground)
        places = {
            int(value): (box, int(count))
            for value, count in zip(*count_labels(label[box].reshape(-1)), strict=True)
            if value not in (_BACKGROUND, case.ignore_label)
        }
        for region in self._background_from(box, label.shape):
            count = int(np.count_nonzero(label[region] == _BACKGROUND))
            if count:
                return {_BACKGROUND: (region, count), **places}
        return places

    def _background_from(self, box: Box, shape: Sequence[int]) -> Iterator[Box]:
        """Where background is drawn from; foreground may fill the first of two regions."""
        if self.samples == "roi":  # as much around the box as its windows can hold
            edges = map(min, self.roi_window or default_window_size(shape), shape)
            yield tuple(
                AxisGrid.over(part.start, part.stop - 1, size, edge, self.overlap).reach(size, edge)
                for part, size, edge in zip(box, shape, edges, strict=True)
            )
        if self.samples != "foreground":
            yield tuple(slice(0, n) for n in shape)


def _bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box that holds a mask; all of it where the mask is empty."""
    if not mask.any():
        return tuple(slice(0, n) for n in mask.shape)
    held = [np.flatnonzero(np.any(mask, axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(at[0]), int(at[-1]) + 1) for at in held)


def _prefix(n: int, share: float) -> int:
    return min(n, max(_CLASS_FLOOR, math.ceil(n * share)))


# Voxels looked at together: for air, and when the n-th voxel of a mask is searched.
_SLAB, _BLOCK = 4_000_000, 4096
# Regions up to this size are looked at whole; in larger ones this many rounds of drawing
# must find enough voxels that are not air.
_FEW, _ROUNDS = 100_000, 50
#: What a draw is for: each has random numbers of its own.
WHOLE_CASE, CLASS = 0, 1


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
    image: torch.Tensor, wanted: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw voxels uniformly from those around which the image is not constant."""
    shape = tuple(image.shape[1:])
    n = math.prod(shape)
    if n > _FEW:
        found: dict[int, None] = {}
        for _ in range(_ROUNDS):
            flat = rng.integers(n, size=2 * wanted)
            at = np.stack(np.unravel_index(flat, shape), axis=1)
            found |= dict.fromkeys(flat[is_informative(image, at)].tolist())
            if len(found) >= wanted:
                chosen = np.array(list(found)[:wanted])
                return np.stack(np.unravel_index(chosen, shape), axis=1)
    mask = _informative_mask(image)
    chosen = draw(mask, int(np.count_nonzero(mask)), wanted, rng)
    return np.stack(np.unravel_index(chosen, shape), axis=1)


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


def _informative_mask(image: torch.Tensor) -> NDArray[np.bool_]:
    """Flat mask of a volume; looked at in slabs, so that memory stays small."""
    values = image.numpy()
    n_planes = max(1, _SLAB // math.prod(values.shape[2:]))
    slabs = []
    for begin in range(0, values.shape[1], n_planes):
        before = min(begin, 1)  # planes beside the slab, so that its edges see their neighbours
        varies = _varies(values[:, begin - before : begin + n_planes + 1])
        slabs.append(varies[before : before + n_planes].reshape(-1))
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
