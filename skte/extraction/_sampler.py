"""Which voxels of a case are looked at: the same for every model and layer."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from skte.datasets import Case
from skte.exceptions import DatasetError

__all__ = ["VoxelSample", "sample_case"]

# Share of a class's voxels in its sample, between floor and cap.
_CLASS_SHARE = 0.25
_CLASS_FLOOR = 50
# Voxels looked at together when the n-th voxel of a mask is searched.
_SLAB = 4_000_000
_WHOLE_CASE, _CLASS = 0, 1


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """Sampled voxels of one case.

    Attributes
    ----------
    voxels : ndarray of shape (n_voxels, 3)
        Indices into the label map: the class sample, then the whole-case sample.
    labels : ndarray of shape (n_class_voxels,)
        Label of each voxel of the class sample; equal labels are adjacent.
    """

    voxels: NDArray[np.intp]
    labels: NDArray[np.int64]

    def rows(self, share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of a prefix of the sample: what layers near the bottleneck use.

        Parameters
        ----------
        share : float
            Share of the voxels kept, of each class and of the whole case; a class
            keeps at least 50.

        Returns
        -------
        class_rows : ndarray of int
            Rows of the class sample.
        case_rows : ndarray of int
            Rows of the whole-case sample.
        """
        n_class = len(self.labels)
        _, starts, counts = np.unique(self.labels, return_index=True, return_counts=True)
        kept = [np.arange(a, a + _prefix(n, share)) for a, n in zip(starts, counts, strict=True)]
        n_case = _prefix(len(self.voxels) - n_class, share)
        return np.concatenate(kept), np.arange(n_class, n_class + n_case)


def sample_case(
    case: Case, *, n_class_samples: int, n_case_samples: int, random_state: int
) -> VoxelSample:
    """Draw the class sample and the whole-case sample of a case.

    Parameters
    ----------
    case : Case
        Image and label map.
    n_class_samples : int
        Most voxels of a class. A class gives a quarter of its voxels, but no
        fewer than 50 (or all it has) and no more than this.
    n_case_samples : int
        Voxels of the whole-case sample, drawn uniformly from those where the
        image is not constant (air and padding say nothing about a model).
    random_state : int
        Seed. The draw depends on it, on the case's id and on the label alone.

    Returns
    -------
    VoxelSample
        Voxels without repetition within each class and within the whole case.
    """
    label = case.label.numpy().reshape(-1)
    classes, counts = _count_labels(label)
    flat, labels = [], []
    for value, count in zip(classes, counts, strict=True):
        if value == case.ignore_label:
            continue
        wanted = np.clip(math.ceil(_CLASS_SHARE * count), _CLASS_FLOOR, n_class_samples)
        rng = _generator(random_state, case.case_id, _CLASS, int(value))
        flat.append(_draw(label == value, int(count), int(wanted), rng))
        labels.append(np.full(len(flat[-1]), value, dtype=np.int64))
    informative = _informative(case.image)
    n_informative = int(np.count_nonzero(informative))
    if n_informative == 0:
        raise DatasetError(
            f"Case {case.case_id!r}: the image is constant everywhere; leave the case out."
        )
    rng = _generator(random_state, case.case_id, _WHOLE_CASE, 0)
    flat.append(_draw(informative, n_informative, n_case_samples, rng))
    voxels = np.unravel_index(np.concatenate(flat), tuple(case.label.shape))
    return VoxelSample(np.stack(voxels, axis=1), np.concatenate(labels))


def _prefix(n: int, share: float) -> int:
    return min(n, max(_CLASS_FLOOR, math.ceil(n * share)))


def _generator(random_state: int, case_id: str, kind: int, label: int) -> np.random.Generator:
    digest = hashlib.sha256(case_id.encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.default_rng([random_state, *words, kind, label])


def _count_labels(label: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    lowest, highest = int(label.min()), int(label.max())
    if highest - lowest < 65_536:  # much faster than sorting a large volume
        # An ignore label may be negative, which bincount refuses.
        counts = np.bincount(label - lowest if lowest < 0 else label)
        classes = np.flatnonzero(counts)
        return classes.astype(np.int64) + min(lowest, 0), counts[classes]
    return np.unique(label, return_counts=True)


def _informative(image: torch.Tensor) -> NDArray[np.bool_]:
    """Voxels whose 3 x 3 x 3 neighbourhood is not constant in every channel."""
    result = torch.zeros(image.shape[1:], dtype=torch.bool)
    for channel in image:
        highest = functional.max_pool3d(channel[None], 3, stride=1, padding=1)
        lowest = -functional.max_pool3d(-channel[None], 3, stride=1, padding=1)
        result |= (highest > lowest)[0]
    return result.numpy().reshape(-1)


def _draw(
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
