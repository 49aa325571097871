"""Reading and writing single files of a cache, safely beside other processes."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from skte._files import lock, open_flags
from skte._memory import memory_problem

__all__ = ["read_file", "write_file"]

_ATTEMPTS = 5
_CHUNK = 2**24
_COPIES = 2  # the file, and the arrays in it


def read_file(path: Path, most: int | None = None) -> bytes:
    """Read a plain file, following no link.

    Parameters
    ----------
    path : Path
        The file.
    most : int, optional
        Most bytes it may have.

    Returns
    -------
    bytes
        Its content.

    Raises
    ------
    OSError
        If it cannot be read, would take too much memory, or is a link, a pipe or the like.
    ValueError
        If it is larger than `most`.
    """
    # Non-blocking: opening a pipe would otherwise wait for a writer for ever.
    handle = os.open(path, os.O_RDONLY | open_flags("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no plain file")
        if most is not None and status.st_size > most:
            raise ValueError(f"it has {status.st_size} bytes, more than {most}")
        problem = memory_problem(_COPIES * status.st_size, status.st_size)
        if problem:
            raise OSError(f"{path} {problem}")
        return file.read(status.st_size)


def write_file(path: Path, data: bytes) -> None:
    """Write a file of the cache in one step: readers meet all of it or none.

    Nothing forces it to the disk at once: after a power failure it may be damaged, and
    the checksum inside tells.

    Parameters
    ----------
    path : Path
        The file to be. Its folder is made where it is missing.
    data : bytes
        Its content.

    Raises
    ------
    OSError
        If it cannot be written. What was written so far is removed.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return _write_once(path, data)
        except FileNotFoundError:
            # Its folder is not there yet, or another process just cleared the cache.
            if attempt == _ATTEMPTS - 1:
                raise
            path.parent.mkdir(exist_ok=True)


def _write_once(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | open_flags("O_NOFOLLOW", "O_BINARY")
    handle = os.open(temporary, flags, 0o666)
    try:
        try:
            lock(handle)
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view[:_CHUNK]) :]
        finally:
            os.close(handle)  # network folders tell only now that they are full
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
