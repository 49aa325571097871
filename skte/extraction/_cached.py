"""Which features of a cache belong to an extractor and a case."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

from skte.bank import BankEntry, LayerInfo, digest_problem, entry_digest
from skte.datasets import case_fingerprint
from skte.exceptions import SkteWarning
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
        self.digest: str | None = None
        self.settings = dict(settings)
        self._fingerprints: dict[int, str] = {}
        if folder is None:
            return
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
        """Keep a case's features, without the seconds: equal runs leave equal files."""
        if self.cache is not None:
            kept = {k: v for k, v in case.info.items() if not k.startswith("seconds")}
            self.cache.store(self.key(subject, "features"), dataclasses.replace(case, info=kept))

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
            layers = [[one.name, list(one.stride), one.channels] for one in facts.layers]
            record = {"layers": layers, "n_axes": facts.n_axes}
            self.cache.store_record(self.key(subject, "fit"), record)
