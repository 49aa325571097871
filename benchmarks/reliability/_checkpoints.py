"""Files of weights made to do harm, by the thousand, each kind of attack by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability._fuzz import fuzz
from tests.reliability.checkpoints import ATTACKS

__all__ = ["RESULT", "attacks", "rows"]

RESULT = Path(__file__).parent / "results" / "checkpoints.json"
_N_INPUTS = 1000  # of each attack
_FEWER = {"nesting, sharing, repetition, colliding keys": 200}  # a second each
_DOOR = "weights"


def attacks(seed: int, n_jobs: int, smoke: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """What there is to try, by name; see `tests.reliability.checkpoints`.

    Inputs run in child processes with limits on memory and time: one that ends its process is
    a failure, and the next one starts another.
    """
    n = {name: 30 if smoke else _FEWER.get(name, _N_INPUTS) for name in ATTACKS}
    return {name: partial(fuzz, name, n[name], seed, n_jobs) for name in ATTACKS}


def rows(path: Path = RESULT) -> Iterator[tuple[str, str, int, int]]:
    """Give door, attack, number tried and number held, for each attack of the result file."""
    for found in json.loads(path.read_text())["checkpoints"].values():
        if isinstance(found, dict):  # beside seed and commit
            held = found["n_tried"] - found["outcomes"].get("failure", 0)
            yield _DOOR, found["what"], found["n_tried"], held
