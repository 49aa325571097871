"""Writing result files so that a reader never meets half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["write_atomically", "write_text_atomically"]


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then put it in place.

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
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem}-", suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp's files are private; give the permissions an ordinary file has.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
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
