"""Files of a cache folder, named by digests and distinguished from all others.

Only files whose names this module makes are ever replaced or removed, and no link inside
the folder is followed, so that a folder from elsewhere cannot lead out of itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skte._files import is_abandoned, lock, open_flags
from skte._memory import memory_problem
from skte.features import CaseFeatures, pack_case, unpack_case

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
                "that no other file is mistaken for part of the cache"
            )
        marker = json.loads(read_file(root / _MARKER, most=4096))
    except NotADirectoryError:
        return "is a file, or a part of its path is: name a folder"
    except OSError:
        # Not there yet, or out of reach for now: that costs the caching, not the run.
        return "has a marker that is a link: remove it" if _is_link(root / _MARKER) else None
    except (ValueError, RecursionError):
        # Cut off by a crash, say. Where all else is a cache's, it is made again.
        own = (_FAN_OUT, _UNFINISHED)
        if all(name == _MARKER or any(p.fullmatch(name) for p in own) for name in names):
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
    """Make a folder a cache if it is none yet."""
    problem = folder_problem(root)
    if problem:
        raise OSError(f"the folder {problem}")
    if not _has_marker(root):
        root.mkdir(parents=True, exist_ok=True)
        sweep_folder(root)
        text = json.dumps({"format": _MARKER_FORMAT, "version": _MARKER_VERSION})
        write_file(root / _MARKER, text.encode())


def _has_marker(root: Path) -> bool:
    try:
        json.loads(read_file(root / _MARKER, most=4096))
    except (OSError, ValueError, RecursionError):
        return False
    return True


def place(root: Path, key: str, kind: str) -> Path:
    """Path of the file of a key; a ValueError for what is not a key of `make_key`."""
    name = f"{key}{kind}"
    if not _FINISHED.fullmatch(name):
        raise ValueError(f"{key!r} is not a key of a cache: make_key makes them.")
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
    """Remove what killed writers left."""
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


_ATTEMPTS = 5
_CHUNK = 2**24
_COPIES = 2  # the file, and the arrays in it


def read_file(path: Path, most: int | None = None) -> bytes:
    """Read a plain file, following no link."""
    # Non-blocking: opening a pipe would otherwise wait for a writer for ever.
    handle = os.open(path, os.O_RDONLY | open_flags("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a plain file")
        if most is not None and status.st_size > most:
            raise ValueError(f"it has {status.st_size} bytes, more than {most}")
        problem = memory_problem(_COPIES * status.st_size, status.st_size)
        if problem:
            raise OSError(f"{path} {problem}")
        return file.read(status.st_size)


def write_file(path: Path, data: bytes) -> None:
    """Write a file of the cache in one step: readers meet all of it or none."""
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


#: Part of every key. Raise it whenever the same recipe on the same case gives other
#: features (sampler, windows, interpolation), or the files of features change their form.
FORMAT_VERSION = 2

#: Bytes of a record.
MOST_RECORD = 2**20


def make_key(**parts: Any) -> str:
    """Make the key of what a set of parts determines."""
    plain = {name: _plain(value, name) for name, value in parts.items()}
    return _digest({"format": FORMAT_VERSION, "parts": plain})


def seal_entry(key: str, case: CaseFeatures) -> bytes:
    """Return the bytes of an entry; its key stands in it, so that a renamed file is noticed."""
    return _entry_head(key) + pack_case(case)


def open_entry(key: str, data: bytes) -> CaseFeatures:
    """Return the features of an entry's bytes; a ValueError for what `seal_entry` did not make."""
    head = _entry_head(key)
    if not data.startswith(head):
        raise ValueError("it is not the entry that its name states")
    return unpack_case(memoryview(data)[len(head) :])


def seal_record(key: str, record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a record."""
    plain = _plain(record, "record")
    content = {"key": key, "record": plain, "sha256": _digest([key, plain])}
    data = json.dumps(content, sort_keys=True).encode()
    if len(data) > MOST_RECORD:
        raise ValueError(f"record takes {len(data)} bytes, and {MOST_RECORD} are the most.")
    return data


def open_record(key: str, data: bytes) -> dict[str, Any]:
    """Return the record in its bytes; a ValueError for what `seal_record` did not make."""
    try:
        content = json.loads(data)
        record = content["record"]
        sound = content["key"] == key and content["sha256"] == _digest([key, record])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("it is truncated or was changed") from error
    if not sound or not isinstance(record, dict):
        raise ValueError("its checksum does not fit, or it is not the record that its name states")
    return record


def _entry_head(key: str) -> bytes:
    return f"skte cache entry {key}\n".encode()


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, where: str) -> Any:
    """Check that JSON holds a value; numpy's numbers become Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which has no stable form: use numbers, text, "
        "None, or lists, tuples and text-keyed dicts of them."
    )
