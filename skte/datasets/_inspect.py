"""What is in a dataset, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from skte._table import format_html_table, format_table, format_wrapped_table
from skte.datasets._case import Case, read_case, repeated_ids, structure_problems, subject_case_id
from skte.datasets._labels import split_images, subject_members
from skte.datasets._layouts import DatasetLike, as_subjects
from skte.datasets._problem import Problem, case_problems, few
from skte.datasets._read import geometry_flaws, memory_flaws, read_headers, widen
from skte.exceptions import DatasetError

_SHOWN_CASES = 20
_Table = tuple[list[str], list[Any]]  # header and rows


@dataclass(frozen=True)
class CaseSummary:
    """What one readable case holds.

    Parameters
    ----------
    case_id : str
        Its name.
    n_channels : int
        Channels of its image.
    size : tuple of int
        Voxels along x, y, z.
    spacing_mm : tuple of float
        Edges of a voxel in mm.
    n_voxels : dict of int to int
        Voxels of each class; those of the ignore label are left out.
    """

    case_id: str
    n_channels: int
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    n_voxels: Mapping[int, int]


@dataclass(frozen=True)
class DatasetReport:
    """What `inspect_dataset` found.

    Parameters
    ----------
    n_cases : int
        Cases there are.
    cases : tuple of CaseSummary
        Those that can be used.
    label_names : dict of int to str
        Names of classes, where known.
    problems, notes : tuple of Problem
        What makes the dataset, or cases, unusable, and what may yet be a mistake.
    """

    n_cases: int
    cases: tuple[CaseSummary, ...]
    label_names: Mapping[int, str]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]

    def n_voxels(self) -> dict[int, int]:
        """Voxels of each class in all usable cases, sorted; named classes without any too."""
        total = dict.fromkeys(self.label_names, 0)
        for case in self.cases:
            for k, n in case.n_voxels.items():
                total[k] = total.get(k, 0) + n
        return dict(sorted(total.items()))

    def n_cases_with(self, label: int) -> int:
        """Count the usable cases in which a class, given by its id, occurs."""
        return sum(case.n_voxels.get(label, 0) > 0 for case in self.cases)

    def to_dict(self) -> dict[str, Any]:
        """Return ``n_cases``, ``labels``, ``cases``, ``problems`` and ``notes``, for JSON."""
        return {
            "n_cases": self.n_cases,
            "labels": [
                {
                    "id": k,
                    "name": self.label_names.get(k),
                    "n_voxels": n,
                    "n_cases": self.n_cases_with(k),
                }
                for k, n in self.n_voxels().items()
            ],
            "cases": [
                asdict(case) | {"n_voxels": {str(k): n for k, n in case.n_voxels.items()}}
                for case in self.cases
            ],
            "problems": [problem._asdict() for problem in self.problems],
            "notes": [note._asdict() for note in self.notes],
        }

    def to_text(self, *, every: bool = False) -> str:
        """Lay out everything as tables, as ``print(report)`` does; `every` lists all cases."""
        there = "1 case" if self.n_cases == 1 else f"{self.n_cases} cases"
        parts = [f"{there}, {len(self.cases)} of them usable"]
        if self.cases:
            parts[0] += "\n" + "\n".join(_summary_lines(self))
            parts += [format_table(*_classes(self)), _cases(self, every)]
        for title, table in _told(self).items():
            parts.append(f"{title}:\n{format_wrapped_table(*table)}")
        return "\n\n".join(parts)

    def __str__(self) -> str:
        """As `to_text` lays it out."""
        return self.to_text()

    def _repr_html_(self) -> str:
        caption = f"cases: {self.n_cases}, usable: {len(self.cases)}"
        tables = {caption: _classes(self)} | _told(self)
        return "".join(format_html_table(*t, caption=caption) for caption, t in tables.items())


def inspect_dataset(dataset: DatasetLike) -> DatasetReport:
    """Read every case and report what is there, and what is wrong.

    Cases are read one after the other; none stays in memory.

    Parameters
    ----------
    dataset : list of Subject, SubjectsDataset, list of dict, or path
        Subjects are taken as they are, all else as `load_dataset` takes it.

    Returns
    -------
    DatasetReport
        Sizes, spacings and voxel counts of the usable cases, problems and notes. Prints as
        tables.

    Raises
    ------
    DatasetError
        If it is no dataset, or cannot be loaded at all.

    See Also
    --------
    check_dataset : Problems of file headers, without reading volumes.

    Examples
    --------
    >>> from skte.datasets import inspect_dataset, make_phantoms
    >>> report = inspect_dataset(make_phantoms(2, size=(16, 16, 16)))
    >>> report.problems, [case.size for case in report.cases]
    ((), [(16, 16, 16), (16, 16, 16)])
    """
    subjects = as_subjects(dataset)
    problems = dict.fromkeys(_find_problems(subjects))  # each once
    cases: list[CaseSummary] = []
    names: dict[int, str] = {}
    told: dict[tuple[str, str], list[str]] = {}
    for subject in subjects:
        try:
            case = read_case(subject)
        except DatasetError as error:
            problems.update(dict.fromkeys(error.problems))
            continue
        cases.append(_summary(case))
        for note in case.notes:
            told.setdefault(note, []).append(case.case_id)
        names |= case.label_names
    if len(subjects) == 1:
        one = Problem(None, "The dataset holds one case", "give at least two to compare")
        problems[one] = None
    report = DatasetReport(len(subjects), tuple(cases), names, tuple(problems), ())
    notes = [*_notes(report), *getattr(subjects, "notes", ()), *_in_common(told)]
    return replace(report, notes=tuple(notes))


def _in_common(notes: Mapping[tuple[str, str], list[str]]) -> Iterator[Problem]:
    """One note for all cases that have it."""
    for (what, remedy), cases in notes.items():
        if len(cases) == 1:
            yield Problem(cases[0], what, remedy)
        else:
            yield Problem(None, f"{what} (in {len(cases)} cases: {few(cases)})", remedy)


def _summary(case: Case) -> CaseSummary:
    labels, counts = torch.unique(case.label, return_counts=True)
    found = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    found.pop(case.ignore_label, None)
    return CaseSummary(
        case.case_id, case.image.shape[0], tuple(case.label.shape), case.spacing, found
    )


def _notes(report: DatasetReport) -> list[Problem]:
    counts = report.n_voxels()
    notes = []
    unnamed = [k for k, n in counts.items() if n and k and k not in report.label_names]
    if report.label_names and unnamed:
        what = f"labels {few(unnamed)} occur without a name"
        notes.append(Problem(None, what, "name them, or leave them out with labels (--labels)"))
    for k, n in counts.items():
        called = f"class {k} ({report.label_names[k]})" if k in report.label_names else f"class {k}"
        if report.cases and not n:
            notes.append(Problem(None, f"{called} occurs in no usable case", "check the labels"))
        elif k and report.n_cases_with(k) == 1 and len(report.cases) > 1:
            only = next(case.case_id for case in report.cases if case.n_voxels.get(k, 0))
            what = f"{called} occurs in one case only, {only}"
            notes.append(Problem(None, what, "it cannot be compared between cases: add some"))
    return notes


def _summary_lines(report: DatasetReport) -> Iterator[str]:
    channels = sorted({case.n_channels for case in report.cases})
    yield f"channels  {', '.join(map(str, channels))}"
    for name, values in (
        ("size", [case.size for case in report.cases]),
        ("spacing", [case.spacing_mm for case in report.cases]),
    ):
        low, high = (
            _by(f"{f(axis):.4g}" for axis in zip(*values, strict=True)) for f in (min, max)
        )
        unit = " mm" if name == "spacing" else ""
        yield f"{name:<9} {low}{unit}" + (f" to {high}{unit}" if low != high else "")


def _told(report: DatasetReport) -> dict[str, _Table]:
    """Tables of problems and notes by their titles, as far as there are any."""
    found = {
        "problems (with these, it cannot be ranked)": report.problems,
        "notes (these can be used, and may be mistakes)": report.notes,
    }
    header = ["case", "problem", "what to do"]
    return {
        title: (header, [(one.case_id or "(all)", one.what, one.remedy) for one in problems])
        for title, problems in found.items()
        if problems
    }


def _classes(report: DatasetReport) -> _Table:
    counts = report.n_voxels()
    total = max(sum(counts.values()), 1)
    rows = [
        [k, report.label_names.get(k, ""), report.n_cases_with(k), n, f"{n / total:.2%}"]
        for k, n in counts.items()
    ]
    return ["class", "name", "cases", "voxels", "share"], rows


def _cases(report: DatasetReport, every: bool) -> str:
    classes = list(report.n_voxels())
    shown = report.cases if every else report.cases[:_SHOWN_CASES]
    names = report.label_names
    header = ["case", "channels", "size", "spacing"]
    header += [f"{c} ({names[c]})" if c in names else f"{c}" for c in classes]
    rows = [
        [
            case.case_id,
            case.n_channels,
            _by(map(str, case.size)),
            _by(f"{s:.4g}" for s in case.spacing_mm),
            *(case.n_voxels.get(c, 0) for c in classes),
        ]
        for case in shown
    ]
    hidden = len(report.cases) - len(shown)
    return format_table(header, rows) + (f"\n... and {hidden} more" if hidden else "")


def _by(values: Iterable[str]) -> str:
    return " x ".join(values)


def check_dataset(dataset: DatasetLike) -> list[str]:
    """Look for problems of all cases in file headers; no volume is loaded.

    What lies in the values (NaN, empty labels, truncated files) is found by `read_case`.

    Parameters
    ----------
    dataset
        As for `inspect_dataset`.

    Returns
    -------
    list of str
        One sentence per problem, naming the case and the remedy. Empty: none found.

    Raises
    ------
    DatasetError
        If it is no dataset, or cannot be loaded at all.

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
    ["Case id 'ellipsoids_000' is used by 2 cases: give every case one of its own."]
    """
    return [str(problem) for problem in _find_problems(as_subjects(dataset))]


def _find_problems(subjects: Iterable[Any]) -> list[Problem]:
    """Find the problems of all cases in file headers."""
    subjects = list(subjects)
    if not subjects:
        return [Problem(None, "The dataset holds no case", "give at least two")]
    ids = [subject_case_id(subject, i) for i, subject in enumerate(subjects)]
    problems = repeated_ids(ids)
    n_channels: dict[int, list[str]] = {}
    for case_id, subject in zip(ids, subjects, strict=True):
        found, channels = _header_problems(case_id, subject)
        problems += found
        if channels:
            n_channels.setdefault(channels, []).append(case_id)
    problems += _renumbered(ids, subjects)
    if len(n_channels) > 1:
        counts = "; ".join(f"{n} in {few(cases)}" for n, cases in sorted(n_channels.items()))
        what = f"The cases differ in their number of channels ({counts})"
        problems.append(Problem(None, what, "give every case the same channels"))
    return problems


def _renumbered(ids: Sequence[str], subjects: Sequence[Any]) -> list[Problem]:
    """Problems of classes whose name stands for different ids in different cases."""
    first: dict[str, tuple[str, list[int]]] = {}
    found: dict[str, Problem] = {}
    for case_id, subject in zip(ids, subjects, strict=True):
        for name, own in subject_members(subject).items():
            other, known = first.setdefault(name, (case_id, own))
            if sorted(known) != sorted(own):
                what = f"Class {name!r} is {few(known)} in {other}, and {few(own)} in {case_id}"
                remedy = "choose classes by name, with labels={...} (--labels)"
                found.setdefault(name, Problem(None, what, remedy))
    return list(found.values())


def _header_problems(case_id: str, subject: Any) -> tuple[list[Problem], int]:
    """Problems of one case, and its number of channels (0 where that cannot be told)."""
    images, labels = split_images(subject)
    headers, _, flaws = read_headers(images)
    label_headers, _, unopened = read_headers(dict(list(labels.items())[:1]))
    label = widen(label_headers[0], headers) if label_headers else None
    flaws += unopened
    channels = 0 if flaws else sum(h.shape[0] for h in headers)
    flaws += geometry_flaws(headers, label) + memory_flaws(headers, label)
    return structure_problems(case_id, subject) + case_problems(case_id, flaws), channels
