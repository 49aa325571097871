"""Sides of a comparison in turn, and the ratios between them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Seconds = Mapping[str, Sequence[float]]


def in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, round by round: what else the machine does meets all sides."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            gc.collect()
            begun = time.perf_counter()
            measured = run()  # a side may time itself
            took = measured if isinstance(measured, float) else time.perf_counter() - begun
            seconds[name].append(took)
            print(f"  {name}: {took:.2f} s", flush=True)
    return seconds


def ratio(seconds: Seconds, ours: str, theirs: str) -> float:
    """Median over rounds of the ratio of two sides."""
    pairs = zip(seconds[ours], seconds[theirs], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def rounded(seconds: Seconds) -> dict[str, list[float]]:
    """Return seconds as they are written down."""
    return {name: [round(s, 3) for s in values] for name, values in seconds.items()}
