"""Sides of a comparison in turn: time, forward passes and peak memory of each."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

Seconds = Mapping[str, Sequence[float]]


class Cost(NamedTuple):
    """What one call took."""

    seconds: float  # of processor time
    peak_mib: float  # of memory above what the process held before
    result: Any


def cost(run: Callable[[], Any]) -> Cost:
    """Call once, and measure."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    begun = time.process_time()
    result = run()
    return Cost(time.process_time() - begun, _status("VmHWM") - before, result)


def _status(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) / 1024


def in_turn(
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each side, round by round: what else the machine does meets all sides."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            gc.collect()
            begun = clock()
            run()
            seconds[name].append(clock() - begun)
    return seconds


def ratio(seconds: Seconds, ours: str, theirs: str) -> float:
    """Median over rounds of the ratio of two sides."""
    pairs = zip(seconds[ours], seconds[theirs], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def rounded(seconds: Seconds) -> dict[str, list[float]]:
    """Return seconds as they are written down."""
    return {name: [round(s, 3) for s in values] for name, values in seconds.items()}
