"""Writing result files so that a reader never meets half of one."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from skte._locks import is_abandoned, lock, open_flags

__all__ = ["check_writable", "outside_problem", "write_atomically", "write_text_atomically"]


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then put it in place.

    What a killed process left of an earlier try at this very file is removed.

    Parameters
    ----------
    path : path-like
        The file to be; its folder must exist.
    write : callable
        Gets the temporary path, which ends as `path` does.

    Returns
    -------
    Path
        `path`.
    """
    target = Path(path)
    temporary, handle = _begin(target)
    try:
        if lock(handle) is None:  # Windows replaces no file that is open
            handle = _close(handle)
        write(temporary)
        temporary.replace(target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _close(handle)
    return target


def write_text_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text file in one step.

    Parameters
    ----------
    path : path-like
        The file to be; its folder must exist.
    text : str
        Its content.

    Returns
    -------
    Path
        `path`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = write_text_atomically(Path(folder, "a.txt"), "whole")
    ...     [p.name for p in Path(folder).iterdir()]
    ['a.txt']
    """
    return write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Try whether `write_atomically` could write a file, and leave nothing behind.

    Parameters
    ----------
    path : path-like
        The file to be.

    Raises
    ------
    OSError
        If it could not.
    """
    temporary, handle = _begin(Path(path))
    _close(handle)
    temporary.unlink(missing_ok=True)


def _begin(target: Path) -> tuple[Path, int]:
    """Make a temporary file that `_sweep` knows; return its handle as well."""
    _sweep(target)
    name = f".{target.stem}.{secrets.token_hex(8)}.tmp{target.suffix}"
    temporary = target.with_name(name)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | open_flags("O_NOFOLLOW", "O_CLOEXEC")
    try:
        return temporary, os.open(temporary, flags, 0o666)
    except OSError as error:  # the user knows nothing of the temporary file
        reason = error.strerror
        if isinstance(error, FileNotFoundError):
            reason = "The folder of the file to write does not exist; create it first"
        raise OSError(error.errno, reason, str(target)) from None


def _sweep(target: Path) -> None:
    """Remove what killed processes left beside a file of theirs."""
    stem, suffix = re.escape(target.stem), re.escape(target.suffix)
    leftover = re.compile(rf"\.{stem}\.[0-9a-f]{{16}}\.tmp{suffix}")
    with suppress(OSError):  # the folder may be write-only
        for path in [p for p in target.parent.iterdir() if leftover.fullmatch(p.name)]:
            # Taken from a writer that has not locked it yet, it is made again by `write`.
            if is_abandoned(path, abs(time.time() - path.lstat().st_mtime)):
                path.unlink()


def _close(handle: int) -> int:
    if handle >= 0:
        os.close(handle)
    return -1


def outside_problem(path: str | os.PathLike[str], roots: Iterable[str | os.PathLike[str]]) -> str:
    """Say that a file lies outside the folders it must lie in; empty where it does not.

    Links are followed, so that one inside a folder cannot lead out of it.

    Parameters
    ----------
    path : path-like
        A file or folder, which need not exist.
    roots : iterable of path-like
        The folders that may be read.

    Returns
    -------
    str
        To be continued after the name of what is read: "leads to ...".
    """
    real = Path(os.path.realpath(path))
    if any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        return ""
    return (
        f"leads to {real}, outside the folder that was given; to allow it, name its folder with "
        f"--allow-root {real.parent} or extra_roots=[...]"
    )
