"""Reading and writing single files of a cache, safely beside other processes."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no such locks on Windows: leftovers are told by their age alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["is_abandoned", "read_file", "write_file"]

_ATTEMPTS = 5
_CHUNK = 2**24
# Seconds after which no one writes one file any more, where locks do not work.
_SURELY_OLD = 86_400.0


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
        If it cannot be read, or is a link, a pipe or the like.
    ValueError
        If it is larger than `most`.
    """
    # Non-blocking: opening a pipe would otherwise wait for a writer for ever.
    handle = os.open(path, os.O_RDONLY | _flag("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no plain file")
        if most is not None and status.st_size > most:
            raise ValueError(f"it has {status.st_size} bytes, more than {most}")
        return file.read()


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
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _flag("O_NOFOLLOW", "O_BINARY")
    handle = os.open(temporary, flags, 0o666)
    try:
        try:
            _lock(handle)
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
        handle = os.open(path, os.O_RDONLY | _flag("O_NOFOLLOW", "O_NONBLOCK"))
    except OSError:
        return False
    try:
        free = _lock(handle)
    finally:
        os.close(handle)
    return age >= _SURELY_OLD if free is None else free


def _lock(handle: int) -> bool | None:
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


def _flag(*names: str) -> int:
    """Combine those flags of `os.open` that this system has."""
    flags = 0
    for name in names:
        flags |= getattr(os, name, 0)
    return flags
