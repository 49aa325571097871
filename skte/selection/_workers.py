"""What is to be done for one model, and where it runs: here, in other processes, on dask."""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from joblib.externals.loky import ProcessPoolExecutor
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from sklearn.base import clone

from skte._isolation import isolated
from skte.bank import BankEntry
from skte.estimators import TransferabilityEstimator
from skte.exceptions import CollapsedFeaturesWarning, SaturatedScoreWarning, SkteError, SkteWarning
from skte.extraction import CaseStore, SegmentationFeatureExtractor, resolve_device
from skte.features import FeatureSet

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_apart(jobs: Sequence[Job], n_workers: int, timeout: float | None) -> Generator[ModelRecord]:
    """Run each job alone in a process, which may hang or die without the others."""
    workers = [_Worker(_environment(n_workers), timeout) for _ in range(n_workers)]
    free: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(job: Job) -> ModelRecord:
        worker = free.get()
        try:
            return worker.run(job)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(n_workers, thread_name_prefix="skte-apart") as pool:
        try:
            yield from pool.map(work, jobs)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()


class _Worker:
    """A process that runs one job at a time, and is replaced when it is lost."""

    def __init__(self, environment: dict[str, str], timeout: float | None) -> None:
        self.environment = environment
        self.timeout = timeout
        self._executor: Any = None
        self._future: Future[ModelRecord] | None = None
        self._closed = False
        self._starting = threading.Lock()

    def run(self, job: Job) -> ModelRecord:
        limit = None if self.timeout is None else min(self.timeout, threading.TIMEOUT_MAX)
        try:
            future = self._submit(job)
            if not wait([future], limit).done:
                self._end()
                reason = f"it took longer than timeout={self.timeout:g} seconds and was ended"
            else:
                record: ModelRecord = future.result()
                if record.left_threads:  # which may do anything to the next model
                    self._end()
                return record
        except BrokenProcessPool as error:
            self._end()
            codes = re.search(r"\{(.*?)\}", str(error))
            how = f" ({codes[1]})" if codes else ""
            reason = f"its process died{how}: the model crashed it, or memory ran out"
        return job.lost(reason)

    def close(self) -> None:
        """End the process, whatever it does, for good."""
        with self._starting:
            self._closed = True
        self._end()

    def _submit(self, job: Job) -> Future[ModelRecord]:
        with self._starting:
            if self._closed:
                raise SkteError("The run was ended.")
            if self._executor is None:
                self._executor = ProcessPoolExecutor(
                    max_workers=1,
                    env=self.environment,
                    initializer=_die_with_parent,
                    initargs=(os.getpid(),),
                )
                # Starting takes seconds that are not the model's.
                self._executor.submit(_imported).result()
            self._future = self._executor.submit(run_job, job)
            return self._future

    def _end(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            for _ in range(100):  # loky's own thread fails if what it ends was not begun yet
                if self._future is None or self._future.running() or self._future.done():
                    break
                time.sleep(0.01)
            executor.shutdown(wait=True, kill_workers=True)


def _imported() -> None:
    """Do nothing; to find this function, a process imports all that models need."""


def _die_with_parent(parent: int) -> None:
    """End this process when the run that it works for was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _environment(n_workers: int) -> dict[str, str]:
    """Search no current folder, and share the cores as joblib does, unless the user has said."""
    share = str(max(1, effective_n_jobs(-1) // n_workers))
    threads = {} if n_workers == 1 else {k: share for k in _THREADS if k not in os.environ}
    return {"PYTHONSAFEPATH": "1", **threads}


def dask_client() -> Any:
    """Client of the cluster that ``joblib.parallel_config("dask")`` chose, or None."""
    backend, _ = get_active_backend()
    return backend.client if type(backend).__name__ == "DaskDistributedBackend" else None


def run_on_dask(jobs: Sequence[Job], client: Any) -> Generator[ModelRecord]:
    """Run as many jobs at a time as a cluster has threads.

    joblib's dask backend waits for ever once dask gives a task up because its workers died.
    Here, a job whose workers died starts again elsewhere. After several deaths it runs once
    more when no other job runs, so that no model is blamed for what its neighbour did.
    """
    import distributed
    from distributed.scheduler import KilledWorker

    running: dict[Any, int] = {}  # at most one per thread: jobs in a queue would share deaths
    ready: dict[int, ModelRecord] = {}
    waiting, suspects = list(range(len(jobs))), list[int]()
    n_yielded = 0
    try:
        while n_yielded < len(jobs):
            alone = not waiting and not running
            n_threads = 1 if alone else max(1, sum(client.ncores().values()))
            source = suspects if alone else waiting
            while source and len(running) < n_threads:
                number = source.pop(0)
                running[client.submit(run_job, jobs[number], pure=False)] = number
            for future in distributed.wait(list(running), return_when="FIRST_COMPLETED").done:
                number = running.pop(future)
                try:
                    ready[number] = future.result()
                except KilledWorker as error:
                    if alone:
                        why = "the model crashed them, or memory ran out"
                        reason = f"all workers that tried it died: {why}"
                        ready[number] = jobs[number].lost(reason, error)
                    else:
                        suspects.append(number)
            while n_yielded in ready:
                yield ready.pop(n_yielded)
                n_yielded += 1
    finally:
        client.cancel(list(running))


#: What a record counts over all cases.
COSTS = ("n_windows", "seconds_load", "seconds_forward", "seconds_tap", "seconds_score")


@dataclass
class ModelRecord:
    """Scores of one model, by estimator, with what they cost."""

    name: str
    parts: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # of those that did not fail
    errors: dict[str, str] = field(default_factory=dict)  # by estimator, why it failed
    warned: list[tuple[type[Warning], str]] = field(default_factory=list)  # without repetition
    layers: tuple[str, ...] = ()  # read, coarse to fine
    layers_certainty: str = ""  # of the least certain
    layer_scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    resampled: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    # Estimators that warned of every layer that it collapsed or that its score is at an end.
    void: list[str] = field(default_factory=list)
    n_parameters: int = 0  # this and the next two are 0 where it failed before they were known
    width: int = 0  # channels of the finest layer that is read
    n_axes: int = 0
    zero_shot: float = np.nan  # mean Dice of the source head; NaN where it has other classes
    window: tuple[int, ...] | None = None  # None where it is fitted to each volume
    device: str = ""
    features: FeatureSet | None = None  # where they are to be kept
    n_windows: int = 0
    n_cached: int = 0  # cases from the cache, or from the same network under another name
    seconds_load: float = 0.0  # waiting for cases
    seconds_forward: float = 0.0
    seconds_tap: float = 0.0  # within those
    seconds_score: float = 0.0
    left_threads: bool = False  # its code still runs in its process
    is_copy: bool = False

    @property
    def seconds(self) -> float:
        """Wall time in total."""
        return self.seconds_load + self.seconds_forward + self.seconds_score

    def under(self, name: str, n_cases: int) -> ModelRecord:
        """Return the record of the same network under another name, which cost nothing."""
        features = self.features and FeatureSet(self.features, name=name)
        told = f"this is the same network as {self.name!r}, with the same weights: it was run once"
        old, new = (f"Entry {one!r}: " for one in (self.name, name))
        warned = [(kind, text.replace(old, new)) for kind, text in self.warned]
        errors = {key: text.replace(old, new) for key, text in self.errors.items()}
        nothing: dict[str, Any] = dict.fromkeys(COSTS, 0)
        return replace(
            self, name=name, features=features, warned=[*warned, (SkteWarning, told)],
            errors=errors, is_copy=True, n_cached=n_cases, **nothing,
        )  # fmt: skip


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
        """Return the record of a model without any score."""
        return ModelRecord(self.entry.name, errors=dict.fromkeys(self.estimators, reason))

    def lost(self, reason: str, cause: Exception | None = None) -> ModelRecord:
        """Raise or record that the process of this job was ended."""
        if self.raises:
            raise SkteError(f"Model {self.entry.name!r}: {reason}.") from cause
        return self.failed(reason)


def run_job(job: Job) -> ModelRecord:
    """Extract a model's features once and let every estimator score them.

    A failure is recorded, unless the job raises, and so are warnings: a worker would lose them.
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
                _note(record, extractor, features)
                _score(record, job, features, caught)
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


def _score(
    record: ModelRecord, job: Job, features: FeatureSet, caught: Sequence[warnings.WarningMessage]
) -> None:
    """Note what each estimator makes of the features and warns of."""
    if job.known is not None:
        features = FeatureSet([*job.known, *features], name=features.name)
    if job.keep:
        record.features = features
    record.zero_shot = _zero_shot_dice(features, job.entry.activation)
    begun = time.perf_counter()
    for key, estimator in job.estimators.items():
        n_before = len(caught)
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
        warned = {
            str(w.message).partition(": ")[0]
            for w in caught[n_before:]
            if issubclass(w.category, (CollapsedFeaturesWarning, SaturatedScoreWarning))
        }
        if 0 < len(record.layer_scores[key]) <= len(warned):
            record.void.append(key)
    record.seconds_score = time.perf_counter() - begun


def _note(
    record: ModelRecord, extractor: SegmentationFeatureExtractor, features: FeatureSet
) -> None:
    """Note what is known of the model, and the cost of its features."""
    record.n_parameters, record.n_axes = extractor.n_parameters_, extractor.n_axes_
    record.width = extractor.layers_[-1].channels
    record.layers_certainty = extractor.layers_certainty_
    record.window = extractor.window_size_
    record.device = str(resolve_device(extractor.device))
    record.layers = features.layer_names
    # What a cache gave back took no time, and ran no window.
    run = [case.info for case in features if "seconds_forward" in case.info]
    record.n_cached = len(features) - len(run)
    for cost in COSTS[:-1]:  # scoring is timed where it is done
        setattr(record, cost, sum(info[cost] for info in run))


def _zero_shot_dice(features: FeatureSet, activation: str | None) -> float:
    """Estimate the source head's Dice over all cases; a sampled voxel stands for many."""
    heads = [case.posterior.X for case in features if case.posterior is not None]
    widths = {head.shape[1] for head in heads}
    if len(heads) < len(features) or len(widths) != 1:
        return np.nan
    n_classes = widths.pop()
    table = np.zeros((n_classes, n_classes))  # voxels by label and prediction
    for case, head in zip(features, heads, strict=True):
        for label, size in case.info.get("class_voxels", {}).items():
            if int(label) >= n_classes:
                return np.nan
            rows = case.posterior.y == int(label)  # type: ignore[union-attr]
            predicted = np.bincount(head[rows].argmax(axis=1), minlength=n_classes)
            table[int(label)] += size * predicted / max(1, rows.sum())
    actual, found = table.sum(axis=1), table.sum(axis=0)
    overlapping = activation == "sigmoid" and n_classes > 2  # regions, which may hold each other
    if n_classes < 2 or overlapping or not actual.all():
        return np.nan
    return float((2 * table.diagonal() / (actual + found))[1:].mean())


def _reason(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
