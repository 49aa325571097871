"""What may be wrong with cases on disk or in memory, all of it told at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.datasets._label_names import parse_label_names
from skte.datasets._read import ImageHeader, read_headers
from skte.datasets._subject import split_images, subject_case_id
from skte.exceptions import DatasetError

__all__ = [
    "check_dataset",
    "geometry_problems",
    "image_problems",
    "label_problems",
    "raise_problems",
    "repeated_ids",
    "structure_problems",
]

# How far, in voxels, image and label may lie apart at the farthest corner: above what
# rounding in headers causes, below what would move a label.
_AFFINE_TOLERANCE = 0.05
_LARGEST = np.finfo(np.float32).max


def check_dataset(subjects: Iterable[Any]) -> list[str]:
    """Look for problems of all cases in file headers; no volume is loaded.

    Finds repeated case ids, missing or several label maps, missing files, files that
    cannot be opened, images and labels of different shape or affine, labels with
    several channels, and cases that differ in their number of channels. What lies in
    the values (NaN, empty labels, truncated files) is found by `read_case`.

    Parameters
    ----------
    subjects : iterable of Subject
        As `load_dataset` returns them.

    Returns
    -------
    list of str
        One sentence a problem, naming the case and the remedy. Empty: none found.

    See Also
    --------
    read_case : Loads one case and checks its values.

    Examples
    --------
    >>> from skte.datasets import check_dataset, make_phantoms
    >>> cases = make_phantoms(2, size=(16, 16, 16))
    >>> check_dataset(cases)
    []
    >>> check_dataset([*cases, cases[0]])
    ["Case id 'ellipsoids_000' is used by 2 cases: give every case an id of its own."]
    """
    subjects = list(subjects)
    if not subjects:
        return ["The dataset holds no case: give at least two."]
    ids = [subject_case_id(subject, i) for i, subject in enumerate(subjects)]
    problems = repeated_ids(ids)
    n_channels: dict[int, list[str]] = {}
    for case_id, subject in zip(ids, subjects, strict=True):
        found, channels = _case_header_problems(case_id, subject)
        problems += found
        if channels:
            n_channels.setdefault(channels, []).append(case_id)
    if len(n_channels) > 1:
        counts = "; ".join(f"{n} in {_few(cases)}" for n, cases in sorted(n_channels.items()))
        problems.append(
            f"The cases differ in their number of channels: {counts}. "
            "Give every case the same channels."
        )
    return problems


def raise_problems(title: str, problems: Sequence[str]) -> None:
    """Raise one `DatasetError` that lists all problems, if there are any."""
    if problems:
        raise DatasetError(f"{title}:\n- " + "\n- ".join(problems))


def repeated_ids(ids: Iterable[str]) -> list[str]:
    """Problems of case ids that occur more than once."""
    return [
        f"Case id {case_id!r} is used by {n} cases: give every case an id of its own."
        for case_id, n in Counter(ids).items()
        if n > 1
    ]


def structure_problems(case_id: str, subject: Any) -> list[str]:
    """Problems of what a subject holds, nothing of it read."""
    images, labels = split_images(subject)
    problems = []
    if not labels:
        problems.append("it has no label; add a LabelMap")
    if len(labels) > 1:
        problems.append(f"it has {len(labels)} label maps ({_few(labels)}); keep one")
    for name, image in labels.items():
        if isinstance(image.path, list) and len(image.path) > 1:
            problems.append(f"label {name!r} has {len(image.path)} files; merge them into one")
    if not images:
        problems.append("it has no image; add a ScalarImage")
    ignore = subject.get("ignore_label")
    if ignore is not None and not (
        isinstance(ignore, (int, np.integer)) and not isinstance(ignore, bool)
    ):
        problems.append(f"ignore_label must be an integer or None, got {ignore!r}")
    problems += parse_label_names(subject.get("label_names"))[1]
    return [f"Case {case_id!r}: {problem}." for problem in problems]


def geometry_problems(
    case_id: str, images: Sequence[ImageHeader], label: ImageHeader | None
) -> list[str]:
    """Problems of shapes and affines within one case."""
    everything = [*images, *([label] if label else [])]
    singular = [h.source for h in everything if not _is_regular(h.affines[0])]
    problems = [
        f"{source} has an affine that is singular or not finite; mend its header"
        for source in singular
    ]
    problems += [
        f"{h.source} has no voxels (shape {h.shape}); get it again or leave the case out"
        for h in everything
        if 0 in h.shape
    ]
    if label and label.shape[0] > 1:
        problems.append(
            f"the label ({label.source}) is 4-D with {label.shape[0]} channels; "
            "merge one-hot channels into one map of class ids"
        )
    # Without an image there is nothing to compare with, and it was told elsewhere.
    for header in everything[1:] if images else []:
        what = "label" if header is label else "channel"
        if header.shape[1:] != images[0].shape[1:]:
            problems.append(
                f"the {what} ({header.source}) has shape {header.shape[1:]}, the image "
                f"({images[0].source}) {images[0].shape[1:]}; resample one to the other's grid"
            )
        elif not singular and (off := _displacement(header, images[0])) > _AFFINE_TOLERANCE:
            problems.append(
                f"the {what} ({header.source}) and the image ({images[0].source}) have "
                f"different affines, {off:.3g} voxels apart at the farthest corner; resample "
                "one to the other's grid, or copy the affine if the voxels do match"
            )
    return [f"Case {case_id!r}: {problem}." for problem in problems]


def image_problems(case_id: str, channels: Sequence[NDArray[Any]]) -> list[str]:
    """Problems of the values of an image, given as arrays of any number of channels."""
    problems = []
    channels = [array for array in channels if array.size]  # the geometry tells of empty ones
    if odd := sorted({str(a.dtype) for a in channels if a.dtype.kind not in "iufbc"}):
        problems.append(
            f"the image holds {', '.join(odd)} values; store colours or other fields as "
            "channels of plain numbers"
        )
    elif any(np.iscomplexobj(array) for array in channels):
        problems.append("the image is complex-valued; store its magnitude")
    # What float32 cannot hold would become Inf; NaN fails the comparison too.
    elif n_bad := sum(
        np.count_nonzero(~(np.abs(a) <= _LARGEST)) for a in channels if a.dtype.kind == "f"
    ):
        problems.append(
            f"the image has {n_bad} voxels that are NaN, Inf or beyond float32; "
            "replace them, by the background value for instance, or leave the case out"
        )
    elif channels and all((c.min() == c.max()) for array in channels for c in array):
        problems.append("the image is constant everywhere, so it says nothing; leave the case out")
    return [f"Case {case_id!r}: {problem}." for problem in problems]


def label_problems(case_id: str, label: NDArray[Any], ignore_label: int | None) -> list[str]:
    """Problems of the values of a label map."""
    return [
        f"Case {case_id!r}: {problem}." for problem in _label_value_problems(label, ignore_label)
    ]


def _label_value_problems(label: NDArray[Any], ignore_label: int | None) -> list[str]:
    if not label.size:
        return []  # the geometry tells of it
    if label.dtype.kind not in "iufb":
        return [f"the label holds {label.dtype} values; store integer class ids"]
    if label.dtype.kind == "f":
        if not np.isfinite(label).all():
            return ["the label has voxels that are NaN or Inf; store integer class ids"]
        if (broken := label[label != np.round(label)]).size:
            return [
                f"the label is float-valued ({_few(np.unique(broken).tolist())}); store integer "
                "class ids (a label must be resampled with nearest neighbours)"
            ]
    extremes = int(label.min()), int(label.max())
    if not -(2**63) <= min(extremes) <= max(extremes) < 2**63:
        beyond = max(extremes, key=abs)
        return [f"the label has values beyond 64-bit integers ({beyond:.3g}); renumber its classes"]
    values = _distinct(label.astype(np.int64).ravel())
    if ignore_label is not None:
        values = values[values != ignore_label]
    if (negative := values[values < 0]).size:
        return [
            f"the label has negative values ({_few(negative.tolist())}); class ids start at 0 "
            "for background (ignore_label may name a value to leave out)"
        ]
    if not values.size:
        return [f"every voxel has the ignore label {ignore_label}; leave the case out"]
    if values.tolist() == [0]:
        return ["the label is empty: it has no labelled foreground voxel; leave the case out"]
    if len(values) == 1:
        return [
            f"the label holds one class only ({values[0]}) and no background, so nothing "
            "can be compared; check the label or leave the case out"
        ]
    return []


def _distinct(values: NDArray[np.int64]) -> NDArray[np.int64]:
    lowest, highest = int(values.min()), int(values.max())
    if highest - lowest < 65_536:  # counting is much faster than sorting a large volume
        return np.flatnonzero(np.bincount(values - lowest)).astype(np.int64) + lowest
    return np.unique(values)


def _case_header_problems(case_id: str, subject: Any) -> tuple[list[str], int]:
    """Problems of one case, and its number of channels (0 where that cannot be told)."""
    problems = structure_problems(case_id, subject)
    images, labels = split_images(subject)
    headers: list[ImageHeader] = []
    unreadable: list[str] = []
    for name, image in images.items():
        found, broken = read_headers(image, name)
        headers += found
        unreadable += broken
    label = None
    for name, image in list(labels.items())[:1]:
        found, broken = read_headers(image, name)
        unreadable += broken
        label = found[0] if found else None
    problems += [f"Case {case_id!r}: {text}." for text in unreadable]
    problems += geometry_problems(case_id, headers, label)
    return problems, 0 if unreadable else sum(h.shape[0] for h in headers)


def _is_regular(affine: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all():
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((spacing > 0).all() and abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-6)


def _displacement(a: ImageHeader, b: ImageHeader) -> float:
    """Largest distance between the corners of two images, in voxels.

    A NIfTI file may state its affine twice. Tools differ in which one they read and
    keep, so two files agree when any of their affines do.
    """
    corners = np.array([[*ijk, 1] for ijk in product(*((0, n - 1) for n in b.shape[1:]))])
    spacing = np.linalg.norm(b.affines[0][:3, :3], axis=0).min()
    # A step of one voxel shows a rotation that a flat image's corners would not.
    steps = np.vstack([corners, corners[0] + np.eye(4)[:3]])
    apart = [
        np.linalg.norm((first - second)[:3] @ steps.T, axis=0).max()
        for first, second in product(a.affines, b.affines)
    ]
    return float(min(apart) / spacing)


def _few(values: Iterable[Any], n: int = 5) -> str:
    values = list(values)
    return ", ".join(map(str, values[:n])) + (", ..." if len(values) > n else "")
