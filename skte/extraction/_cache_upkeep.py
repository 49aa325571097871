"""Looking after a cache folder: what is in it, what is damaged, what may go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from skte.extraction._cache_entries import MOST_RECORD, open_entry, open_record
from skte.extraction._cache_files import (
    ENTRY,
    LEFTOVER,
    RECORD,
    CacheFile,
    list_files,
    remove_empty,
    sweep,
)
from skte.extraction._cache_io import read_file

__all__ = ["Removed", "clear_files", "describe_files", "prune_files", "verify_files"]

_DAY = 86_400.0


class Removed(NamedTuple):
    """Files removed from a cache, their bytes, and files that could not be removed."""

    n_files: int
    n_bytes: int
    n_failed: int


def describe_files(root: Path) -> dict[str, Any]:
    """Count the files of a cache; see `FeatureCache.describe`."""
    files = list(list_files(root))
    kept = [file for file in files if file.kind != LEFTOVER]
    used = [file.modified for file in kept]
    return {
        "folder": str(root),
        "n_entries": sum(file.kind == ENTRY for file in kept),
        "n_records": sum(file.kind == RECORD for file in kept),
        "n_leftovers": len(files) - len(kept),
        "n_bytes": sum(file.n_bytes for file in files),
        "oldest": _when(min(used)) if used else None,
        "newest": _when(max(used)) if used else None,
    }


def prune_files(root: Path, max_bytes: float | None, max_age_days: float | None) -> Removed:
    """Remove what was not used for longest; see `FeatureCache.prune`."""
    now = time.time()
    removed = _count(sweep(list_files(root)))
    kept = [file for file in list_files(root) if file.kind != LEFTOVER]
    for file in kept:
        if file.modified > now:
            # Used when the clock was ahead. From now on it ages as others do.
            with suppress(OSError):
                os.utime(file.path, (now, now), follow_symlinks=False)
    kept.sort(key=lambda file: (min(file.modified, now), file.path))
    doomed = []
    left = sum(file.n_bytes for file in kept)
    for file in kept:
        too_old = max_age_days is not None and now - file.modified > max_age_days * _DAY
        if too_old or (max_bytes is not None and left > max_bytes):
            doomed.append(file)
            left -= file.n_bytes
    return _add(removed, _remove(doomed))


def clear_files(root: Path) -> Removed:
    """Remove everything but what a living process is writing; see `FeatureCache.clear`."""
    removed = _count(sweep(list_files(root), min_age=0.0))
    removed = _add(removed, _remove(f for f in list_files(root) if f.kind != LEFTOVER))
    remove_empty(root)
    return removed


def verify_files(root: Path) -> list[Path]:
    """Read every file; see `FeatureCache.verify`."""
    damaged = []
    for file in list_files(root):
        key = file.path.stem
        try:
            if file.kind == ENTRY:
                open_entry(key, read_file(file.path))
            elif file.kind == RECORD:
                open_record(key, read_file(file.path, most=MOST_RECORD))
        except FileNotFoundError:  # removed by another process meanwhile
            continue
        except (OSError, ValueError):
            damaged.append(file.path)
    return damaged


def _remove(files: Iterable[CacheFile]) -> Removed:
    gone = []
    n_failed = 0
    for file in files:
        try:
            file.path.unlink()
        except FileNotFoundError:  # another process was faster
            continue
        except OSError:
            n_failed += 1
        else:
            gone.append(file)
    return _add(_count(gone), Removed(0, 0, n_failed))


def _count(files: list[CacheFile]) -> Removed:
    return Removed(len(files), sum(file.n_bytes for file in files), 0)


def _add(a: Removed, b: Removed) -> Removed:
    return Removed(a.n_files + b.n_files, a.n_bytes + b.n_bytes, a.n_failed + b.n_failed)


def _when(modified: float) -> str:
    # A hostile or broken file system may state years that no calendar has.
    try:
        return datetime.fromtimestamp(modified, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "unknown"
