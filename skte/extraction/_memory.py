"""Keeping the C library from returning a network's memory between its layers."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch

__all__ = ["memory_kept"]

# Parameters of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_MIB = 2**20
# glibc's own values, but for the thresholds: setting anything ends their adjustment to what
# a program frees, so they stay where that adjustment ends.
_AFTERWARDS = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 * _MIB), (_TRIM_THRESHOLD, 64 * _MIB))

_lock = threading.Lock()
_users = 0


@contextmanager
def memory_kept(device: torch.device) -> Iterator[None]:
    """Let activations reuse memory from one layer, and one window, to the next.

    glibc maps every block above 32 MiB anew and unmaps it when it is freed, so each
    activation of a large window pays for fresh pages: a third of the time of a forward
    pass and more. Within this context freed memory stays with the process; at the end
    it is returned. Elsewhere than on a CPU under glibc nothing happens.

    It may be entered several times at once; the last to leave returns the memory.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            libc.malloc_trim(0)  # else what others freed adds to the peak
            _set(libc.mallopt, ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)))
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _set(libc.mallopt, _AFTERWARDS)
                libc.malloc_trim(0)


def _set(mallopt: Callable[[int, int], int], values: tuple[tuple[int, int], ...]) -> None:
    for parameter, value in values:
        mallopt(parameter, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return None
    return libc
