"""Side-by-side timing: rounds alternate, and the ratio is taken round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
        begun = time.perf_counter()
        mine = ours()
        middle = time.perf_counter()
        other = theirs()
        a.append(middle - begun)
        b.append((time.perf_counter() - middle) / share)
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
