"""The table of `docs/compatibility.md`, from the result file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["table", "write_page"]

_PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_BEGIN, _END = "<!-- runs: begin -->\n", "<!-- runs: end -->"
_SHOWN = ("numpy", "scipy", "scikit-learn", "torch", "torchio", "joblib")


def table(result: Mapping[str, Any]) -> str:
    """One row per run."""
    lines = [
        f"| Python | installed | {' | '.join(_SHOWN)} | passed | failed | skipped |",
        f"|---|---|{'---|' * len(_SHOWN)}---:|---:|---:|",
    ]
    for run in result["runs"]:
        # A build's own mark, "+cpu" for instance, says nothing here.
        versions = " | ".join(run["versions"][name].split("+")[0] for name in _SHOWN)
        lines.append(
            f"| {run['python']} | {run['installed']}, {run['dependencies']} | {versions} | "
            f"{run['passed']} | {len(run['failed'])} | {run['skipped']} |"
        )
    return "\n".join(lines)


def write_page(result: Mapping[str, Any], page: Path = _PAGE) -> None:
    """Replace the table between its marks."""
    before, rest = page.read_text(encoding="utf-8").split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    page.write_text(f"{before}{_BEGIN}\n{table(result)}\n\n{_END}{after}", encoding="utf-8")
