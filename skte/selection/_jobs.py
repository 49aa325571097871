"""Running the models of a bank, several at a time where asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from sklearn.base import clone

from skte._process import safe_starts
from skte.bank import BankEntry
from skte.datasets import case_stamp, check_unchanged, read_case
from skte.estimators import TransferabilityEstimator
from skte.exceptions import SkteError
from skte.extraction import (
    CaseStore,
    FeatureCache,
    SegmentationFeatureExtractor,
    resolve_device,
)
from skte.features import FeatureSet
from skte.selection._apart import run_apart
from skte.selection._on_dask import dask_client, run_on_dask
from skte.selection._record import ModelRecord, score_entry

__all__ = ["common_cells", "make_template", "run_models", "share_devices"]

# Preprocessed images that are kept from one model to the next.
_KEPT_BYTES = 2**30


def make_template(
    extractor: SegmentationFeatureExtractor | None,
    estimators: Mapping[str, TransferabilityEstimator],
    *,
    seed: int,
    cell_size: tuple[int, ...] | None,
    device: str | torch.device | None,
    cache: str | os.PathLike[str] | FeatureCache | None,
) -> SegmentationFeatureExtractor:
    """Return the extractor that every model gets a copy of.

    Parameters
    ----------
    extractor : SegmentationFeatureExtractor or None
        The user's; None for one with default settings.
    estimators : mapping of str to TransferabilityEstimator
        What its features are for.
    seed : int
        Of the voxels.
    cell_size : tuple of int or None
        Of `common_cells`; None leaves the extractor's own.
    device, cache
        Of the selector; None leaves the extractor's own.

    Returns
    -------
    SegmentationFeatureExtractor
        Without an entry.

    Raises
    ------
    ValueError
        If an estimator looks at voxels that the extractor is told to leave out.
    SkteError
        If the device or the cache cannot be used: told once, not once a model.
    """
    template = SegmentationFeatureExtractor() if extractor is None else clone(extractor)
    _check_samples(template, estimators)
    template.set_params(random_state=seed)
    if cell_size is not None:
        template.set_params(cell_size=cell_size)
    if device is not None:
        template.set_params(device=device)
    resolve_device(template.device)
    if cache is not None:
        template.set_params(cache=cache)
    if template.cache is not None:  # refused here, not once a model
        kept = template.cache
        template.set_params(cache=kept if isinstance(kept, FeatureCache) else FeatureCache(kept))
    # With a cache, a later run may need the head.
    if template.cache is None and not any(e.needs_source_head for e in estimators.values()):
        template.set_params(source_head=False)
    return template


def _check_samples(
    template: SegmentationFeatureExtractor, estimators: Mapping[str, TransferabilityEstimator]
) -> None:
    """Refuse before the work what every model would fail of after it."""
    needing = [one for one in estimators.values() if one.needs_case_sample]
    if template.samples == "foreground" and needing:
        names = ", ".join(type(one).__name__ for one in needing)
        raise ValueError(
            f"The extractor has samples='foreground', but {names} looks at whole cases. Use "
            "samples='all', or estimators that do without: CCFV(feature_variety=False), "
            "LogME, GBC."
        )


def common_cells(
    extractor: SegmentationFeatureExtractor | None, entries: Sequence[BankEntry]
) -> tuple[int, ...] | None:
    """Cells for ``max_windows`` that no model's window is smaller than.

    All models must see the same voxels, so the cells cannot follow each one's window.

    Parameters
    ----------
    extractor : SegmentationFeatureExtractor or None
        The user's settings.
    entries : sequence of BankEntry
        The models.

    Returns
    -------
    tuple of int or None
        None where the user says, or no entry does, or nothing is bounded.
    """
    if extractor is None or extractor.max_windows is None:
        return None
    if extractor.cell_size is not None or extractor.window_size is not None:
        return None
    threes = []
    for size in (entry.window_size for entry in entries if entry.window_size is not None):
        edges = (size,) * 3 if isinstance(size, int) else tuple(size)
        threes.append((*edges, 1) if len(edges) == 2 else edges)
    if not threes:
        return None
    x, y, z = (min(int(edge[axis]) for edge in threes) for axis in range(3))
    return x, y, z


def run_models(
    entries: Sequence[BankEntry],
    template: SegmentationFeatureExtractor,
    estimators: Mapping[str, TransferabilityEstimator],
    subjects: Sequence[Any],
    *,
    n_jobs: int | None,
    raises: bool,
    weights: NDArray[np.intp] | None = None,
    known: Mapping[str, FeatureSet] | None = None,
    timeout: float | None = None,
) -> Generator[ModelRecord]:
    """Extract and score every model.

    A process of joblib that dies takes all others with it, and none tells which model is to
    blame: what is left then runs apart, where one that dies costs itself alone.

    Parameters
    ----------
    entries : sequence of BankEntry
        The models.
    template : SegmentationFeatureExtractor
        Of `make_template`.
    estimators : mapping of str to TransferabilityEstimator
        All score the same features.
    subjects : sequence of Subject
        The cases.
    n_jobs : int or None
        Processes, as in joblib.
    raises : bool
        Whether a failure is raised or recorded.
    weights : ndarray of shape (n_resamples, n_cases), optional
        Resamples of the cases to score as well.
    known : mapping of str to FeatureSet, optional
        Features of earlier cases, by model, to be put before those of `subjects`. Where it
        is given, also empty, records keep all features.
    timeout : float, optional
        Seconds that a model may take. It then runs in a process of its own, which is ended.

    Yields
    ------
    ModelRecord
        In the order of `entries`, as they become ready.

    Raises
    ------
    DatasetError
        If a failure is the fault of a case, or a case's files are written to meanwhile.
    SkteError
        If there is a timeout and ``joblib.parallel_config("dask")``.
    """
    client = dask_client()
    if client is not None and timeout is not None:
        raise SkteError(
            "timeout ends processes of this machine, and the models run on a dask cluster: leave "
            "it out, or leave joblib.parallel_config('dask')."
        )
    stamps = [case_stamp(subject) for subject in subjects]
    store = CaseStore(_KEPT_BYTES if len(entries) > 1 else 0)
    # Which devices a cluster's workers have is not seen from here.
    n_local = n_jobs if client is None else None
    devices = share_devices(template.device, len(entries), n_local)
    tasks = [
        (
            entry,
            clone(template).set_params(device=device),
            estimators,
            subjects,
            store,
            raises,
            weights,
            None if known is None else known.get(entry.name),
            known is not None,
        )
        for entry, device in zip(entries, devices, strict=True)
    ]
    if client is not None:
        running = run_on_dask(tasks, client, raises=raises)
    elif timeout is None:
        running = _run_together(tasks, n_jobs, raises)
    else:
        running = run_apart(tasks, n_jobs=n_jobs, timeout=timeout, raises=raises)
    # joblib and dask start processes at any time, also in place of those that died.
    with safe_starts.held(), closing(running) as records:
        for record in records:
            _raise_fault_of_cases(record, subjects)
            for subject, stamp in zip(subjects, stamps, strict=True):
                check_unchanged(subject, stamp)
            yield record


def _run_together(
    tasks: Sequence[tuple[Any, ...]], n_jobs: int | None, raises: bool
) -> Generator[ModelRecord]:
    n_done = 0
    if n_jobs is not None:  # joblib would start processes that find nothing to do
        n_jobs = max(1, min(effective_n_jobs(n_jobs), len(tasks)))
    records = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(score_entry)(*task) for task in tasks
    )
    try:
        for record in records:
            n_done += 1
            yield record
    except BrokenProcessPool:
        yield from run_apart(tasks[n_done:], n_jobs=n_jobs, timeout=None, raises=raises)
    finally:
        with warnings.catch_warnings():
            # After a failure there are tasks left, and that they are cancelled is no news.
            warnings.filterwarnings("ignore", message=r"\d+ tasks which were still")
            records.close()


def share_devices(
    device: str | torch.device | None, n_entries: int, n_jobs: int | None
) -> list[str | torch.device | None]:
    """Device of each entry: several GPUs take turns where models run in parallel."""
    n_gpus = torch.cuda.device_count()
    if device is not None or n_gpus < 2 or n_jobs in (None, 1):
        return [device] * n_entries
    return [f"cuda:{i % n_gpus}" for i in range(n_entries)]


def _raise_fault_of_cases(record: ModelRecord, subjects: Sequence[Any]) -> None:
    """Raise what is wrong with a case that failures name: it is no model's fault.

    Otherwise it would be told once a model, and end as "every model failed".
    """
    for subject in subjects:
        if any(repr(subject["case_id"]) in reason for reason in record.errors.values()):
            read_case(subject)
