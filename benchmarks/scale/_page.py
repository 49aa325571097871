"""The table of `docs/how-to/clusters.md`, from the result file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["table", "write_page"]

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "clusters.md"
_BEGIN, _END = "<!-- scale: begin -->\n", "<!-- scale: end -->"


def table(result: Mapping[str, Any]) -> str:
    """One row per size, and the exponents of growth."""
    runs = {(r["models"], r["cases"]): r for r in (*result["by_cases"], *result["by_models"])}
    lines = [
        "| models x cases | rank, s | memory grown by, MiB | report | files in the cache |",
        "|---|---:|---:|---:|---:|",
    ]
    for (models, cases), run in sorted(runs.items()):
        lines.append(
            f"| {models} x {cases} | {run['seconds']:.1f} | {run['grown_mib']:.0f} | "
            f"{run['report_mib']:.2f} MiB in {run['seconds_report']:.1f} s | {run['files']} |"
        )
    by_models, by_cases = result["exponents"]["models"], result["exponents"]["cases"]
    lines.append(
        f"| *grows with models, cases to the power of* | "
        f"{by_models['seconds']:.2f}, {by_cases['seconds']:.2f} | | | "
        f"{by_models['files']:.2f}, {by_cases['files']:.2f} |"
    )
    return "\n".join(lines)


def write_page(result: Mapping[str, Any], page: Path = _PAGE) -> None:
    """Replace the table between its marks."""
    before, rest = page.read_text(encoding="utf-8").split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    page.write_text(f"{before}{_BEGIN}\n{table(result)}\n\n{_END}{after}", encoding="utf-8")
