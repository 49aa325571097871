"""Settings of the device while networks run: whole float32, memory kept between layers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

from skte._process import SharedSetting

__all__ = ["memory_kept", "whole_float32"]


def whole_float32(device: torch.device) -> AbstractContextManager[None]:
    """Let a GPU compute in float32 as a CPU does."""
    return _whole.held() if device.type == "cuda" else nullcontext()


def _make() -> Callable[[], None]:
    backends: Any = torch.backends
    whole: Any
    if hasattr(backends.cudnn, "conv"):  # torch >= 2.9
        owners, name, whole = (backends.cudnn.conv, backends.cuda.matmul), "fp32_precision", "ieee"
    else:
        owners, name, whole = (backends.cudnn, backends.cuda.matmul), "allow_tf32", False
    before = [(owner, getattr(owner, name)) for owner in owners]

    def undo() -> None:
        for owner, value in before:
            setattr(owner, name, value)

    for owner in owners:
        setattr(owner, name, whole)
    return undo


_whole = SharedSetting(_make)


# Parameters of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_MIB = 2**20
# glibc's own values, but for the thresholds: setting anything ends their adjustment to what
# a program frees, so they stay where that adjustment ends.
_AFTERWARDS = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 * _MIB), (_TRIM_THRESHOLD, 64 * _MIB))


def memory_kept(device: torch.device) -> AbstractContextManager[None]:
    """Let activations reuse memory from one layer, and one window, to the next."""
    return _kept.held() if device.type == "cpu" and _glibc() else nullcontext()


def _keep() -> Callable[[], None]:
    _set(((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)))
    return lambda: _set(_AFTERWARDS)


_kept = SharedSetting(_keep)


def _set(values: tuple[tuple[int, int], ...]) -> None:
    libc = _glibc()
    if libc is None:
        return
    for parameter, value in values:
        libc.mallopt(parameter, value)
    libc.malloc_trim(0)  # at the beginning too: what others freed would add to the peak


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return None
    return libc
