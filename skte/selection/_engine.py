"""The engine: runs models over cases and yields a record of each."""

from __future__ import annotations

import logging
import os
import shlex
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning

from skte._isolation import safe_starts
from skte._text import clean_text, say
from skte.bank import BankEntry, entry_digest
from skte.datasets import (
    CaseList,
    DatasetLike,
    case_stamp,
    check_dataset,
    check_unchanged,
    load_dataset,
    read_case,
)
from skte.estimators import TransferabilityEstimator, recommended_estimators
from skte.exceptions import DatasetError, SkteError
from skte.extraction import (
    CaseStore,
    FeatureCache,
    SegmentationFeatureExtractor,
    draw_seed,
    resolve_device,
    tell_progress,
)
from skte.features import FeatureSet
from skte.selection._confidence import combined_scores
from skte.selection._workers import (
    Job,
    ModelRecord,
    dask_client,
    run_apart,
    run_job,
    run_on_dask,
)

# Preprocessed images that are kept from one model to the next.
_KEPT_BYTES = 2**30
_log = logging.getLogger("skte")

# Sets of layers that end at the head.
_BEFORE_HEAD = ("auto", "all", "decoder", "bottleneck+decoder")


@dataclass(frozen=True)
class Engine:
    """Runs models over cases, several at a time where asked for, and scores them.

    Selectors, races and learning curves make one with `from_settings`, which checks the
    user's settings before any model runs.
    """

    estimators: Mapping[str, TransferabilityEstimator]
    extractor: SegmentationFeatureExtractor  # without an entry; every model gets a copy
    n_jobs: int | None = None
    timeout: float | None = None
    error_score: str | float = "raise"
    verbose: int = 0

    @classmethod
    def from_settings(
        cls,
        estimator: TransferabilityEstimator | Mapping[str, TransferabilityEstimator] | None,
        *,
        extractor: SegmentationFeatureExtractor | None = None,
        device: str | torch.device | None = None,
        cache: str | os.PathLike[str] | FeatureCache | None = None,
        random_state: int | np.random.RandomState | None = 0,
        n_jobs: int | None = None,
        timeout: float | None = None,
        error_score: str | float = "raise",
        verbose: int = 0,
    ) -> Self:
        """Check the settings of a selector and make an engine of them."""
        estimators = _checked_estimators(estimator)
        template = extractor_for(estimators) if extractor is None else clone(extractor)
        _check_samples(template, estimators)
        if device is not None:
            template.set_params(device=device)
        resolve_device(template.device)
        cache = template.cache if cache is None else cache
        if cache is not None and not isinstance(cache, FeatureCache):
            cache = FeatureCache(cache)
        engine = cls(estimators, template, n_jobs, timeout, error_score, verbose)
        return engine.with_extraction(cache=cache, random_state=draw_seed(random_state))

    @staticmethod
    def load_cases(dataset: DatasetLike, n_needed: int, why: str) -> CaseList:
        """Load a dataset and refuse one that would spoil every model's score.

        `why` is the rest of a sentence: what needs `n_needed` cases, and what to do.
        """
        cases = load_dataset(dataset)
        problems = check_dataset(cases)
        if len(cases) < n_needed:
            there = "is 1 case" if len(cases) == 1 else f"are {len(cases)} cases"
            problems.append(f"There {there}: {why}")
        if problems:
            lines = [f"- {problem}" for problem in problems]
            lines += _way_out(cases, problems, n_needed)
            raise DatasetError("\n".join(["The dataset cannot be used:", *lines]))
        return cases

    @property
    def random_state(self) -> int:
        """Seed of the sampled voxels."""
        return int(self.extractor.random_state)  # type: ignore[arg-type]

    def with_extraction(self, **params: Any) -> Self:
        """Return the same engine with other parameters of its extractor."""
        template = clone(self.extractor).set_params(**params)
        # Behind a decoder that is read, the head costs little; behind other layers, a pass that
        # could end there. With a cache, a later run may need it.
        needed = any(estimator.tags.source_head for estimator in self.estimators.values())
        if (
            not needed
            and template.cache is None
            and not (isinstance(template.layers, str) and template.layers in _BEFORE_HEAD)
        ):
            template.set_params(source_head=False)
        return replace(self, extractor=template)

    def run(
        self,
        entries: Sequence[BankEntry],
        cases: Sequence[Any],
        *,
        weights: NDArray[np.intp] | None = None,
        known: Mapping[str, FeatureSet] | None = None,
        is_reference: bool = False,
    ) -> Generator[ModelRecord]:
        """Extract, score and announce every model, in order, as they become ready.

        Close the generator if it is not used up: it owns processes and threads. `weights`
        (n_resamples, n_cases) draw cases in resamples that are scored as well. `known` features
        come before those of `cases`, by model; where it is given, records keep all features. A
        reference is no candidate: its failure ends no run, and is not issued. Raises
        `DatasetError` where a case is at fault, and `SkteError` where a model fails and
        `error_score` is "raise".
        """
        client = dask_client()
        if client is not None and self.timeout is not None:
            raise SkteError(
                "timeout ends processes of this machine, and the models run on a dask cluster: "
                "remove it, or leave joblib.parallel_config('dask')."
            )
        stamps = [case_stamp(case) for case in cases]
        # Which devices a cluster's workers have is not known here.
        n_local = effective_n_jobs(self.n_jobs) if client is None else None
        engine = replace(self, error_score=np.nan) if is_reference else self
        same = _same_networks(entries)
        distinct = [entry for i, entry in enumerate(entries) if same[i] == i]
        jobs = engine._jobs(distinct, cases, n_local, weights, known)
        # joblib and dask start processes at any time, also to replace those that died.
        with safe_starts.held(), _started(jobs, client, self.n_jobs, self.timeout) as records:
            done: list[ModelRecord] = []
            for first in records:
                n_done = len(done)
                done.append(first)
                # Entries after it that are networks known by now.
                while len(done) < len(same) and (known_at := same[len(done)]) < len(done):
                    done.append(done[known_at].under(entries[len(done)].name, len(cases)))
                for position, record in enumerate(done[n_done:], start=n_done + 1):
                    _raise_fault_of_cases(record, cases)
                    for case, stamp in zip(cases, stamps, strict=True):
                        check_unchanged(case, stamp)
                    if not is_reference:
                        self._warn(record)
                    tell_progress(record.name, len(cases), len(cases))  # it may have run elsewhere
                    place = "reference" if is_reference else f"{position}/{len(entries)}"
                    self._announce(record, place)
                    yield record

    def resampled_scores(self, records: Sequence[ModelRecord]) -> NDArray[np.float64]:
        """Scores of the (first) estimator for each resample: (n_models, n_resamples)."""
        key, estimator = next(iter(self.estimators.items()))
        return combined_scores(estimator, [record.resampled[key] for record in records])

    def _jobs(
        self,
        entries: Sequence[BankEntry],
        cases: Sequence[Any],
        n_local: int | None,
        weights: NDArray[np.intp] | None,
        known: Mapping[str, FeatureSet] | None,
    ) -> list[Job]:
        store = CaseStore(_KEPT_BYTES if len(entries) > 1 else 0)
        return [
            Job(
                entry,
                clone(self.extractor).set_params(device=device),
                self.estimators,
                cases,
                store,
                raises=self.error_score == "raise",
                weights=weights,
                known=None if known is None else known.get(entry.name),
                keep=known is not None,
            )
            for entry, device in zip(
                entries, _shared_devices(self.extractor.device, len(entries), n_local), strict=True
            )
        ]

    def _warn(self, record: ModelRecord) -> None:
        """Issue a model's warnings and failures under its name."""
        for category, text in record.warned:
            warnings.warn(f"Model {record.name!r}: {clean_text(text)}", category, stacklevel=2)
        failed: dict[str, list[str]] = {}
        for key, reason in record.errors.items():
            failed.setdefault(reason, []).append(key)
        for reason, keys in failed.items():
            # What every estimator fails on is not about one of them.
            for_what = "" if len(keys) == len(self.estimators) else f" ({', '.join(keys)})"
            warnings.warn(
                f"Model {record.name!r}{for_what} failed and scores {self.error_score}: "
                f"{clean_text(reason)}",
                FitFailedWarning,
                stacklevel=2,
            )

    def _announce(self, record: ModelRecord, place: str) -> None:
        """Log a model's scores."""
        shown = [
            f"{key} {part['score']:.4g}".strip()
            for key, part in record.parts.items()
            if "score" in part  # other scores take the whole bank
        ]
        what = ", ".join(shown) or ("failed" if record.errors else "done")
        line = clean_text(f"[{place}] {record.name}: {what} ({record.seconds:.1f} s)")
        _log.info(line)
        if self.verbose:
            say(line, flush=True)


def _started(
    jobs: list[Job], client: Any, n_jobs: int | None, timeout: float | None
) -> AbstractContextManager[Iterable[ModelRecord]]:
    """Start jobs where they belong; leaving the context ends what still runs."""
    if client is not None:
        return closing(run_on_dask(jobs, client))
    n_workers = max(1, min(effective_n_jobs(n_jobs), len(jobs)))
    if n_workers == 1 and timeout is None:  # here and now
        return nullcontext(map(run_job, jobs))
    return closing(run_apart(jobs, n_workers, timeout))


def check_not_all_failed(records: Sequence[ModelRecord], key: str) -> None:
    """Raise the reasons where no model of a bank has a score by the estimator `key`."""
    if all(key in record.errors for record in records):
        listed = "\n".join(
            f"- {record.name}: {clean_text(record.errors[key])}" for record in records
        )
        raise SkteError(f"Every model of the bank failed:\n{listed}")


def extractor_for(
    estimators: Mapping[str, TransferabilityEstimator], **settings: Any
) -> SegmentationFeatureExtractor:
    """Make the extractor that estimators get where the user gives none.

    Parameters
    ----------
    estimators : mapping of str to TransferabilityEstimator
        One that joins layers (`CrossCaseProbe`) gets all stages of encoder and decoder, at all
        sampled voxels each.
    **settings
        Parameters of `SegmentationFeatureExtractor` that are fixed.

    Returns
    -------
    SegmentationFeatureExtractor
        Not fitted.

    Examples
    --------
    >>> from skte import CCFV, CrossCaseProbe
    >>> from skte.selection import extractor_for
    >>> extractor_for({"ccfv": CCFV()}).layers, extractor_for({"probe": CrossCaseProbe()}).layers
    ('auto', 'all')
    """
    tags = [estimator.tags for estimator in estimators.values()]
    if any(one.joined_layers for one in tags):
        settings = {"layers": "all", "taper": False, **settings}
    if not any(one.case_sample for one in tags):
        settings = {"samples": "roi", **settings}
    return SegmentationFeatureExtractor(**settings)


def _checked_estimators(
    estimator: TransferabilityEstimator | Mapping[str, TransferabilityEstimator] | None,
) -> dict[str, TransferabilityEstimator]:
    """Estimators by name; a single one is named ""."""
    if estimator is None:
        return recommended_estimators()
    if not isinstance(estimator, Mapping):
        return {"": estimator}
    wrong = [
        key
        for key, value in estimator.items()
        if not (key and isinstance(key, str) and isinstance(value, TransferabilityEstimator))
    ]
    if wrong or not estimator:
        raise TypeError(
            "estimator as a mapping must be non-empty and map names to "
            f"TransferabilityEstimator instances; wrong: {wrong}."
        )
    return dict(estimator)


def _check_samples(
    template: SegmentationFeatureExtractor, estimators: Mapping[str, TransferabilityEstimator]
) -> None:
    """Refuse before the work what would make every model fail after it."""
    needing = [one for one in estimators.values() if one.tags.case_sample]
    if template.samples != "all" and needing:
        names = ", ".join(type(one).__name__ for one in needing)
        raise ValueError(
            f"The extractor has samples={template.samples!r}, but {names} looks at whole cases. "
            "Use samples='all', or estimators that do without: CCFV(feature_variety=False), "
            "LogME, GBC."
        )


def _shared_devices(
    device: str | torch.device | None, n_entries: int, n_jobs: int | None
) -> list[str | torch.device | None]:
    """Device of each entry: several GPUs take turns where models run in parallel."""
    n_gpus = torch.cuda.device_count()
    if device is not None or n_gpus < 2 or n_jobs in (None, 1):
        return [device] * n_entries
    return [f"cuda:{i % n_gpus}" for i in range(n_entries)]


def _same_networks(entries: Sequence[BankEntry]) -> list[int]:
    """For each entry, the position of the first that has the same features, often its own."""
    first: dict[Any, int] = {}
    found = []
    for i, entry in enumerate(entries):
        digest = None
        # Without weights, the name decides these. Where there is no digest, loading says why.
        if entry.weights is not None:
            with suppress(Exception):
                digest = entry_digest(entry)
        # Trust and the ending of a file decide whether it is loaded at all.
        loaded = digest, entry.trusted_packages, Path(entry.weights or "").suffix
        found.append(i if digest is None else first.setdefault(loaded, i))
    return found


def _raise_fault_of_cases(record: ModelRecord, cases: Sequence[Any]) -> None:
    """Raise the fault of a case that failures name; otherwise every model would be blamed."""
    for case in cases:
        if any(repr(case["case_id"]) in reason for reason in record.errors.values()):
            try:
                read_case(case)
            except DatasetError as error:
                lines = [str(error), *_way_out(cases, list(map(str, error.problems)))]
                raise DatasetError("\n".join(lines), problems=error.problems) from error


def _way_out(cases: Sequence[Any], problems: Sequence[str], n_needed: int = 2) -> list[str]:
    """Say how to leave cases out, where they alone are at fault and enough others are left."""
    names = [str(case["case_id"]) for case in cases]
    found = [next((n for n in names if p.startswith(f"Case {n!r}: ")), None) for p in problems]
    bad = [name for name in dict.fromkeys(found) if name is not None]
    if not bad or None in found or len(cases) - len(bad) < n_needed:
        return []
    return [
        f"To rank on the other cases: load_dataset(..., exclude={bad}); in the shell --exclude "
        f"{shlex.join(bad)}, or --skip-unusable for all cases that inspect finds unusable."
    ]
