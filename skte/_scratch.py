"""Temporary folders that do not outlive a killed process for long."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skte._locks import SURELY_OLD, lock, open_flags

__all__ = ["scratch_folder"]


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder that goes when the block ends.

    A process that is killed leaves it behind: whoever makes the next one with the same
    prefix removes it. Folders in use are known by a lock that ends with its process; where
    there are no such locks, those of a day ago are taken for left behind.

    Parameters
    ----------
    prefix : str
        What its name begins with; no other program's folders may.

    Yields
    ------
    Path
        The folder.

    Examples
    --------
    >>> with scratch_folder("skte-example-") as folder:
    ...     folder.is_dir(), folder.name.startswith("skte-example-")
    (True, True)
    >>> folder.exists()
    False
    """
    _sweep(prefix)
    folder, handle = _begin(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _begin(prefix: str) -> tuple[Path, int | None]:
    """Return a new folder, locked; made again where a sweep was faster."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        handle = _open(folder)
        if handle is None:
            return folder, None
        if lock(handle) is not False and folder.exists():
            return folder, handle
        os.close(handle)


def _sweep(prefix: str) -> None:
    """Remove what killed processes of this user left."""
    with suppress(OSError):
        for folder in [p for p in Path(tempfile.gettempdir()).glob(f"{prefix}*") if _is_ours(p)]:
            age = abs(time.time() - folder.lstat().st_mtime)
            handle = _open(folder)
            if handle is None:
                if age >= SURELY_OLD:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            free = lock(handle)  # kept until it is gone
            if free or (free is None and age >= SURELY_OLD):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _is_ours(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()


def _open(folder: Path) -> int | None:
    """Open a folder for its lock; None where folders cannot be opened."""
    try:
        return os.open(folder, os.O_RDONLY | open_flags("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC"))
    except OSError:
        return None
