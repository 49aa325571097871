"""Features kept on disk, so that no model is run twice on a case."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skte.exceptions import SkteError, SkteWarning
from skte.extraction._cache_entries import (
    MOST_RECORD,
    open_entry,
    open_record,
    seal_entry,
    seal_record,
)
from skte.extraction._cache_files import (
    ENTRY,
    RECORD,
    folder_problem,
    place,
    prepare_folder,
    sweep_folder,
)
from skte.extraction._cache_io import read_file, write_file
from skte.extraction._cache_upkeep import (
    Removed,
    clear_files,
    describe_files,
    prune_files,
    verify_files,
)
from skte.features import CaseFeatures

__all__ = ["FeatureCache"]

# One warning for each folder and kind of failure is enough for a process.
_WARNED: set[tuple[Path, str]] = set()


@dataclass(frozen=True, init=False)
class FeatureCache:
    """A folder of extracted features, one file for each model and case.

    It holds no state but the folder's path, so it travels to workers, and any number of
    processes may use one folder at once. It never fails a run: a damaged file counts as
    missing, and where nothing can be written, nothing is cached; one warning says so.

    Parameters
    ----------
    root : path-like
        The folder. It is made when something is stored first. An existing one must be
        empty or a cache already.

    Raises
    ------
    SkteError
        If the folder holds something else, or a cache of another format.

    See Also
    --------
    make_key : Keys of entries.

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
        problem = folder_problem(self.root)
        if problem:
            raise SkteError(f"Cache folder {self.root} {problem}.")

    def load(self, key: str) -> CaseFeatures | None:
        """Return the features of a key.

        Parameters
        ----------
        key : str
            Of `make_key`.

        Returns
        -------
        CaseFeatures or None
            Verified; None where there are none. A damaged file is removed with a
            `SkteWarning` that names it, and counts as none.
        """
        path = place(self.root, key, ENTRY)
        data = self._read(path)
        if data is None:
            return None
        try:
            return open_entry(key, data)
        except ValueError as error:
            self._discard(path, error)
            return None

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
        return self._write(place(self.root, key, ENTRY), seal_entry(key, case))

    def load_record(self, key: str) -> dict[str, Any] | None:
        """Return the record of a key.

        Parameters
        ----------
        key : str
            Of `make_key`.

        Returns
        -------
        dict or None
            As for `load`.
        """
        path = place(self.root, key, RECORD)
        try:
            data = self._read(path, most=MOST_RECORD)
            return None if data is None else open_record(key, data)
        except ValueError as error:
            self._discard(path, error)
            return None

    def store_record(self, key: str, record: Mapping[str, Any]) -> bool:
        """Keep a small record of a key, beside or without features.

        Parameters
        ----------
        key : str
            Of `make_key`.
        record : mapping
            What JSON can hold, text-keyed, in 1 MiB at most. Tuples come back as lists.

        Returns
        -------
        bool
            As for `store`.

        Raises
        ------
        TypeError
            If JSON cannot hold the record.
        ValueError
            If it is too large.
        """
        return self._write(place(self.root, key, RECORD), seal_record(key, record))

    def describe(self) -> dict[str, Any]:
        """Count what is in the folder.

        Returns
        -------
        dict
            ``folder``; ``n_entries``, ``n_records``, ``n_leftovers`` (unfinished files);
            ``n_bytes`` of all of them; ``oldest`` and ``newest``, the times of last use
            (ISO 8601, UTC; None in an empty cache).
        """
        return describe_files(self.root)

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
        return prune_files(self.root, max_bytes, max_age_days)

    def clear(self) -> Removed:
        """Remove all features and records, and nothing that is not of skte's making.

        Returns
        -------
        Removed
            Counts of files and bytes, and of files that could not be removed.
        """
        return clear_files(self.root)

    def verify(self) -> list[Path]:
        """Read every file and check it; nothing is removed.

        Returns
        -------
        list of Path
            The damaged ones. `load` would remove them and count them as missing.
        """
        return verify_files(self.root)

    def _read(self, path: Path, most: int | None = None) -> bytes | None:
        try:
            _refuse_link(path.parent)
            data = read_file(path, most)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn_once("read", error)
            return None
        with suppress(OSError):  # a shared cache may be read-only
            os.utime(path, follow_symlinks=False)
        return data

    def _write(self, path: Path, data: bytes) -> bool:
        try:
            prepare_folder(self.root)
            _refuse_link(path.parent)
            sweep_folder(path.parent)
            write_file(path, data)
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
            "features are extracted anew.",
            SkteWarning,
            stacklevel=4,
        )

    def _warn_once(self, verb: str, error: OSError) -> None:
        if (self.root, verb) in _WARNED:
            return
        _WARNED.add((self.root, verb))
        warnings.warn(
            f"Features in the cache folder {self.root} could not be {verb}: "
            f"{error.strerror or error}. The run goes on without them. Free some space, get "
            "the permission, or name another folder. Further failures are not reported.",
            SkteWarning,
            stacklevel=4,
        )


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise OSError(f"{folder} is a link, and none is followed within a cache")
