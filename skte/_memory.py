"""How much memory a file may take, known before it is read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skte.exceptions import SkteError

_VARIABLE = "SKTE_MAX_MEMORY"  # processes that skte starts inherit it
# Of the memory that is free; what is read is often copied once.
_SHARE = 0.25
# No file may take more than the floor, or this many times its own size: compressed images
# rarely pass 20, crafted ones reach 1000.
_FLOOR, _EXPANSION = 256 * 2**20, 50
_UNKNOWN = 4 * 2**30  # free memory where the system does not say
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


@contextmanager
def memory_limit(size: str | int | None) -> Iterator[None]:
    """Let each file that is read, and each network's first pass, take a number of bytes.

    By default a file may take a quarter of the memory that is free, and not more than
    256 MiB or 50 times its own size, whichever is larger: more is the mark of a file made
    to exhaust memory. An image of one value throughout may need more. A network's first pass
    may take half of the memory that is free.

    Parameters
    ----------
    size : str, int or None
        Bytes, or text such as ``"8GB"`` (units are powers of 1024). None keeps the default.

    Raises
    ------
    SkteError
        If `size` is neither.

    Examples
    --------
    >>> from skte import memory_limit
    >>> with memory_limit("8GB"):
    ...     pass  # load_dataset, fit, ...
    """
    before = os.environ.get(_VARIABLE)
    if size is not None:
        os.environ[_VARIABLE] = str(parse_bytes(size))
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)
        if before is not None:
            os.environ[_VARIABLE] = before


def memory_problem(n_bytes: int, file_bytes: int | None = None) -> str | None:
    """Return why `n_bytes` at peak are too many, to follow a file's name; None if they are not."""
    most, why = allowed_memory(_SHARE)
    if file_bytes is not None and _VARIABLE not in os.environ:
        in_proportion = max(_FLOOR, _EXPANSION * file_bytes)
        if in_proportion < most:
            most, why = in_proportion, f"what a file of {format_bytes(file_bytes)} may take"
    if n_bytes <= most:
        return None
    return (
        f"would take {format_bytes(n_bytes)} of memory, more than {format_bytes(most)}, {why}; if "
        "it is sound, raise the limit with --max-memory or skte.memory_limit(...)"
    )


def allowed_memory(share: float) -> tuple[int, str]:
    """Return the limit that was set, or else a share of the free memory, and which it is."""
    allowed = os.environ.get(_VARIABLE)
    if allowed is not None:
        return parse_bytes(allowed), "the limit that was set"
    return int(share * free_memory()), f"{share:.0%} of the memory that is free"


def parse_bytes(size: str | int) -> int:
    """Return bytes, at least 1, from a number or text such as ``"8GB"`` (powers of 1024)."""
    match = _SIZE.fullmatch(str(size))
    n_bytes = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if n_bytes < 1:
        raise SkteError(f"{size!r} is not a size in bytes: give a number or text such as '8GB'.")
    return n_bytes


def free_memory() -> int:
    """Bytes that this process may still take, under the limits of its container."""
    free = _UNKNOWN
    with suppress(OSError, ValueError, StopIteration):
        with open("/proc/meminfo", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("MemAvailable"))
        free = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):
        folder = Path("/sys/fs/cgroup")
        most = int((folder / "memory.max").read_text("ascii"))
        used = int((folder / "memory.current").read_text("ascii"))
        free = min(free, max(most - used, 0))
    return free


def format_bytes(n_bytes: int) -> str:
    """Return a number of bytes as text, in units of 1024."""
    size = float(n_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
