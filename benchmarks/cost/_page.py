"""The tables of the documentation, from the result file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plans.__main__ import TARGETS

__all__ = ["TABLES", "write"]

_ROOT = Path(__file__).parents[2]
_HOW_TO = _ROOT / "docs" / "how-to"
_PLANS = _ROOT / "benchmarks" / "plans" / "results"
# What the study of plans calls the sides that it knows.
_AS_PLANS = {"skte, default": "overlap 0.375", "skte, overlap 0": "overlap 0",
             "skte, overlap 0.25": "overlap 0.25", "skte, overlap 0.5": "overlap 0.5",
             "skte, whole volume, overlap 0.5": "another draw of voxels"}  # fmt: skip

Part = Mapping[str, Any]


def agreement(plan: str) -> float:
    """Kendall's tau of the probe's order with the finest plan's, over that of another draw."""
    taus = dict.fromkeys((plan, "another draw of voxels"), 0.0)
    for target in TARGETS:
        plans = json.loads((_PLANS / f"{target}.json").read_text())["plans"]
        for name in taus:
            taus[name] += plans[name]["tau"]["crosscaseprobe"]
    return taus[plan] / taus["another draw of voxels"]


def passes(part: Part) -> str:
    """One row per side, and the aims; by where the volumes are from."""
    kinds = part["kinds"]
    first = next(iter(kinds.values()))
    rows = [
        (
            name,
            *(f"{kind['rows'][name]['over bare']:.2f}" for kind in kinds.values()),
            *(f"{kind['rows'][name]['forward passes']:.0f}" for kind in kinds.values()),
            f"{row['peak MiB']:.0f}",
            f"{agreement(_AS_PLANS[name]):.2f}" if name in _AS_PLANS else "",
        )
        for name, row in first["rows"].items()
    ]
    aims = [
        (aim, limit, *(_judged(read(kind), limit) for kind in kinds.values()))
        for aim, limit, read in (
            ("default over bare passes", 0.40, lambda k: k["rows"]["skte, default"]["over bare"]),
            ("default over MONAI, overlap 0.375", 0.50, lambda k: k["MONAI at equal overlap"]),
            ("default over published", 0.125, lambda k: 1 / k["published over default"]),
        )
    ]
    head = ["", *(f"time, {k}" for k in kinds), *(f"passes, {k}" for k in kinds)]
    head += ["peak memory, MiB", "agreement"]
    return f"{_table(head, rows)}\n\n{_table(['', 'at most', *kinds], aims)}"


def host(part: Part) -> str:
    """Milliseconds, without and with a step of preprocessing."""
    of = part["milliseconds"]
    names = [name for name in of if not name.endswith("z-normalisation")]
    rows = [
        (name, f"{of[name]:.0f}", f"{of[f'{name}, with z-normalisation']:.0f}") for name in names
    ]
    rows.append(("after reading", f"{part['after loading']:.0f}", ""))
    over = part["in all over reading and preprocessing"]
    rows.append(("in all, over reading and preprocessing", "", f"{over:.2f} times"))
    wall = part["the same in wall time"]
    rows.append(("the same for six cases in a row, in wall time", "", f"{wall:.2f} times"))
    return _table(["", "milliseconds", "with z-normalisation"], rows)


def growth(part: Part) -> str:
    """One row per quantity."""
    rows = [
        (
            name,
            f"{row['times']:g}",
            " to ".join(map(str, row["forward passes"])),
            f"{row['exponent of time']:.2f}",
            f"{row['exponent of memory']:.2f}",
        )
        for name, row in part["rows"].items()
    ]
    return _table(["", "times", "forward passes", "time, exponent", "memory, exponent"], rows)


def scoring(part: Part) -> str:
    """One row per estimator, those of the default first; shares of both extractions."""
    small, large = part["extraction"], part["scans"]["extraction"]
    ordered = sorted(part["estimators"].items(), key=lambda item: not item[1]["is_default"])
    rows = [
        (
            f"**{name}**" if row["is_default"] else name,
            f"{row['score'] / small:.1%}",
            f"{row['jackknife'] / small:.1%}",
            f"{row['bootstrap_1000'] / small:.0%}",
            f"{(row['score'] + row['jackknife']) / large:.2%}",
            f"{row['bootstrap_1000'] / large:.1%}",
        )
        for name, row in ordered
    ]
    head = ["", "the score", "jackknife", "1000 bootstrap resamples"]
    return _table([*head, "of scans: score and jackknife", "of scans: bootstrap"], rows)


def bank(part: Part) -> str:
    """Rankings of the bank beside fine-tuning."""
    rows = [
        (name, f"{row['wall']:.0f}", f"{row['processor']:.0f}", row["forward passes"])
        for name, row in part["rows"].items()
    ]
    tuning = part["fine-tuning"]
    rows.append(
        ("a step of fine-tuning one model", "", f"{tuning['seconds per step, processor']:.2f}", "")
    )
    steps = tuning["steps of nnU-Net's schedule"]
    hours = tuning["hours of that, extrapolated"]
    rows.append((f"{steps:,} steps, extrapolated", "", f"{3600 * hours:,.0f}", ""))
    return _table(["", "seconds", "processor seconds", "forward passes"], rows)


#: By the name of the part: page and table.
TABLES: dict[str, tuple[str, Callable[[Part], str]]] = {
    "passes": ("windows.md", passes),
    "host": ("speed.md", host),
    "growth": ("speed.md", growth),
    "scoring": ("confidence.md", scoring),
    "bank": ("speed.md", bank),
}


def write(content: Mapping[str, Part]) -> None:
    """Replace the tables of the parts that were measured, between their marks."""
    for name, (page, table) in TABLES.items():
        if name not in content:
            continue
        path = _HOW_TO / page
        begin, end = f"<!-- cost {name}: begin -->\n", f"<!-- cost {name}: end -->"
        before, rest = path.read_text(encoding="utf-8").split(begin, 1)
        after = rest.split(end, 1)[1]
        text = f"{before}{begin}\n{table(content[name])}\n\n{end}{after}"
        path.write_text(text, encoding="utf-8")


def _judged(value: float, limit: float) -> str:
    return f"{value:.2f}" if value <= limit else f"{value:.2f} (**missed**)"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)
