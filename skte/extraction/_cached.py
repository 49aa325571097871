"""Which features of a cache belong to an extractor and a case."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

from skte._digests import file_stamp
from skte.bank import BankEntry, LayerInfo, digest_problem, entry_digest
from skte.datasets import case_fingerprint, case_stamp, check_unchanged
from skte.exceptions import BankError, SkteWarning
from skte.extraction._cache import FeatureCache
from skte.extraction._cache_entries import make_key
from skte.extraction._model import ModelFacts
from skte.features import CaseFeatures

__all__ = ["CaseCache"]

# Counts up whenever the same settings give other voxels or features than before.
_VERSION = 1


class CaseCache:
    """The part of a cache that holds one model's features under some settings.

    Parameters
    ----------
    folder : path-like, FeatureCache or None
        The cache; None: nothing is kept or found.
    entry : BankEntry
        The model. One whose identity cannot be told from its content is not cached,
        with a warning that says why.
    settings : mapping
        All that features depend on besides the model and the case.
    """

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
        """Return the key of a case's features, or of what fitting on it told."""
        if id(subject) not in self._fingerprints:  # content in memory is hashed once
            self._stamps[id(subject)] = case_stamp(subject)  # before it is read
            self._fingerprints[id(subject)] = case_fingerprint(subject)
        return make_key(
            kind=kind,
            version=_VERSION,
            entry=self.digest,
            case=self._fingerprints[id(subject)],
            **self.settings,
        )

    def load(self, subject: Any) -> CaseFeatures | None:
        """Return a case's features, if they were kept."""
        return None if self.cache is None else self.cache.load(self.key(subject, "features"))

    def store(self, subject: Any, case: CaseFeatures) -> None:
        """Keep a case's features, without the seconds: equal runs leave equal files.

        Raises
        ------
        DatasetError, BankError
            If a file of the case, or that of the weights, was written to since its content
            was digested: features of one content must not be kept for another.
        """
        if self.cache is not None:
            key = self.key(subject, "features")
            self._check_unchanged(subject)
            kept = {k: v for k, v in case.info.items() if not k.startswith("seconds")}
            self.cache.store(key, dataclasses.replace(case, info=kept))

    def load_facts(self, subject: Any) -> ModelFacts | None:
        """Return what fitting on this case told, if it was kept."""
        if self.cache is None:
            return None
        record = self.cache.load_record(self.key(subject, "fit"))
        if record is None:
            return None
        layers = [LayerInfo(name, tuple(stride), n) for name, stride, n in record["layers"]]
        return ModelFacts(layers, int(record["n_axes"]))

    def store_facts(self, subject: Any, facts: ModelFacts) -> None:
        """Keep what fitting on a case told."""
        if self.cache is not None:
            key = self.key(subject, "fit")
            self._check_unchanged(subject)
            layers = [[one.name, list(one.stride), one.channels] for one in facts.layers]
            record = {"layers": layers, "n_axes": facts.n_axes}
            self.cache.store_record(key, record)

    def _check_unchanged(self, subject: Any) -> None:
        check_unchanged(subject, self._stamps[id(subject)])
        if _stamp(self.entry) != self._weights:
            raise BankError(
                f"Entry {self.entry.name!r}: {self.entry.weights} was written to while it was "
                "in use. Run again when it is complete."
            )


def _stamp(entry: BankEntry) -> tuple[int, int] | None:
    if entry.weights is None:
        return None
    try:
        return file_stamp(entry.weights)
    except OSError:  # told where they are read
        return None
