"""The demo's bank: small networks pre-trained on source tasks, written with a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

from skte._files import write_atomically, write_text_atomically
from skte.datasets import make_phantoms
from skte.demo._train import (
    SmallUNet,
    TrainingCase,
    load_body,
    mean_foreground_dice,
    prepare_cases,
    small_unet,
    train_network,
)

__all__ = ["CLASS_IDS", "IMAGE_SIZE", "SOURCES", "Source", "fine_tune_bank", "write_bank"]

CLASS_IDS = (0, 1)
IMAGE_SIZE = (64, 64, 1)
_PATCH_SIZE, _BATCH_SIZE = (32, 32), 8
_N_SOURCE_CASES = 24
_N_TUNING_STEPS, _TUNING_RATE = 40, 1e-3


@dataclass(frozen=True)
class Source:
    """How one network of the demo's bank is trained."""

    task: str | None  # None leaves the network untrained
    n_steps: int
    widths: tuple[int, ...] = (8, 16, 32)


# Fixed before any score was seen: tasks other than the target, one of them with a short
# training, one with a narrow network, and one network without training.
SOURCES: Mapping[str, Source] = {
    "ellipsoids": Source("ellipsoids", 200),
    "ellipsoids-short": Source("ellipsoids", 40),
    "lobes": Source("lobes", 200),
    "shells": Source("shells", 200),
    "texture": Source("texture", 200),
    "tubes-narrow": Source("tubes", 200, widths=(4, 8, 16)),
    "untrained": Source(None, 0),
}


@dataclass(frozen=True)
class Outcome:
    """What the models of the bank reached on the target task, in the order of `SOURCES`."""

    dice: NDArray[np.float64]  # (n_models, n_seeds), mean foreground, after fine-tuning
    zero_shot: NDArray[np.float64]  # (n_models,), of the source head on the training cases
    size: NDArray[np.float64]  # (n_models,), number of parameters


def write_bank(folder: Path, *, random_state: int, quick: bool, n_jobs: int) -> Path:
    """Pre-train the networks of `SOURCES`, write weights and manifest, return the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = {
        name: source.n_steps // 20 if quick else source.n_steps for name, source in SOURCES.items()
    }
    Parallel(n_jobs=n_jobs)(
        delayed(_pretrain)(source, steps[name], random_state + i, folder / f"{name}.pt")
        for i, (name, source) in enumerate(SOURCES.items())
    )
    models = [
        {
            "name": name,
            "factory": "skte.demo:small_unet",
            "arguments": {"spatial_dims": 2, "widths": list(source.widths)},
            "weights": f"{name}.pt",
            "preprocessing": ["ZNormalization"],
            "provenance": {"task": source.task or "none", "steps": steps[name]},
        }
        for name, source in SOURCES.items()
    ]
    return write_text_atomically(folder / "bank.json", json.dumps({"models": models}, indent=2))


def fine_tune_bank(
    folder: Path,
    train: Sequence[TrainingCase],
    test: Sequence[TrainingCase],
    *,
    seeds: Sequence[int],
    quick: bool,
    n_jobs: int,
) -> Outcome:
    """Fine-tune every network of the bank on the target task, once per seed."""
    # All weights but those of the head are loaded and all are trained, as in the paper of
    # CC-FV. A seed gives every network the same patches.
    n_steps = _N_TUNING_STEPS // 20 if quick else _N_TUNING_STEPS
    dice = Parallel(n_jobs=n_jobs)(
        delayed(_fine_tune)(source, folder / f"{name}.pt", train, test, n_steps, seed)
        for name, source in SOURCES.items()
        for seed in seeds
    )
    networks = [_load(source, folder / f"{name}.pt") for name, source in SOURCES.items()]
    return Outcome(
        dice=np.reshape(dice, (len(SOURCES), len(seeds))),
        zero_shot=np.array([mean_foreground_dice(network, train) for network in networks]),
        size=np.array([sum(p.numel() for p in n.parameters()) for n in networks], dtype=float),
    )


def _pretrain(source: Source, n_steps: int, seed: int, weights: Path) -> None:
    network = _fresh(source, seed)
    if source.task is not None:
        phantoms = make_phantoms(
            _N_SOURCE_CASES, task=source.task, size=IMAGE_SIZE, random_state=seed
        )
        with _one_thread():
            train_network(
                network,
                prepare_cases(phantoms, CLASS_IDS),
                n_steps=n_steps,
                random_state=seed,
                patch_size=_PATCH_SIZE,
                batch_size=_BATCH_SIZE,
            )
    write_atomically(weights, lambda path: torch.save(network.state_dict(), path))


def _fine_tune(
    source: Source,
    weights: Path,
    train: Sequence[TrainingCase],
    test: Sequence[TrainingCase],
    n_steps: int,
    seed: int,
) -> float:
    network = _fresh(source, seed)
    load_body(network, torch.load(weights, weights_only=True))
    with _one_thread():
        train_network(
            network,
            train,
            n_steps=n_steps,
            learning_rate=_TUNING_RATE,
            random_state=seed,
            patch_size=_PATCH_SIZE,
            batch_size=_BATCH_SIZE,
        )
        return mean_foreground_dice(network, test)


def _load(source: Source, weights: Path) -> SmallUNet:
    network = _fresh(source, seed=0)
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network


def _fresh(source: Source, seed: int) -> SmallUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_unet(widths=source.widths, spatial_dims=2)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small train fastest on one thread each, several at a time."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
