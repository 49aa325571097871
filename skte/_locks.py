"""Locks that tell a file somebody is writing from one that a killed process left."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows: leftovers are told by their age alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["SURELY_OLD", "is_abandoned", "lock", "open_flags"]

# Seconds after which no one writes one file any more, where locks do not work.
SURELY_OLD = 86_400.0


def is_abandoned(path: Path, age: float) -> bool:
    """Tell whether no living process writes a file: one would hold its lock.

    Parameters
    ----------
    path : Path
        An unfinished file.
    age : float
        Seconds since its last change; decides where locks do not work.

    Returns
    -------
    bool
        False in doubt.
    """
    try:
        handle = os.open(path, os.O_RDONLY | open_flags("O_NOFOLLOW", "O_NONBLOCK"))
    except OSError:
        return False
    try:
        free = lock(handle)
    finally:
        os.close(handle)
    return age >= SURELY_OLD if free is None else free


def lock(handle: int) -> bool | None:
    """Lock an open file; False where another process has, None where locks do not work."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def open_flags(*names: str) -> int:
    """Combine those flags of `os.open` that this system has."""
    flags = 0
    for name in names:
        flags |= getattr(os, name, 0)
    return flags
