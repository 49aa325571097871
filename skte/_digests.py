"""Digests of files and tensors, and versions of our own code, that hold in every process."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

__all__ = ["file_digest", "file_stamp", "tensor_digest", "version_of", "versioned"]

_T = TypeVar("_T", bound=Callable[..., Any])
_VERSION = "__skte_version__"

# Seconds within which a second change may leave a file's times as they are.
_CLOCK_TICK = 2.0
_MOST_KNOWN = 100_000
_KNOWN: dict[tuple[str | int, ...], str] = {}


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, read in pieces.

    Known digests are kept for the life of the process, for as long as path, size, inode
    and the times of the last change are the same. Of a file changed just now none is
    kept: another change could leave all of these alike.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "a")
    ...     _ = file.write_text("abc")
    ...     file_digest(file)[:8]
    'ba7816bf'
    """
    path = Path(path)
    with path.open("rb") as file:
        before = _identity(path, os.fstat(file.fileno()))
        if before in _KNOWN:
            return _KNOWN[before]
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.fstat(file.fileno())
    changed = max(status.st_mtime, status.st_ctime)
    if _identity(path, status) == before and changed < time.time() - _CLOCK_TICK:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[before] = digest
    return digest


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and time of the last change of a file, in nanoseconds: where it differs, look again.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    tuple of int
        Of one file alone; inodes and other times change on some network folders by themselves.

    Raises
    ------
    OSError
        If there is no such file.
    """
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def tensor_digest(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's type, shape and values, wherever and however it lies.

    Parameters
    ----------
    tensor : Tensor
        Dense.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> import torch
    >>> tensor = torch.arange(6).reshape(2, 3)
    >>> tensor_digest(tensor) == tensor_digest(tensor.T.clone().T)
    True
    """
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versioned(name: str, version: int) -> Callable[[_T], _T]:
    """Let a class or function of skte be known by name and version, not by its source.

    Digests then outlive edits of comments and moves to another file. Raise the version
    whenever the same settings give other results than before; ``python -m benchmarks.golden
    compare`` says where that was forgotten.
    """

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
