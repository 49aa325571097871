"""What may be wrong with cases on disk or in memory, all of it told at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from skte._text import name_problem
from skte.datasets._geometry import geometry_flaws
from skte.datasets._label_names import parse_label_names
from skte.datasets._problem import Flaw, Problem, case_problems
from skte.datasets._read import ImageHeader, memory_flaws, read_headers
from skte.datasets._subject import split_images, subject_case_id
from skte.datasets._values import few

__all__ = [
    "find_problems",
    "repeated_ids",
    "structure_problems",
]


def find_problems(subjects: Iterable[Any]) -> list[Problem]:
    """Find the problems of all cases in file headers."""
    subjects = list(subjects)
    if not subjects:
        return [Problem(None, "The dataset holds no case", "give at least two")]
    ids = [subject_case_id(subject, i) for i, subject in enumerate(subjects)]
    problems = repeated_ids(ids)
    n_channels: dict[int, list[str]] = {}
    for case_id, subject in zip(ids, subjects, strict=True):
        found, channels = _case_header_problems(case_id, subject)
        problems += found
        if channels:
            n_channels.setdefault(channels, []).append(case_id)
    if len(n_channels) > 1:
        counts = "; ".join(f"{n} in {few(cases)}" for n, cases in sorted(n_channels.items()))
        what = f"The cases differ in their number of channels ({counts})"
        problems.append(Problem(None, what, "give every case the same channels"))
    return problems


def repeated_ids(ids: Iterable[str]) -> list[Problem]:
    """Problems of case ids that occur more than once."""
    return [
        Problem(None, f"Case id {case_id!r} is used by {n} cases", "give every case one of its own")
        for case_id, n in Counter(ids).items()
        if n > 1
    ]


def structure_problems(case_id: str, subject: Any) -> list[Problem]:
    """Problems of what a subject holds, nothing of it read."""
    images, labels = split_images(subject)
    flaws: list[Flaw] = []
    if problem := name_problem(case_id):
        flaws.append((f"its name {problem}", "rename it, or its files"))
    if not labels:
        flaws.append(("it has no label", "add a LabelMap"))
    if len(labels) > 1:
        flaws.append((f"it has {len(labels)} label maps ({few(labels)})", "keep one"))
    for name, image in labels.items():
        if isinstance(image.path, list) and len(image.path) > 1:
            flaws.append((f"label {name!r} has {len(image.path)} files", "merge them into one"))
    if not images:
        flaws.append(("it has no image", "add a ScalarImage"))
    ignore = subject.get("ignore_label")
    if ignore is not None and not (
        isinstance(ignore, (int, np.integer)) and not isinstance(ignore, bool)
    ):
        what = f"ignore_label must be an integer or None, got {ignore!r}"
        flaws.append((what, "give the id to leave out"))
    flaws += parse_label_names(subject.get("label_names"))[1]
    return case_problems(case_id, flaws)


def _case_header_problems(case_id: str, subject: Any) -> tuple[list[Problem], int]:
    """Problems of one case, and its number of channels (0 where that cannot be told)."""
    images, labels = split_images(subject)
    headers: list[ImageHeader] = []
    flaws: list[Flaw] = []
    for name, image in images.items():
        found, broken = read_headers(image, name)
        headers += found
        flaws += broken
    label = None
    for name, image in list(labels.items())[:1]:
        found, broken = read_headers(image, name)
        flaws += broken
        label = found[0] if found else None
    unreadable = bool(flaws)
    flaws += geometry_flaws(headers, label) + memory_flaws(headers, label)
    problems = structure_problems(case_id, subject) + case_problems(case_id, flaws)
    return problems, 0 if unreadable else sum(h.shape[0] for h in headers)
