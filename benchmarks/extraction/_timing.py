"""Sides of a comparison in turn, and the ratios between them."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Seconds = Mapping[str, Sequence[float]]

_cpu = False


def count_cpu_time() -> None:
    """Measure processor time on one thread from now on, which a busy machine does not stretch."""
    global _cpu
    _cpu = True
    torch.set_num_threads(1)


def clock() -> str:
    """Tell what is measured."""
    return "processor time, one thread" if _cpu else f"wall, {torch.get_num_threads()} threads"


def now() -> float:
    """Seconds: of wall time, or of processor time."""
    return sum(os.times()[:4]) if _cpu else time.perf_counter()


def in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, round by round: what else the machine does meets all sides."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            gc.collect()
            begun = now()
            run()
            seconds[name].append(now() - begun)
            print(f"  {name}: {seconds[name][-1]:.2f} s", flush=True)
    return seconds


def ratio(seconds: Seconds, ours: str, theirs: str) -> float:
    """Median over rounds of the ratio of two sides."""
    pairs = zip(seconds[ours], seconds[theirs], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def rounded(seconds: Seconds) -> dict[str, list[float]]:
    """Return seconds as they are written down."""
    return {name: [round(s, 3) for s in values] for name, values in seconds.items()}
