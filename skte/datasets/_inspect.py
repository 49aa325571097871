"""What is in a dataset, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from skte._table import format_html_table, format_table, format_wrapped_table
from skte.datasets._case import Case, find_problems, read_case
from skte.datasets._layouts import DatasetLike, as_subjects
from skte.datasets._problem import Problem, few
from skte.exceptions import DatasetError

__all__ = ["CaseSummary", "DatasetReport", "check_dataset", "inspect_dataset"]


_SHOWN_CASES = 20


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
    problems : tuple of Problem
        What makes the dataset, or cases, unusable.
    notes : tuple of Problem
        What is usable and may yet be a mistake.
    """

    n_cases: int
    cases: tuple[CaseSummary, ...]
    label_names: Mapping[int, str]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]

    def n_voxels(self) -> dict[int, int]:
        """Voxels of each class in all usable cases.

        Returns
        -------
        dict of int to int
            Sorted by class; classes that have a name but no voxel are in it.
        """
        total = dict.fromkeys(self.label_names, 0)
        for case in self.cases:
            for k, n in case.n_voxels.items():
                total[k] = total.get(k, 0) + n
        return dict(sorted(total.items()))

    def n_cases_with(self, label: int) -> int:
        """Count the usable cases in which a class occurs.

        Parameters
        ----------
        label : int
            Id of the class.

        Returns
        -------
        int
            Their number.
        """
        return sum(case.n_voxels.get(label, 0) > 0 for case in self.cases)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain lists and dicts, for JSON.

        Returns
        -------
        dict
            With keys ``n_cases``, ``labels``, ``cases``, ``problems`` and ``notes``.
        """
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
        """Lay out everything as tables, as ``print(report)`` does.

        Parameters
        ----------
        every : bool, default=False
            Whether all cases are listed, not only the first 20.

        Returns
        -------
        str
            Lines without a final newline.
        """
        there = "1 case" if self.n_cases == 1 else f"{self.n_cases} cases"
        parts = [f"{there}, {len(self.cases)} of them usable"]
        if self.cases:
            parts[0] += "\n" + "\n".join(_summary_lines(self))
            parts += [_classes(self), _cases(self, every)]
        if self.problems:
            parts.append(f"problems (these cannot be used):\n{_problem_table(self.problems)}")
        if self.notes:
            title = "notes (these can be used, and may be mistakes):"
            parts.append(f"{title}\n{_problem_table(self.notes)}")
        return "\n\n".join(parts)

    def __str__(self) -> str:
        """As `to_text` lays it out."""
        return self.to_text()

    def _repr_html_(self) -> str:
        classes = [
            [k, self.label_names.get(k, ""), n, self.n_cases_with(k)]
            for k, n in self.n_voxels().items()
        ]
        caption = f"cases: {self.n_cases}, usable: {len(self.cases)}"
        tables = [format_html_table(["class", "name", "voxels", "cases"], classes, caption=caption)]
        for title, found in (("problems", self.problems), ("notes", self.notes)):
            if found:
                rows = [[p.case_id or "(all)", p.what, p.remedy] for p in found]
                header = ["case", "what", "what to do"]
                tables.append(format_html_table(header, rows, caption=title))
        return "".join(tables)


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
        Sizes, spacings and voxel counts of the usable cases; problems with their
        remedies; notes on labels without a name, named classes without a voxel, and
        classes that occur in one case only. Prints as tables.

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
    problems = dict.fromkeys(find_problems(subjects))  # each once
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


def _problem_table(problems: Iterable[Problem]) -> str:
    rows = [("(all)" if p.case_id is None else p.case_id, p.what, p.remedy) for p in problems]
    return format_wrapped_table(["case", "problem", "what to do"], rows)


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


def _classes(report: DatasetReport) -> str:
    counts = report.n_voxels()
    total = sum(counts.values())
    rows = [
        [k, report.label_names.get(k, ""), report.n_cases_with(k), n, f"{n / total:.2%}"]
        for k, n in counts.items()
    ]
    return format_table(["class", "name", "cases", "voxels", "share"], rows)


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

    Finds repeated case ids, missing or several label maps, missing files, files that
    cannot be opened, images and labels of different shape or affine, labels with
    several channels, and cases that differ in their number of channels. What lies in
    the values (NaN, empty labels, truncated files) is found by `read_case`.

    Parameters
    ----------
    dataset : list of Subject, SubjectsDataset, list of dict, or path
        Subjects are taken as they are, all else as `load_dataset` takes it.

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
    return [str(problem) for problem in find_problems(as_subjects(dataset))]
