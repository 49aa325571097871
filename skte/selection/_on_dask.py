"""Models on the workers of a dask cluster.

joblib's own way of sending tasks to dask waits for ever once dask gives a task up, because
the workers that tried it died. So the models are sent here, where each one's end is seen.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from joblib.parallel import get_active_backend

from skte.exceptions import SkteError
from skte.selection._record import ModelRecord, score_entry

__all__ = ["dask_client", "run_on_dask"]


def dask_client() -> Any:
    """Client of the cluster that ``joblib.parallel_config("dask")`` chose, or None."""
    backend, _ = get_active_backend()
    return backend.client if type(backend).__name__ == "DaskDistributedBackend" else None


def run_on_dask(
    tasks: Sequence[tuple[Any, ...]], client: Any, *, raises: bool
) -> Generator[ModelRecord]:
    """Score models on a cluster, as many at a time as it has threads.

    A worker that dies costs nothing: its model starts again elsewhere. Where several died of
    a model, it is tried once more when no other is running, so that none is blamed
    for what its neighbour did.

    Parameters
    ----------
    tasks : sequence of tuple
        Arguments of `score_entry`, one tuple a model.
    client : distributed.Client
        Of the cluster.
    raises : bool
        Whether a failure is raised or recorded.

    Yields
    ------
    ModelRecord
        In order, as they become ready.

    Raises
    ------
    SkteError
        If workers die of a model and `raises`; it names the model.
    """
    from distributed import wait
    from distributed.scheduler import KilledWorker

    running: dict[Any, int] = {}  # no more than there are threads: a queue would share deaths
    ready: dict[int, ModelRecord] = {}
    waiting, suspects = list(range(len(tasks))), list[int]()
    n_yielded = 0
    try:
        while n_yielded < len(tasks):
            alone = not waiting and not running
            n_threads = 1 if alone else max(1, sum(client.ncores().values()))
            source = suspects if alone else waiting
            while source and len(running) < n_threads:
                number = source.pop(0)
                running[client.submit(score_entry, *tasks[number], pure=False)] = number
            for future in wait(list(running), return_when="FIRST_COMPLETED").done:
                number = running.pop(future)
                try:
                    ready[number] = future.result()
                except KilledWorker as error:
                    if alone:
                        ready[number] = _died(tasks[number], raises, error)
                    else:
                        suspects.append(number)
            while n_yielded in ready:
                yield ready.pop(n_yielded)
                n_yielded += 1
    finally:
        client.cancel(list(running))


def _died(task: tuple[Any, ...], raises: bool, error: Exception) -> ModelRecord:
    entry, _, estimators, *_ = task
    reason = "all workers that tried it died: the model crashed them, or memory ran out"
    if raises:
        raise SkteError(f"Model {entry.name!r}: {reason}.") from error
    return ModelRecord(entry.name, errors=dict.fromkeys(estimators, reason))
