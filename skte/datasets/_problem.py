"""What is wrong with a dataset, and what the values of a case may have wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skte.exceptions import DatasetError

#: What is wrong, and what to do.
Flaw = tuple[str, str]
_LARGEST = np.finfo(np.float32).max


class ImageFileError(ValueError):
    """A file that must not be read as an image: what is wrong, after its name, and the remedy."""

    def __init__(self, what: str, remedy: str = "replace it or leave the case out") -> None:
        super().__init__(what)
        self.remedy = remedy


class Problem(NamedTuple):
    """What is wrong, with which case, and what to do.

    Parameters
    ----------
    case_id : str or None
        The case; None: the dataset as a whole.
    what : str
        What is wrong.
    remedy : str
        What to do about it.

    Examples
    --------
    >>> from skte.datasets import Problem
    >>> print(Problem("c1", "it has no label", "add a LabelMap"))
    Case 'c1': it has no label; add a LabelMap.
    """

    case_id: str | None
    what: str
    remedy: str

    def __str__(self) -> str:
        if self.case_id is None:
            return f"{self.what}: {self.remedy}."
        return f"Case {self.case_id!r}: {self.what}; {self.remedy}."


class Skipped(NamedTuple):
    """A file of a dataset that is used in no case, and why.

    Parameters
    ----------
    path : Path
        The file, or a folder that is left out as a whole.
    reason : str
        Why.
    expected : bool
        Whether nobody would expect it to be used: hidden files, tables, the test set.
    """

    path: Path
    reason: str
    expected: bool


def case_problems(case_id: str | None, flaws: Iterable[Flaw]) -> list[Problem]:
    """Name the case that has these flaws."""
    return [Problem(case_id, what, remedy) for what, remedy in flaws]


def raise_problems(title: str, problems: Sequence[Problem]) -> None:
    """Raise one `DatasetError` that lists all problems and carries them, if there are any."""
    if problems:
        lines = "\n- ".join(map(str, problems))
        raise DatasetError(f"{title}:\n- {lines}", problems=tuple(problems))


def image_flaws(channels: Sequence[NDArray[Any]]) -> list[Flaw]:
    """Find what is wrong with an image, given as arrays of any number of channels."""
    channels = [array for array in channels if array.size]  # empty ones: see geometry
    if odd := sorted({str(a.dtype) for a in channels if a.dtype.kind not in "iufbc"}):
        remedy = "store colours or other fields as channels of plain numbers"
        return [(f"the image holds {', '.join(odd)} values", remedy)]
    if any(np.iscomplexobj(array) for array in channels):
        return [("the image is complex-valued", "store its magnitude")]
    # What float32 cannot hold would become Inf; NaN fails the comparison too.
    if n_bad := sum(_count_beyond(a) for a in channels if a.dtype.kind == "f"):
        remedy = "replace them, by the background value for instance, or leave the case out"
        return [(f"the image has {n_bad} voxels that are NaN, Inf or beyond float32", remedy)]
    if channels and all((c.min() == c.max()) for array in channels for c in array):
        return [
            ("the image is constant everywhere, so it carries no information", "leave the case out")
        ]
    return []


def label_flaws(label: NDArray[Any], ignore_label: int | None) -> list[Flaw]:
    """Find what is wrong with the values of a label map."""
    if not label.size:
        return []  # a problem of the geometry
    if label.dtype.kind not in "iufb":
        return [(f"the label holds {label.dtype} values", "store integer class ids")]
    if label.dtype.kind == "f":
        if not np.isfinite(label).all():
            return [("the label has voxels that are NaN or Inf", "store integer class ids")]
        if (broken := label[label != np.round(label)]).size:
            what = f"the label is float-valued ({few(np.unique(broken).tolist())})"
            remedy = "store integer class ids (a label must be resampled with nearest neighbours)"
            return [(what, remedy)]
    extremes = int(label.min()), int(label.max())
    if not -(2**63) <= min(extremes) <= max(extremes) < 2**63:
        beyond = max(extremes, key=abs)
        what = f"the label has values beyond 64-bit integers ({beyond:.3g})"
        return [(what, "renumber its classes")]
    return _id_flaws(_distinct(label, *extremes), ignore_label)


def _count_beyond(array: NDArray[Any]) -> int:
    """Values that float32 cannot hold, counted without a copy of the whole."""
    if array.min() >= -_LARGEST and array.max() <= _LARGEST:
        return 0
    planes = array.reshape(-1, *array.shape[2:]) if array.ndim > 2 else array
    return sum(int(np.count_nonzero(~(np.abs(plane) <= _LARGEST))) for plane in planes)


def few(values: Iterable[Any], n: int = 5) -> str:
    """Join the first values, for a message."""
    values = list(values)
    return ", ".join(map(str, values[:n])) + (", ..." if len(values) > n else "")


def _id_flaws(values: NDArray[np.int64], ignore_label: int | None) -> list[Flaw]:
    if ignore_label is not None:
        values = values[values != ignore_label]
    if (negative := values[values < 0]).size:
        what = f"the label has negative values ({few(negative.tolist())})"
        remedy = "class ids start at 0 for background (ignore_label may name a value to leave out)"
        return [(what, remedy)]
    if not values.size:
        return [(f"every voxel has the ignore label {ignore_label}", "leave the case out")]
    if values.tolist() == [0]:
        what = "the label is empty: it has no labelled foreground voxel"
        return [(what, "leave the case out")]
    if len(values) == 1:
        what = f"the label holds one class only ({values[0]}) and no background"
        return [(f"{what}, so nothing can be compared", "check the label or leave the case out")]
    return []


def _distinct(label: NDArray[Any], lowest: int, highest: int) -> NDArray[np.int64]:
    if highest - lowest >= 65_536:
        return np.unique(label).astype(np.int64)
    # Counting is much faster than sorting a large volume, plane by plane without a copy.
    counts = np.zeros(highest - lowest + 1, dtype=np.int64)
    for plane in (plane for channel in label for plane in channel):
        counts += np.bincount(plane.astype(np.int64).ravel() - lowest, minlength=len(counts))
    return np.flatnonzero(counts) + lowest
