"""Files of weights made to do harm, by the thousand, each kind of attack by itself."""

from __future__ import annotations

from typing import Any

from benchmarks.reliability._fuzz import fuzz
from tests.reliability.checkpoints import ATTACKS

__all__ = ["run"]

_N_INPUTS = 1000  # of each attack
_FEWER = {"nesting, sharing, repetition, colliding keys": 200}  # a second each


def run(smoke: bool, seed: int) -> dict[str, Any]:
    """Read what `tests.reliability.checkpoints` builds.

    Inputs run in child processes with limits on memory and time: one that ends its process is
    a failure, and the next one starts another.
    """
    rows = []
    for name in ATTACKS:
        found = fuzz(name, 5 if smoke else _FEWER.get(name, _N_INPUTS), seed, 2)
        rows.append(
            {
                "attack": found["what"],
                "tried": found["n_tried"],
                "held": found["n_tried"] - found["outcomes"].get("failure", 0),
                "outcomes": found["outcomes"],
                "slowest_seconds": found["slowest_seconds"],
                "problems": found["problems"][:20],
            }
        )
    return {"door": "weights", "rows": rows}
