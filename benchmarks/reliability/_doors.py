"""The doors that hostile input may come in by, and text may leave by: one module each.

Each module has ``run(smoke, seed)``, which returns ``{"door": str, "rows": [{"attack": str,
"tried": int, "held": int, "problems": [str, ...]}]}``; what it found lies in
``results/<name>.json``.
"""

from __future__ import annotations

import json
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._provenance import provenance, write_json

__all__ = ["DOORS", "available", "results", "run_door"]

#: In the order of the page's table.
DOORS = ("checkpoints", "factories", "images", "processes", "models", "text")
_RESULTS = Path(__file__).parent / "results"


def available() -> list[str]:
    """Return the doors that there is a module for."""
    return [name for name in DOORS if find_spec(_module(name))]


def run_door(name: str, *, smoke: bool, seed: int) -> int:
    """Try one door, write what came of it, and return the number of problems."""
    begun = time.monotonic()
    found: dict[str, Any] = import_module(_module(name)).run(smoke=smoke, seed=seed)
    for row in found["rows"]:
        counts = f"{row['tried']} tried, {row['held']} held"
        print(f"{name} {row['attack']}: {counts} {row['problems'][:3] or ''}", flush=True)
    print(f"{name} ({time.monotonic() - begun:.0f} s)", flush=True)
    if not smoke:
        write_json(_RESULTS / f"{name}.json", {**provenance(seed=seed), **found})
    return sum(row["tried"] - row["held"] for row in found["rows"])


def results() -> dict[str, Any]:
    """Return the results there are, by door."""
    found = {}
    for name in DOORS:
        for path in (_RESULTS / f"{name}.json", _RESULTS / f"_{name}.json"):
            if path.exists():
                found[name] = json.loads(path.read_text())
                break
    return found


def _module(name: str) -> str:
    return f"benchmarks.reliability._{name}"
