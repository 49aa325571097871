"""Numbers on the command line, checked while they are parsed."""

from __future__ import annotations

import argparse
import re

__all__ = ["age", "count", "jobs", "seconds", "seed", "share", "size"]

_BYTES: dict[str, float] = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**i for i, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**i for i, letter in enumerate("kmgt", start=1)},
}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DAYS = {"": 1.0, "h": 1 / 24, "d": 1.0, "w": 7.0}


def seed(text: str) -> int:
    """Read the seed of a random generator."""
    return _bounded(text, 0, 2**32 - 1)


def count(text: str) -> int:
    """Read a positive number of things."""
    return _bounded(text, 1, 2**31 - 1)


def jobs(text: str) -> int:
    """Read a number of processes in joblib's way: negative ones count back from all cores."""
    value = _bounded(text, -(2**15), 2**15)
    if value == 0:
        raise argparse.ArgumentTypeError("must not be 0; leave it out for one at a time")
    return value


def size(text: str) -> float:
    """Read a number of bytes: ``500``, ``2GB``, ``1.5 GiB``."""
    return _with_unit(text, _BYTES, "a size such as 500MB, 2GB or 1.5GiB")


def age(text: str) -> float:
    """Read a time in days: ``30``, ``30d``, ``12h``, ``2w``."""
    return _with_unit(text, _DAYS, "a time such as 12h, 30d or 2w")


def seconds(text: str) -> float:
    """Read a time in seconds, above 0: ``90``, ``90s``, ``15m``, ``2h``."""
    value = _with_unit(text, _SECONDS, "a time such as 90s, 15m or 2h")
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0; leave it out for no limit")
    return value


def share(text: str) -> float:
    """Read a number between 0 and 1, such as a level of confidence."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text!r}")
    return value


def _with_unit(text: str, units: dict[str, float], expected: str) -> float:
    match = re.fullmatch(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in units:
        raise argparse.ArgumentTypeError(f"must be {expected}, got {text!r}")
    return float(match[1]) * units[match[2]]


def _bounded(text: str, lowest: int, highest: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = lowest - 1
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(
            f"must be an integer from {lowest} to {highest}, got {text!r}"
        )
    return value
