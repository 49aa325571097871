"""A dataset's report as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from skte._table import format_table, format_wrapped_table
from skte.datasets._problem import Problem

if TYPE_CHECKING:
    from skte.datasets._report import DatasetReport

__all__ = ["problem_table", "report_text"]

_SHOWN_CASES = 20


def report_text(report: DatasetReport, *, every: bool) -> str:
    """Lay out summary, classes, cases, problems and notes; few of the cases, or every one."""
    there = "1 case" if report.n_cases == 1 else f"{report.n_cases} cases"
    parts = [f"{there}, {len(report.cases)} of them usable"]
    if report.cases:
        parts[0] += "\n" + "\n".join(_summary(report))
        parts += [_classes(report), _cases(report, every)]
    if report.problems:
        parts.append(f"problems (these cannot be used):\n{problem_table(report.problems)}")
    if report.notes:
        title = "notes (these can be used, and may be mistakes):"
        parts.append(f"{title}\n{problem_table(report.notes)}")
    return "\n\n".join(parts)


def problem_table(problems: Iterable[Problem]) -> str:
    """Lay out cases, what is wrong with them, and what to do; long texts wrap."""
    rows = [("(all)" if p.case_id is None else p.case_id, p.what, p.remedy) for p in problems]
    return format_wrapped_table(["case", "problem", "what to do"], rows)


def _summary(report: DatasetReport) -> Iterator[str]:
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
