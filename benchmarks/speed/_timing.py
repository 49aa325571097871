"""Side-by-side timing: rounds alternate, and the ratio is taken round by round.

Processor time, not wall time: everything here runs on one thread, and other work on a
shared machine would otherwise decide the ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["Ratio", "compare"]


@dataclass(frozen=True)
class Ratio:
    """How much slower the published form is, over all rounds."""

    case: str
    ours_seconds: float
    theirs_seconds: float
    ratio_median: float
    ratio_min: float
    ratio_max: float
    difference: float

    def named(self, case: str) -> Ratio:
        """Return the same figures under another name."""
        return replace(self, case=case)

    def row(self) -> dict[str, Any]:
        """Return a row of the result file."""
        return {
            k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(self).items()
        }


def compare(
    case: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    difference: Callable[[Any, Any], float],
    *,
    rounds: int,
    share: float = 1.0,
) -> Ratio:
    """Time both, in turn; `share` says what part of the work `theirs` does."""
    a, b, results = [], [], (None, None)
    for _ in range(rounds):
        begun = time.process_time()
        mine = ours()
        middle = time.process_time()
        other = theirs()
        a.append(middle - begun)
        b.append((time.process_time() - middle) / share)
        results = (mine, other)
    ratios = [y / x for x, y in zip(a, b, strict=True)]
    return Ratio(
        case,
        statistics.median(a),
        statistics.median(b),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        difference(*results),
    )
