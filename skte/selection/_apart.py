"""Models in processes of their own, which may hang or die without the run.

A thread cannot be stopped from outside, a process can. Each one gets one model at a time,
so that its death says which model is to blame, and is used again if it lives.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from typing import Any

from joblib import effective_n_jobs
from joblib.externals.loky import ProcessPoolExecutor

from skte.exceptions import SkteError
from skte.selection._record import ModelRecord, score_entry

__all__ = ["run_apart"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_apart(
    tasks: Sequence[tuple[Any, ...]], *, n_jobs: int | None, timeout: float | None, raises: bool
) -> Generator[ModelRecord]:
    """Score models in processes that cost one model each if they hang or die.

    Parameters
    ----------
    tasks : sequence of tuple
        Arguments of `score_entry`, one tuple a model.
    n_jobs : int or None
        Processes at a time, as in joblib.
    timeout : float or None
        Seconds that a model may take.
    raises : bool
        Whether a failure is raised or recorded.

    Yields
    ------
    ModelRecord
        In order, as they become ready.

    Raises
    ------
    SkteError
        If a model hangs or dies and `raises`; it names the model.
    """
    n_workers = max(1, min(effective_n_jobs(n_jobs), len(tasks)))
    workers = [_Worker(_environment(n_workers)) for _ in range(n_workers)]
    free: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        free.put(worker)

    def work(task: tuple[Any, ...]) -> ModelRecord:
        worker = free.get()
        try:
            return worker.run(task, timeout, raises)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(n_workers, thread_name_prefix="skte-apart") as pool:
        try:
            yield from pool.map(work, tasks)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()


class _Worker:
    """A process for one model at a time; another one takes its place if it is lost."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._executor: Any = None
        self._future: Future[ModelRecord] | None = None
        self._closed = False
        self._starting = threading.Lock()

    def run(self, task: tuple[Any, ...], timeout: float | None, raises: bool) -> ModelRecord:
        entry, _, estimators, *_ = task
        limit = None if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        try:
            future = self._submit(task)
            if not wait([future], limit).done:
                self._end()
                reason = f"it took longer than timeout={timeout:g} seconds and was ended"
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
        if raises:
            raise SkteError(f"Model {entry.name!r}: {reason}.")
        return ModelRecord(entry.name, errors=dict.fromkeys(estimators, reason))

    def close(self) -> None:
        """End the process, whatever it does, for good."""
        with self._starting:
            self._closed = True
        self._end()

    def _submit(self, task: tuple[Any, ...]) -> Future[ModelRecord]:
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
            self._future = self._executor.submit(score_entry, *task)
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
