"""Files and temporary folders that a killed process leaves neither half nor behind.

Results are written beside their place and moved there; scratch folders go with their block.
What a killed process left is removed by the next one: locks, which end with their process,
tell it from what is in use.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, age alone decides
    fcntl = None  # type: ignore[assignment]

# Seconds after which a file is no longer being written, where locks do not work.
_SURELY_OLD = 86_400.0


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then put it in place."""
    target = Path(path)
    temporary, handle = _begin_file(target)
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
    """Write a text file in one step."""
    return write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Try whether `write_atomically` could write a file, and leave nothing behind."""
    temporary, handle = _begin_file(Path(path))
    _close(handle)
    temporary.unlink(missing_ok=True)


def _begin_file(target: Path) -> tuple[Path, int]:
    """Make a temporary file that `_sweep_files` knows; return its handle as well."""
    _sweep_files(target)
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


def _sweep_files(target: Path) -> None:
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
    """Say that a file lies outside the folders it must lie in; empty where it does not."""
    real = Path(os.path.realpath(path))
    if any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        return ""
    return (
        f"leads to {real}, outside the folder that was given; to allow it, name its folder with "
        f"--allow-root {real.parent} or extra_roots=[...]"
    )


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """Make a temporary folder that goes when the block ends."""
    _sweep_folders(prefix)
    folder, handle = _begin_folder(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _begin_folder(prefix: str) -> tuple[Path, int | None]:
    """Return a new folder, locked; made again where a sweep was faster."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        handle = _open_folder(folder)
        if handle is None:
            return folder, None
        if lock(handle) is not False and folder.exists():
            return folder, handle
        os.close(handle)


def _sweep_folders(prefix: str) -> None:
    """Remove what killed processes of this user left."""
    with suppress(OSError):
        for folder in [p for p in Path(tempfile.gettempdir()).glob(f"{prefix}*") if _is_ours(p)]:
            age = abs(time.time() - folder.lstat().st_mtime)
            handle = _open_folder(folder)
            if handle is None:
                if age >= _SURELY_OLD:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            free = lock(handle)  # kept until it is gone
            if free or (free is None and age >= _SURELY_OLD):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _is_ours(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()


def _open_folder(folder: Path) -> int | None:
    """Open a folder for its lock; None where folders cannot be opened."""
    try:
        return os.open(folder, os.O_RDONLY | open_flags("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC"))
    except OSError:
        return None


def is_abandoned(path: Path, age: float) -> bool:
    """Tell whether no living process writes a file: one would hold its lock."""
    try:
        handle = os.open(path, os.O_RDONLY | open_flags("O_NOFOLLOW", "O_NONBLOCK"))
    except OSError:
        return False
    try:
        free = lock(handle)
    finally:
        os.close(handle)
    return age >= _SURELY_OLD if free is None else free


def lock(handle: int) -> bool | None:
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


def open_flags(*names: str) -> int:
    """Combine those flags of `os.open` that this system has."""
    flags = 0
    for name in names:
        flags |= getattr(os, name, 0)
    return flags
