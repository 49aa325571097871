"""The work on one model, and the record of it: scores, errors and cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from skte._isolation import isolated
from skte.bank import BankEntry
from skte.estimators import TransferabilityEstimator
from skte.exceptions import SkteError
from skte.extraction import CaseStore, SegmentationFeatureExtractor
from skte.features import FeatureSet

__all__ = ["Job", "ModelRecord", "run_job"]


@dataclass
class ModelRecord:
    """Scores of one model, by estimator, with what they cost.

    Attributes
    ----------
    name : str
        The model.
    parts : dict of str to mapping
        ``part_`` of each estimator; those that failed are in `errors`.
    errors : dict of str to str
        Reason of each failure, by estimator.
    warned : list of (type, str)
        Category and text of each warning, without repetition.
    layers : tuple of str
        Layers read, coarse to fine.
    layer_scores : dict of str to ndarray
        Score of each layer, by estimator.
    pair_standard_errors : dict of str to float
        Of the scores, by estimator, from comparing some pairs of cases alone.
    resampled : dict of str to mapping
        What each estimator's ``resample_cases`` gave, where cases were resampled.
    features : FeatureSet or None
        Of all cases, where they are to be kept.
    n_windows : int
        Forward windows run.
    n_cached : int
        Cases whose features came from the cache.
    seconds_load, seconds_forward, seconds_tap, seconds_score : float
        Wall time for waiting for cases, forward passes, reading layers within them, and
        all estimators.
    left_threads : bool
        Whether the model's code still runs in its process.
    """

    name: str
    parts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    warned: list[tuple[type[Warning], str]] = field(default_factory=list)
    layers: tuple[str, ...] = ()
    layer_scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    pair_standard_errors: dict[str, float] = field(default_factory=dict)
    resampled: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    features: FeatureSet | None = None
    n_windows: int = 0
    n_cached: int = 0
    seconds_load: float = 0.0
    seconds_forward: float = 0.0
    seconds_tap: float = 0.0
    seconds_score: float = 0.0
    left_threads: bool = False

    @property
    def seconds(self) -> float:
        """Wall time in total."""
        return self.seconds_load + self.seconds_forward + self.seconds_score


@dataclass(frozen=True)
class Job:
    """What a worker needs to score one model: recipes, no weights."""

    entry: BankEntry
    extractor: SegmentationFeatureExtractor  # on the device of this model
    estimators: Mapping[str, TransferabilityEstimator]
    cases: Sequence[Any]
    store: CaseStore
    raises: bool  # else failures are recorded
    weights: NDArray[np.intp] | None = None  # (n_resamples, n_cases)
    known: FeatureSet | None = None  # of cases that come before these
    keep: bool = False  # whether the record holds the features

    def failed(self, reason: str) -> ModelRecord:
        """Record of a model without any score."""
        return ModelRecord(self.entry.name, errors=dict.fromkeys(self.estimators, reason))

    def lost(self, reason: str, cause: Exception | None = None) -> ModelRecord:
        """Raise or record that the process of this job was ended."""
        if self.raises:
            raise SkteError(f"Model {self.entry.name!r}: {reason}.") from cause
        return self.failed(reason)


def run_job(job: Job) -> ModelRecord:
    """Extract a model's features once and let every estimator score them.

    This runs in a worker process. Unless the job raises, a failure is recorded and costs only
    the scores that depend on it. Warnings are recorded too: a worker would lose them.
    """
    record = ModelRecord(job.entry.name)
    caught: list[warnings.WarningMessage] = []
    try:
        with isolated(job.entry.name) as isolation, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                extractor = clone(job.extractor).set_params(entry=job.entry)
                features = extractor.extract(job.cases, job.store)
            except Exception as error:
                if job.raises:
                    raise
                record.errors = dict.fromkeys(job.estimators, _reason(error))
            else:
                _score(record, job, features)
    except SkteError as error:
        if job.raises:
            raise
        record = job.failed(_reason(error))
    if isolation.has_meddled:  # a case that was prepared meanwhile may have changed
        job.store.forget()
    record.left_threads = isolation.has_left_threads
    texts = ((w.category, str(w.message)) for w in caught)
    record.warned = list(dict.fromkeys(texts))
    return record


def _score(record: ModelRecord, job: Job, features: FeatureSet) -> None:
    """Note the cost of the features, and what each estimator makes of them."""
    _note_cost(record, features)
    if job.known is not None:
        features = FeatureSet([*job.known, *features], name=features.name)
    if job.keep:
        record.features = features
    begun = time.perf_counter()
    for key, estimator in job.estimators.items():
        try:
            fitted = clone(estimator).fit(features)
            if job.weights is not None:
                record.resampled[key] = fitted.resample_cases(features, job.weights)
        except Exception as error:
            if job.raises:
                raise SkteError(f"Model {record.name!r}: {_reason(error)}") from error
            record.errors[key] = _reason(error)
            continue
        record.parts[key] = fitted.part_
        # An ensemble has neither: its members do.
        record.layer_scores[key] = getattr(fitted, "layer_scores_", np.array([]))
        if hasattr(fitted, "standard_error_"):
            record.pair_standard_errors[key] = fitted.standard_error_
    record.seconds_score = time.perf_counter() - begun


def _note_cost(record: ModelRecord, features: FeatureSet) -> None:
    record.layers = features.layer_names
    # What a cache gave back took no time, and ran no window.
    run = [case.info for case in features if "seconds_forward" in case.info]
    record.n_cached = len(features) - len(run)
    record.n_windows = sum(info["n_windows"] for info in run)
    record.seconds_load = sum(info["seconds_load"] for info in run)
    record.seconds_forward = sum(info["seconds_forward"] for info in run)
    record.seconds_tap = sum(info["seconds_tap"] for info in run)


def _reason(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
