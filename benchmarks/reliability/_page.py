"""The tables of docs/reliability.md, from the result file alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.reliability._doors import results

__all__ = ["attack_table", "tables", "write_page"]

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- {}: begin -->\n", "<!-- {}: end -->"
_FAULTS = {
    ("kills", "random"): "`SIGKILL` at a random moment",
    ("kills", "operations"): "`SIGKILL` before each operation on a file",
    ("faults", "file_size"): "writes that fail in the middle (limit of file size)",
    ("faults", "full_disk"): "a full disk",
    ("faults", "read_only"): "a read-only cache: empty, half full, full",
    ("faults", "shared"): "three runs at once in one cache, one of them killed in half the rounds",
    ("faults", "clock"): "a clock that jumps by 1 or 40 years, between runs and during one",
    (
        "faults",
        "changed",
    ): "an image, label or weights that change, between runs or in use",
    ("faults", "models"): "a model that hangs, dies, is killed or takes all memory",
}


def write_page(result: Mapping[str, Any], page: Path = _PAGE) -> None:
    """Put the tables in their places."""
    text = page.read_text(encoding="utf-8")
    for name, table in {**tables(result), "attacks": attack_table(results())}.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n{table}\n\n{end}{rest.split(end, 1)[1]}"
    page.write_text(text, encoding="utf-8")


def attack_table(doors: Mapping[str, Any]) -> str:
    """Return what was tried at each door and how much of it held, in Markdown."""
    lines = ["| door | attack | tried | held |", "|---|---|--:|--:|"]
    n_tried = n_held = 0
    for found in doors.values():
        for i, row in enumerate(found["rows"]):
            door = found["door"] if i == 0 else ""
            lines.append(f"| {door} | {row['attack']} | {row['tried']} | {row['held']} |")
            n_tried, n_held = n_tried + row["tried"], n_held + row["held"]
    return "\n".join([*lines, "", f"{n_tried} attacks in all, of which {n_held} held."])


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return both tables in Markdown."""
    faults = ["| fault | tried | next run equal | problems |", "|---|--:|--:|--:|"]
    for (part, name), what in _FAULTS.items():
        row = result[part][name]
        if "skipped" in row:
            faults.append(f"| {what} | 0: {row['skipped']} | | |")
        else:
            cells = [what, row["n_tried"], row["n_equal"], len(row["problems"])]
            faults.append("| " + " | ".join(map(str, cells)) + " |")
    kills = result["kills"]["random"]["killed"]
    stages = ", ".join(f"{stage} {n}" for stage, n in kills.items())
    inputs = [
        "| input | tried | result | named error | undetectable | anything else | slowest, s |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    total = 0
    for row in result["fuzz"].values():
        if not isinstance(row, dict):  # seed and commit
            continue
        counts = dict(row["outcomes"])
        known = [counts.pop(key, 0) for key in ("result", "named error")]
        failures = counts.pop("failure", 0)
        total += row["n_tried"]
        cells = [row["what"], row["n_tried"], *known, sum(counts.values()), failures]
        inputs.append("| " + " | ".join(map(str, [*cells, row["slowest_seconds"]])) + " |")
    inputs += ["", f"{total} inputs in all."]
    return {
        "faults": "\n".join([*faults, "", f"Random kills by stage of the run: {stages}."]),
        "inputs": "\n".join(inputs),
    }
