"""What ``skte inspect`` tells about a dataset."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from skte._table import format_table
from skte.datasets import DatasetReport, Problem

__all__ = ["by", "show_problems", "show_report"]

_NARROW, _WIDE = 80, 160  # columns that the table of problems takes at least and at most
_SHOWN_CASES = 20


def show_report(report: DatasetReport, *, every: bool) -> None:
    """Print summary, classes, cases, and the table of problems."""
    print(f"{report.n_cases} cases, {len(report.cases)} of them usable")
    if report.cases:
        _show_summary(report)
        _show_classes(report)
        _show_cases(report, every=every)
    if report.problems:
        print("\nproblems (these cannot be used):")
        show_problems(report.problems)
    if report.notes:
        print("\nnotes (these can be used, and may be mistakes):")
        show_problems(report.notes)


def show_problems(problems: Sequence[Problem]) -> None:
    """Print a table of cases, what is wrong with them, and what to do; long texts wrap."""
    width = min(max(shutil.get_terminal_size((120, 24)).columns, _NARROW), _WIDE)
    names = [problem.case_id if problem.case_id is not None else "(all)" for problem in problems]
    first = min(max(map(len, names)), width // 4)
    rest = width - first - 4
    what, remedy = rest - rest // 3, rest // 3
    rows: list[list[str]] = []
    for name, problem in zip(names, problems, strict=True):
        cells = [
            textwrap.wrap(text, size) or [""]
            for text, size in ((name, first), (problem.what, what), (problem.remedy, remedy))
        ]
        height = max(map(len, cells))
        rows += [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]
    print(format_table(["case", "problem", "what to do"], rows))


def by(values: Iterable[object]) -> str:
    """Join sizes: ``64 x 64 x 32``."""
    return " x ".join(str(value) for value in values)


def _show_summary(report: DatasetReport) -> None:
    channels = sorted({case.n_channels for case in report.cases})
    print(f"channels  {', '.join(map(str, channels))}")
    for name, values in (
        ("size", [case.size for case in report.cases]),
        ("spacing", [case.spacing_mm for case in report.cases]),
    ):
        low, high = (by(f"{f(axis):.4g}" for axis in zip(*values, strict=True)) for f in (min, max))
        unit = " mm" if name == "spacing" else ""
        print(f"{name:<9} {low}{unit}" + (f" to {high}{unit}" if low != high else ""))


def _show_classes(report: DatasetReport) -> None:
    counts = report.n_voxels()
    total = sum(counts.values())
    rows = [
        [k, report.label_names.get(k, ""), report.n_cases_with(k), n, f"{n / total:.2%}"]
        for k, n in counts.items()
    ]
    print()
    print(format_table(["class", "name", "cases", "voxels", "share"], rows))


def _show_cases(report: DatasetReport, *, every: bool) -> None:
    classes = list(report.n_voxels())
    shown = report.cases if every else report.cases[:_SHOWN_CASES]
    names = report.label_names
    header = ["case", "channels", "size", "spacing"]
    header += [f"{c} ({names[c]})" if c in names else f"{c}" for c in classes]
    rows = [
        [
            case.case_id,
            case.n_channels,
            by(case.size),
            by(f"{s:.4g}" for s in case.spacing_mm),
            *(case.n_voxels.get(c, 0) for c in classes),
        ]
        for case in shown
    ]
    print()
    print(format_table(header, rows))
    if len(shown) < len(report.cases):
        print(f"... and {len(report.cases) - len(shown)} more (--all shows them)")
