"""Which voxels of a case are looked at: the same for every model and layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skte.datasets import Case
from skte.exceptions import DatasetError
from skte.extraction._cells import Lattice, choose_cells
from skte.extraction._draw import (
    CLASS,
    WHOLE_CASE,
    WINDOWS,
    Region,
    count_labels,
    draw,
    draw_informative,
    generator,
)

__all__ = ["VoxelSample", "sample_case"]

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
        none = np.zeros(0, dtype=np.intp)  # a case without foreground may have no class at all
        return np.concatenate([none, *kept]), np.arange(n_class, n_class + n_case)


def sample_case(
    case: Case,
    *,
    n_class_samples: int,
    n_case_samples: int,
    random_state: int,
    samples: str = "all",
    max_windows: int | None = None,
    window_size: Sequence[int] | None = None,
    overlap: float = 0.5,
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
        Seed. The draw depends on it, on the case's id and on image and label alone.
    samples : {"all", "foreground"}, default="all"
        "foreground" leaves out the class sample of label 0 and the whole-case sample;
        the other classes give the voxels that they give with "all".
    max_windows : int, optional
        Draw in two stages: first so many cells of a lattice (what one window of a
        grid owns), then voxels in them.
    window_size : sequence of int, optional
        Edges of the window that the lattice is made for, in voxels of the label map.
        Default: as for a model that names none.
    overlap : float, default=0.5
        Of that grid.

    Returns
    -------
    VoxelSample
        Voxels without repetition within each class and within the whole case. None at
        all where the case has no foreground and `samples` asks for no more.

    Raises
    ------
    DatasetError
        If a whole-case sample is asked for and the image is constant everywhere.

    Notes
    -----
    In two stages, the cells of the whole-case sample are drawn with probabilities
    proportional to the voxels in them and give equally many voxels each, so that every
    voxel is still equally likely; but voxels come in clusters, and their statistics
    vary more than those of as many scattered ones.
    """
    label = case.label.numpy()
    counts = {
        int(value): int(count)
        for value, count in zip(*count_labels(label.reshape(-1)), strict=True)
        if value != case.ignore_label
    }
    whole: list[Region] = [tuple(slice(0, n) for n in label.shape)]  # type: ignore[list-item]
    random = seen = whole
    if max_windows is not None:
        lattice = Lattice(label.shape, window_size, overlap)
        rng = generator(random_state, case.case_id, WINDOWS)
        first, others = choose_cells(lattice, case.image, label, counts, max_windows, rng)
        random = [lattice.cell(i) for i in first]
        seen = [lattice.cell(i) for i in sorted({*first, *others})]
        counts = _count_in(label, seen, counts)
    voxels, labels = [np.zeros((0, 3), dtype=np.intp)], [np.zeros(0, dtype=np.int64)]
    for value, count in counts.items():
        if samples == "foreground" and value == _BACKGROUND:
            continue
        wanted = int(np.clip(math.ceil(_CLASS_SHARE * count), _CLASS_FLOOR, n_class_samples))
        rng = generator(random_state, case.case_id, CLASS, value)
        voxels.append(_draw_class(label, value, count, seen, wanted, rng))
        labels.append(np.full(len(voxels[-1]), value, dtype=np.int64))
    if samples == "all":
        voxels.append(_draw_whole_case(case, random, n_case_samples, random_state))
    return VoxelSample(np.concatenate(voxels), np.concatenate(labels))


def _count_in(
    label: NDArray[np.int64], regions: Sequence[Region], classes: Iterable[int]
) -> dict[int, int]:
    """Voxels of each class in some regions; classes that have none are left out."""
    counts = {k: sum(int(np.count_nonzero(label[r] == k)) for r in regions) for k in classes}
    return {k: count for k, count in counts.items() if count}


def _draw_class(
    label: NDArray[np.int64],
    value: int,
    count: int,
    regions: Sequence[Region],
    wanted: int,
    rng: np.random.Generator,
) -> NDArray[np.intp]:
    """Voxels of one class in some regions, in random order, shape (n_drawn, 3)."""
    mask = np.concatenate([(label[region] == value).reshape(-1) for region in regions])
    return _positions(draw(mask, count, wanted, rng), regions)


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
