"""Pre-training and fine-tuning as jobs: one small file each, so that runs resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from benchmarks.evidence._images import Part, load_task
from benchmarks.evidence._network import fresh
from benchmarks.evidence._place import Place, load_network, truth_file, weights_file, write
from benchmarks.evidence._scoring import score_file, score_model
from benchmarks.evidence._tasks import (
    MIXTURES,
    OTHER_SUPPORTS,
    PHANTOMS,
    SUPPORT,
    TASKS,
    Bank,
    Model,
)
from benchmarks.evidence._training import FINE_TUNING, dice_per_case, new_head, train

__all__ = ["run_all", "score_all"]

#: File written, file needed, function and arguments.
Job = tuple[Path, Path | None, Callable[..., None], tuple[Any, ...]]

#: Batch sizes of slices and of volumes.
_PRE_TRAINING: dict[int, dict[str, Any]] = {
    2: {"batch_size": 4, "rate": 3e-3},
    3: {"batch_size": 2, "rate": 3e-3},
}


def pretrain(place: Place, model: Model) -> None:
    """Train one model of the bank on its source and keep its weights."""
    torch.set_num_threads(1)
    started = time.process_time()
    restore = model.source.endswith("restoration")
    network = fresh(model.network, model.seed + (1000 if restore else 0), 1 if restore else 2)
    facts: dict[str, Any] = {"model": model.name}
    if model.steps:
        part = _source(model, place)
        seed = crc32(model.name.encode())
        facts["loss"] = train(
            network,
            part,
            steps=place.steps(model.steps),
            restore=restore,
            seed=seed,
            **_PRE_TRAINING[model.n_dims],
        )
        if not restore:
            facts["training_dice"] = float(np.mean(dice_per_case(network, part.first(40))))
    facts["seconds"] = time.process_time() - started
    file = weights_file(place, model)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), file.with_suffix(".tmp"))
    write(file.with_suffix(".json"), facts)
    file.with_suffix(".tmp").replace(file)


def fine_tune(place: Place, bank: Bank, target: str, model: Model, run: int) -> None:
    """Fine-tune one model on the target's labelled cases and keep its Dice on the test part."""
    torch.set_num_threads(1)
    started = time.process_time()
    network = load_network(place, model)
    support, test = (
        load_task(target, part, place.data, place.work, model.n_dims)
        for part in ("support", "test")
    )
    facts: dict[str, Any] = {"target": target, "model": model.name, "run": run}
    new_head(network, 1 + run)  # the same for every model of a run
    steps = place.steps(bank.fine_tuning_steps)
    facts["loss"] = train(
        network, support.first(SUPPORT), steps=steps, seed=100 + run, **FINE_TUNING
    )
    facts["dice"] = dice_per_case(network, test)
    facts["seconds"] = time.process_time() - started
    file = truth_file(place, target, model, run)
    write(file, facts)


def run_all(place: Place, bank: Bank, targets: Sequence[str], n_workers: int = 2) -> None:
    """Train all that is not trained, target by target."""
    n_dims = bank.models_of(targets[0])[0][0].n_dims
    for name in _images_of(bank, targets):  # cut once, before anyone reads them
        load_task(name, "source", place.data, place.work, n_dims)
    _work_off(_training_jobs(place, bank, targets), n_workers)


def score_all(place: Place, bank: Bank, targets: Sequence[str], n_workers: int = 2) -> None:
    """Score every model whose weights exist, on the standard support and on others."""
    jobs: list[Job] = []
    for target in targets:
        others = OTHER_SUPPORTS if target in bank.with_other_supports else ()
        for n_cases in (SUPPORT, *others):
            for model in bank.recipe(target):
                available = load_task(target, "support", place.data, place.work, model.n_dims)
                weights = weights_file(place, model)
                if weights.exists() and len(available) >= n_cases:
                    out = score_file(place, target, model, n_cases)
                    jobs.append((out, weights, score_model, (place, target, model, n_cases)))
    _work_off(jobs, n_workers)


def _work_off(waiting: list[Job], n_workers: int) -> None:
    """Do every job whose file is missing, in order, as soon as the file it needs is there."""
    waiting = [job for job in waiting if not job[0].exists()]
    running: dict[Future[None], Path] = {}
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        while waiting or running:
            for job in [job for job in waiting if job[1] is None or job[1].exists()]:
                if len(running) == n_workers:
                    break
                waiting.remove(job)
                running[pool.submit(job[2], *job[3])] = job[0]
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                print(running.pop(future).stem, len(waiting), "left", flush=True)


def _training_jobs(place: Place, bank: Bank, targets: Sequence[str]) -> list[Job]:
    """File written, file needed, function and arguments of each job, in order."""
    jobs: dict[Path, Job] = {}
    for target in targets:
        for run in range(bank.n_runs):
            for model in bank.recipe(target):
                weights = weights_file(place, model)
                jobs.setdefault(weights, (weights, None, pretrain, (place, model)))
                out = truth_file(place, target, model, run)
                jobs[out] = (out, weights, fine_tune, (place, bank, target, model, run))
    return list(jobs.values())


def _images_of(bank: Bank, targets: Sequence[str]) -> list[str]:
    """Tasks whose images a bank reads."""
    names = dict.fromkeys(targets)
    for target in targets:
        for model in bank.recipe(target):
            names |= dict.fromkeys(_parts(model))
    return list(names)


def _parts(model: Model) -> tuple[str, ...]:
    """Tasks that a model is pre-trained on."""
    if model.source == "untrained":
        return ()
    if model.source == "phantom_restoration":
        return tuple(PHANTOMS)
    if (
        model.source == "restoration"
    ):  # one task of every data set; for volumes those of the mixture
        if model.n_dims == 3:
            return MIXTURES["volume_mixture"]
        real = {task.dataset: name for name, task in TASKS.items() if name not in PHANTOMS}
        return tuple(real.values())
    return MIXTURES.get(model.source, (model.source,))


@cache
def _images(name: str, place: Place, n_dims: int) -> Part:
    return load_task(name, "source", place.data, place.work, n_dims)


def _source(model: Model, place: Place) -> Part:
    """Slices and labels that a model is pre-trained on."""
    parts = [_images(name, place, model.n_dims) for name in _parts(model)]
    part = Part(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        tuple(group for part in parts for group in part.groups),
    )
    if model.kind in ("two cases", "ten cases"):
        return part.first(2 if model.kind == "two cases" else 10)
    if model.kind in ("noise", "shuffled"):  # labels of other slices
        rng = np.random.default_rng(crc32(model.name.encode()))
        n = len(part) // 2 if model.kind == "noise" else len(part)
        moved = rng.permutation(len(part))[:n]
        labels = part.labels.clone()
        labels[moved] = part.labels[np.roll(moved, 1)]
        return Part(part.images, labels, part.groups)
    return part
