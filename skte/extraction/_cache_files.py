"""Files of a cache folder: named by digests, and told from all others.

Only files whose names this module makes are ever replaced or removed, and no link inside
the folder is followed, so that a folder from elsewhere cannot lead out of itself.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skte._files import is_abandoned
from skte.extraction._cache_io import read_file, write_file

__all__ = [
    "ENTRY",
    "LEFTOVER",
    "RECORD",
    "CacheFile",
    "folder_problem",
    "list_files",
    "place",
    "prepare_folder",
    "remove_empty",
    "sweep",
    "sweep_folder",
]

ENTRY, RECORD, LEFTOVER = ".skf", ".json", ".tmp"

_MARKER = "skte-cache.json"
_MARKER_FORMAT = "skte feature cache"
_MARKER_VERSION = 1
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_FINISHED = re.compile(r"[0-9a-f]{64}(\.skf|\.json)")
_UNFINISHED = re.compile(r"\.([0-9a-f]{64}(\.skf|\.json)|skte-cache\.json)\.[0-9a-f]{16}\.tmp")
# Seconds after which an unfinished file may be looked at: its writer has long locked it (and
# one that was too slow to writes again). A run that is started anew takes longer to get here.
_YOUNG = 2.0


@dataclass(frozen=True)
class CacheFile:
    """A file of skte's in a cache folder."""

    path: Path
    kind: str
    n_bytes: int
    modified: float


def folder_problem(root: Path) -> str | None:
    """Say why a folder cannot be a cache; None where it is one, or may become one."""
    try:
        names = os.listdir(root)
        if _MARKER not in names:
            if all(_UNFINISHED.fullmatch(name) for name in names):
                return None
            return (
                "is not empty and holds no cache of skte: name an empty folder or a new one, so "
                "that nothing else is ever taken for part of the cache"
            )
        marker = json.loads(read_file(root / _MARKER, most=4096))
    except NotADirectoryError:
        return "is a file, or a part of its path is: name a folder"
    except OSError:
        # Not there yet, or out of reach for now: that costs the caching, not the run.
        return "has a marker that is a link: remove it" if _is_link(root / _MARKER) else None
    except (ValueError, RecursionError):
        # Cut off by a crash, say. Where all else is a cache's, it is made again.
        if all(_is_own(name) for name in names):
            return None
        marker = None
    if not isinstance(marker, dict) or marker.get("format") != _MARKER_FORMAT:
        return f"has a damaged {_MARKER}: remove the folder, or name another one"
    if marker.get("version") != _MARKER_VERSION:
        return (
            f"is a cache in format {marker.get('version')!r}, and this version of skte reads "
            f"format {_MARKER_VERSION}: name another folder"
        )
    return None


def prepare_folder(root: Path) -> None:
    """Make a folder a cache if it is none yet.

    Parameters
    ----------
    root : Path
        The folder; it and those above it are made where they are missing.

    Raises
    ------
    OSError
        If it cannot be written, or is something else.
    """
    problem = folder_problem(root)
    if problem:
        raise OSError(f"the folder {problem}")
    if not _has_marker(root):
        root.mkdir(parents=True, exist_ok=True)
        sweep_folder(root)
        text = json.dumps({"format": _MARKER_FORMAT, "version": _MARKER_VERSION})
        write_file(root / _MARKER, text.encode())


def _is_own(name: str) -> bool:
    """Tell whether a name in a cache's folder is one that this module makes."""
    return name == _MARKER or any(p.fullmatch(name) for p in (_FAN_OUT, _UNFINISHED))


def _has_marker(root: Path) -> bool:
    try:
        json.loads(read_file(root / _MARKER, most=4096))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def place(root: Path, key: str, kind: str) -> Path:
    """Path of the file of a key; a ValueError for what is no key of `make_key`."""
    name = f"{key}{kind}"
    if not _FINISHED.fullmatch(name):
        raise ValueError(f"{key!r} is no key of a cache: make_key makes them.")
    return root / key[:2] / name


def list_files(root: Path) -> Iterator[CacheFile]:
    """Go through skte's files below a folder; links and all else are passed over."""
    yield from _list_folder(root)
    for folder in sorted(_fan_out(root)):
        yield from _list_folder(folder)


def sweep_folder(folder: Path) -> None:
    """Remove what killed writers left in one folder of a cache."""
    sweep(_list_folder(folder, unfinished=True))


def sweep(files: Iterable[CacheFile], *, min_age: float = _YOUNG) -> list[CacheFile]:
    """Remove what killed writers left.

    Parameters
    ----------
    files : iterable of CacheFile
        Those to look at; only unfinished ones are touched.
    min_age : float, default=2
        Seconds since the last change. A change in the future counts as well: the clock
        was set back since.

    Returns
    -------
    list of CacheFile
        The removed ones.
    """
    removed = []
    for file in files:
        age = abs(time.time() - file.modified)
        if file.kind == LEFTOVER and age >= min_age and is_abandoned(file.path, age):
            with suppress(OSError):
                file.path.unlink()
                removed.append(file)
    return removed


def remove_empty(root: Path) -> None:
    """Remove the folders within a cache that hold nothing any more."""
    for folder in list(_fan_out(root)):
        with suppress(OSError):  # not empty, or in use again
            folder.rmdir()


def _fan_out(root: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(root) as found:
        for item in found:
            if _FAN_OUT.fullmatch(item.name) and item.is_dir(follow_symlinks=False):
                yield root / item.name


def _list_folder(folder: Path, *, unfinished: bool = False) -> Iterator[CacheFile]:
    """List a folder; a write looks at what is `unfinished` alone, or every file costs the next."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        names = [i for i in found if not unfinished or _UNFINISHED.fullmatch(i.name)]
        for item in sorted(names, key=lambda item: item.name):
            kind = _kind(item.name, folder.name)
            if kind and item.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):  # removed by another process meanwhile
                    status = item.stat(follow_symlinks=False)
                    yield CacheFile(folder / item.name, kind, status.st_size, status.st_mtime)


def _kind(name: str, folder: str) -> str | None:
    if _UNFINISHED.fullmatch(name):
        return LEFTOVER
    match = _FINISHED.fullmatch(name)
    return match[1] if match and name.startswith(folder) and len(folder) == 2 else None


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:
        return False
