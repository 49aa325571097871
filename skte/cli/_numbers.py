"""Numbers on the command line, checked while they are parsed."""

from __future__ import annotations

import argparse

__all__ = ["count", "jobs", "seed"]


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
