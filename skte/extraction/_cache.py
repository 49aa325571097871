"""Features kept on disk, so that no model is run twice on a case."""

from __future__ import annotations

import dataclasses
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from skte._digests import file_stamp
from skte.bank import BankEntry, LayerInfo, digest_problem, entry_digest
from skte.datasets import case_fingerprint, case_stamp, check_unchanged
from skte.exceptions import BankError, SkteError, SkteWarning
from skte.extraction import _cache_files as disk
from skte.extraction._runner import ModelFacts
from skte.features import CaseFeatures

_T = TypeVar("_T")

# One warning for each folder and kind of failure is enough for a process.
_WARNED: set[tuple[Path, str]] = set()


@dataclass(frozen=True, init=False)
class FeatureCache:
    """A folder of extracted features, one file for each model and case.

    Any number of processes may use one folder at once. It never fails a run: a damaged file
    counts as missing, and where nothing can be written, nothing is cached; one warning says so.

    Parameters
    ----------
    root : path-like
        The folder. It is made when something is stored first. An existing one must be
        empty or a cache already.

    Raises
    ------
    SkteError
        If the folder holds something else, or a cache of another format.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from skte.extraction import FeatureCache, make_key
    >>> from skte.features import CaseFeatures, LayerSample
    >>> sample = LayerSample(np.eye(3), np.array([0, 1, 1]), np.ones((2, 3)))
    >>> with TemporaryDirectory() as folder:
    ...     cache = FeatureCache(folder)
    ...     key = make_key(model="a", case="b")
    ...     print(cache.load(key), cache.store(key, CaseFeatures("b", {"up1": sample})))
    ...     print(cache.load(key).case_id)
    None True
    b
    """

    root: Path

    def __init__(self, root: str | os.PathLike[str]) -> None:
        # Absolute, so that it holds in a worker with another current folder.
        object.__setattr__(self, "root", Path(root).expanduser().absolute())
        problem = disk.folder_problem(self.root)
        if problem:
            raise SkteError(f"Cache folder {self.root} {problem}.")

    def load(self, key: str) -> CaseFeatures | None:
        """Return the features of a key of `make_key`, verified, or None where there are none.

        A damaged file is removed with a `SkteWarning` that names it, and counts as none.
        """
        return self._load(key, disk.ENTRY, disk.open_entry)

    def store(self, key: str, case: CaseFeatures) -> bool:
        """Keep the features of a key.

        Parameters
        ----------
        key : str
            Of `make_key`.
        case : CaseFeatures
            The features; see `skte.features.pack_case` for what ``info`` may hold.

        Returns
        -------
        bool
            False where they could not be written: the first time in a process a
            `SkteWarning` names folder, reason and remedy.

        Raises
        ------
        ValueError
            If the features have no stored form.
        """
        return self._write(disk.place(self.root, key, disk.ENTRY), disk.seal_entry(key, case))

    def load_record(self, key: str) -> dict[str, Any] | None:
        """Return the record of a key, or None, as `load` does."""
        return self._load(key, disk.RECORD, disk.open_record, disk.MOST_RECORD)

    def store_record(self, key: str, record: Mapping[str, Any]) -> bool:
        """Keep a small record of a key, beside or without features; returns what `store` does.

        Parameters
        ----------
        key : str
            Of `make_key`.
        record : mapping
            What JSON can hold, text-keyed, in 1 MiB at most. Tuples come back as lists.

        Raises
        ------
        TypeError, ValueError
            If JSON cannot hold the record, or if it is too large.
        """
        return self._write(disk.place(self.root, key, disk.RECORD), disk.seal_record(key, record))

    def describe(self) -> dict[str, Any]:
        """Count what is in the folder.

        Returns
        -------
        dict
            ``folder``; ``n_entries``, ``n_records``, ``n_leftovers`` (unfinished files);
            ``n_bytes`` of all of them; ``oldest`` and ``newest``, the times of last use
            (ISO 8601, UTC; None in an empty cache).
        """
        files = list(disk.list_files(self.root))
        kept = [file for file in files if file.kind != disk.LEFTOVER]
        used = [file.modified for file in kept]
        return {
            "folder": str(self.root),
            "n_entries": sum(file.kind == disk.ENTRY for file in kept),
            "n_records": sum(file.kind == disk.RECORD for file in kept),
            "n_leftovers": len(files) - len(kept),
            "n_bytes": sum(file.n_bytes for file in files),
            "oldest": _when(min(used)) if used else None,
            "newest": _when(max(used)) if used else None,
        }

    def prune(self, max_bytes: float | None = None, max_age_days: float | None = None) -> Removed:
        """Remove what was not used for longest, and what killed processes left.

        Parameters
        ----------
        max_bytes : float, optional
            Size that entries and records may keep together.
        max_age_days : float, optional
            Days since the last use that they may have.

        Returns
        -------
        Removed
            Counts of files and bytes, and of files that could not be removed.

        Raises
        ------
        ValueError
            If a limit is negative or no number.
        """
        for name, limit in (("max_bytes", max_bytes), ("max_age_days", max_age_days)):
            if limit is not None and not (limit >= 0 and math.isfinite(limit)):
                raise ValueError(f"{name}={limit!r} must be a number from 0 on, or None.")
        gone = disk.sweep(disk.list_files(self.root))
        kept = [file for file in disk.list_files(self.root) if file.kind != disk.LEFTOVER]
        now = time.time()
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
        return _remove(doomed, gone)

    def clear(self) -> Removed:
        """Remove all features and records, and nothing else; returns what `prune` does."""
        gone = disk.sweep(disk.list_files(self.root), min_age=0.0)
        removed = _remove((f for f in disk.list_files(self.root) if f.kind != disk.LEFTOVER), gone)
        disk.remove_empty(self.root)
        return removed

    def verify(self) -> list[Path]:
        """Read every file and return those that are damaged, which `load` would remove."""
        damaged = []
        for file in disk.list_files(self.root):
            key = file.path.stem
            try:
                if file.kind == disk.ENTRY:
                    disk.open_entry(key, disk.read_file(file.path))
                elif file.kind == disk.RECORD:
                    disk.open_record(key, disk.read_file(file.path, most=disk.MOST_RECORD))
            except FileNotFoundError:  # removed by another process meanwhile
                continue
            except (OSError, ValueError):
                damaged.append(file.path)
        return damaged

    def _load(
        self, key: str, kind: str, opened: Callable[[str, bytes], _T], most: int | None = None
    ) -> _T | None:
        path = disk.place(self.root, key, kind)
        try:
            _refuse_link(path.parent)
            data = disk.read_file(path, most)
            with suppress(OSError):  # a shared cache may be read-only
                os.utime(path, follow_symlinks=False)
            return opened(key, data)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn_once("read", error)
        except ValueError as error:
            self._discard(path, error)
        return None

    def _write(self, path: Path, data: bytes) -> bool:
        try:
            disk.prepare_folder(self.root)
            _refuse_link(path.parent)
            disk.sweep_folder(path.parent)
            disk.write_file(path, data)
        except OSError as error:
            self._warn_once("written", error)
            return False
        return True

    def _discard(self, path: Path, error: ValueError) -> None:
        done = "It was removed"
        try:
            path.unlink(missing_ok=True)
        except OSError as refused:
            done = f"It could not be removed ({refused.strerror})"
        warnings.warn(
            f"Cached features {path} are damaged: {str(error).rstrip('.')}. {done}, and the "
            "features are extracted again.",
            SkteWarning,
            stacklevel=4,
        )

    def _warn_once(self, verb: str, error: OSError) -> None:
        if (self.root, verb) in _WARNED:
            return
        _WARNED.add((self.root, verb))
        warnings.warn(
            f"Features in the cache folder {self.root} could not be {verb}: "
            f"{error.strerror or error}. The run continues without them. Free some space, change "
            "the permissions, or name another folder. Further failures are not reported.",
            SkteWarning,
            stacklevel=4,
        )


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise OSError(f"{folder} is a link, and none is followed within a cache")


_DAY = 86_400.0


class Removed(NamedTuple):
    """Files removed from a cache, their bytes, and files that could not be removed."""

    n_files: int
    n_bytes: int
    n_failed: int


def _remove(files: Iterable[disk.CacheFile], gone: list[disk.CacheFile]) -> Removed:
    """Remove files, and count them with those that are gone already."""
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
    return Removed(len(gone), sum(file.n_bytes for file in gone), n_failed)


def _when(modified: float) -> str:
    # A hostile or broken file system may state years that no calendar has.
    try:
        return datetime.fromtimestamp(modified, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "unknown"


class CaseCache:
    """The part of a cache that holds one model's features under some settings."""

    def __init__(
        self,
        folder: str | os.PathLike[str] | FeatureCache | None,
        entry: BankEntry,
        settings: Mapping[str, Any],
    ) -> None:
        self.cache: FeatureCache | None = None
        self.entry = entry
        self.digest: str | None = None
        self.settings = dict(settings)
        self._fingerprints: dict[int, str] = {}
        self._stamps: dict[int, dict[str, tuple[int, int]]] = {}
        if folder is None:
            return
        self._weights = _stamp(entry)
        self.digest = entry_digest(entry)
        if self.digest is None:
            warnings.warn(
                f"Entry {entry.name!r} is not cached: {digest_problem(entry)}.",
                SkteWarning,
                stacklevel=2,
            )
            return
        self.cache = folder if isinstance(folder, FeatureCache) else FeatureCache(folder)

    def key(self, subject: Any, kind: str) -> str:
        """Return the key of a case's features, or of what fitting on it found."""
        if id(subject) not in self._fingerprints:  # content in memory is hashed once
            self._stamps[id(subject)] = case_stamp(subject)  # before it is read
            self._fingerprints[id(subject)] = case_fingerprint(subject)
        return disk.make_key(
            kind=kind, entry=self.digest, case=self._fingerprints[id(subject)], **self.settings
        )

    def load(self, subject: Any) -> CaseFeatures | None:
        """Return a case's features, if they were kept."""
        return None if self.cache is None else self.cache.load(self.key(subject, "features"))

    def store(self, subject: Any, case: CaseFeatures) -> None:
        """Keep a case's features, without the seconds: equal runs leave equal files."""
        if self.cache is not None:
            key = self.key(subject, "features")
            self._check_unchanged(subject)
            kept = {k: v for k, v in case.info.items() if not k.startswith("seconds")}
            self.cache.store(key, dataclasses.replace(case, info=kept))

    def load_facts(self, subject: Any) -> ModelFacts | None:
        """Return what fitting on this case found, if it was kept."""
        if self.cache is None:
            return None
        record = self.cache.load_record(self.key(subject, "fit"))
        if record is None or record.keys() != set(ModelFacts._fields):
            return None
        layers: list[dict[str, Any]] = [  # JSON has no tuples
            {k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}
            for one in record["layers"]
        ]
        return ModelFacts(**{**record, "layers": [LayerInfo(**one) for one in layers]})

    def store_facts(self, subject: Any, facts: ModelFacts) -> None:
        """Keep what fitting on a case found."""
        if self.cache is not None:
            key = self.key(subject, "fit")
            self._check_unchanged(subject)
            layers = [dataclasses.asdict(layer) for layer in facts.layers]
            self.cache.store_record(key, {**facts._asdict(), "layers": layers})

    def _check_unchanged(self, subject: Any) -> None:
        check_unchanged(subject, self._stamps[id(subject)])
        if _stamp(self.entry) != self._weights:
            raise BankError(
                f"Entry {self.entry.name!r}: {self.entry.weights} changed while it was "
                "in use. Run again when it is complete."
            )


def _stamp(entry: BankEntry) -> tuple[int, int] | None:
    if entry.weights is None:
        return None
    try:
        return file_stamp(entry.weights)
    except OSError:  # reported where they are read
        return None
