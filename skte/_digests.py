"""Digests of files and tensors, and versions of our own code, that hold in every process."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

_T = TypeVar("_T", bound=Callable[..., Any])
_VERSION = "__skte_version__"

# Seconds within which a second change may leave a file's times as they are.
_CLOCK_TICK = 2.0
_MOST_KNOWN = 100_000
_KNOWN: dict[tuple[str | int, ...], str] = {}


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, known while path, size, inode and times agree."""
    path = Path(path)
    with path.open("rb") as file:
        before = _identity(path, os.fstat(file.fileno()))
        if before in _KNOWN:
            return _KNOWN[before]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.fstat(file.fileno())
    # Another change right after the last could leave all of these alike.
    changed = max(status.st_mtime, status.st_ctime)
    if _identity(path, status) == before and changed < time.time() - _CLOCK_TICK:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[before] = digest
    return digest


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return size and time of the last change (ns) of a file: one that differs has changed."""
    # Inodes and other times change on some network folders by themselves.
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def tensor_digest(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a dense tensor's type, shape and values, however it is stored."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versioned(name: str, version: int) -> Callable[[_T], _T]:
    """Identify a class or function of skte by name and version instead of by its source."""
    # Digests then outlive edits of comments and moves to another file. Raise the version when
    # the same settings give other results; python -m benchmarks.golden compare shows where.

    def mark(thing: _T) -> _T:
        setattr(thing, _VERSION, f"{name}, version {version}")
        return thing

    return mark


def version_of(thing: Any) -> str | None:
    """Return what `versioned` gave this very class or function; bases do not count."""
    return getattr(thing, "__dict__", {}).get(_VERSION)


def _identity(path: Path, status: os.stat_result) -> tuple[str | int, ...]:
    # Also the time that no program can set back.
    return (
        str(path.absolute()),
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )
