"""Runs the jobs: several at a time, each once, on with what is there after a kill."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks._provenance import write_json
from benchmarks.evidence._data import prepare_task
from benchmarks.evidence._jobs import KINDS, Job, jobs_of, run_job
from benchmarks.evidence._protocol import Study

__all__ = ["record_of", "run"]

# Relative cost of a step by architecture, measured once: it serves the time left alone.
_COST = {"unet_w4": 1.0, "unet_w8": 2.0, "unetr": 1.1}


def record_of(job: Job, out: Path) -> dict[str, Any] | None:
    """What a finished job left; None when it has not been done with these settings."""
    path = out / "jobs" / f"{job.name}.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if record["job"] == asdict(job) else None


def run(
    study: Study,
    targets: list[str],
    data: Path | None,
    out: Path,
    n_jobs: int | None,
    kinds: Sequence[str] = KINDS,
) -> None:
    """Do what is not done yet."""
    _check_settings(study, out)
    for task in study.tasks:
        prepare_task(task, data, out)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workers = n_jobs or len(os.sched_getaffinity(0))  # these networks do not fill a GPU
    stages = [[j for j in stage if j.kind in kinds] for stage in jobs_of(study, targets)]
    total = sum(_cost(job, study) for stage in stages for job in stage)
    todo = [[job for job in stage if record_of(job, out) is None] for stage in stages]
    left = sum(_cost(job, study) for stage in todo for job in stage)
    print(f"{sum(map(len, todo))} jobs left, {workers} at a time, on {device}", flush=True)
    begun, cost_before = time.perf_counter(), left
    # Spawned, since forked children inherit thread pools that no longer run.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for stage in todo:
            stage.sort(key=lambda job: (job.seed, -_cost(job, study)))
            running = {pool.submit(run_job, job, study, out, device): job for job in stage}
            for future in as_completed(running):
                job = running[future]
                write_json(out / "jobs" / f"{job.name}.json", future.result())
                left -= _cost(job, study)
                seconds = time.perf_counter() - begun
                rest = seconds * left / max(cost_before - left, 1e-9)
                print(
                    f"[{1 - left / total:4.0%}] {job.name}: "
                    f"{future.result()['seconds']:.0f} s; about {rest / 60:.0f} min left",
                    flush=True,
                )


def _cost(job: Job, study: Study) -> float:
    """Rough cost in steps of the smallest network."""
    each = _COST.get(job.model.architecture, 1.0)
    if job.kind == "pretrain":
        return each * job.model.n_steps + 1
    if job.kind == "tune":
        return each * (study.tune_steps + 4 * study.n_test_cases)
    return each * 10 * study.n_rank_cases


def _check_settings(study: Study, out: Path) -> None:
    """Refuse to mix jobs of two settings in one folder."""
    path = out / "study.json"
    settings = json.loads(json.dumps(asdict(study)))
    if not path.exists():
        write_json(path, settings)
        return
    if json.loads(path.read_text()) != settings:
        raise SystemExit(
            f"{path} was written with other settings than those of this study: "
            "give another --out, or remove the folder."
        )
