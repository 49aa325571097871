"""The demo's bank: small networks pre-trained on source tasks, written with a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from skte._files import write_atomically, write_text_atomically
from skte.demo._train import TrainingCase, load_body, mean_foreground_dice, train_network
from skte.demo._unet import SmallUNet, small_unet

__all__ = ["SOURCES", "Source", "fine_tuned_dice", "write_bank"]


@dataclass(frozen=True)
class Source:
    """How one network of the demo's bank comes about.

    Attributes
    ----------
    task : str or None
        Source task; None leaves the network untrained.
    n_steps : int
        Optimiser steps.
    widths : tuple of int
        Channels of the network's stages.
    """

    task: str | None
    n_steps: int
    widths: tuple[int, ...] = (8, 16, 32)


# Fixed before any result was looked at: other tissues, lengths and widths than the target's.
SOURCES: Mapping[str, Source] = {
    "ellipsoids": Source("ellipsoids", 120),
    "ellipsoids-short": Source("ellipsoids", 30),
    "tubes": Source("tubes", 120),
    "shells": Source("shells", 120),
    "texture": Source("texture", 120),
    "sheets-narrow": Source("sheets", 120, widths=(4, 8, 16)),
    "untrained": Source(None, 0),
}


def write_bank(
    folder: Path, tasks: Mapping[str, Sequence[TrainingCase]], *, random_state: int, quick: bool
) -> Path:
    """Pre-train the networks of `SOURCES` and write weights and manifest.

    Parameters
    ----------
    folder : Path
        Where the files go; made if need be.
    tasks : mapping of str to sequence of TrainingCase
        Training cases of each source task.
    random_state : int
        Seed of initial weights and patches.
    quick : bool
        A tenth of the steps.

    Returns
    -------
    Path
        The manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    models = []
    for position, (name, source) in enumerate(SOURCES.items()):
        network = _fresh(source, random_state + position)
        n_steps = source.n_steps // 10 if quick else source.n_steps
        if source.task is not None:
            train_network(network, tasks[source.task], n_steps=n_steps, random_state=random_state)
        write_atomically(folder / f"{name}.pt", lambda p, n=network: torch.save(n.state_dict(), p))
        models.append(
            {
                "name": name,
                "factory": "skte.demo:small_unet",
                "arguments": {"widths": list(source.widths)},
                "weights": f"{name}.pt",
                "preprocessing": ["ZNormalization"],
                "provenance": {"task": source.task or "none", "steps": n_steps},
            }
        )
    return write_text_atomically(folder / "bank.json", json.dumps({"models": models}, indent=2))


def fine_tuned_dice(
    source: Source,
    weights: Path,
    train: Sequence[TrainingCase],
    test: Sequence[TrainingCase],
    *,
    n_steps: int,
    random_state: int,
) -> float:
    """Fine-tune one network of the bank on the target task and judge it on test cases.

    All weights but the head's are loaded; all are trained, as in the paper's protocol.

    Parameters
    ----------
    source : Source
        How the network is built.
    weights : Path
        Its state dict.
    train, test : sequence of TrainingCase
        Cases of the target task.
    n_steps : int
        Optimiser steps.
    random_state : int
        Seed of the new head and the patches, the same for every network.

    Returns
    -------
    float
        Mean foreground Dice on the test cases.
    """
    network = _fresh(source, random_state)
    load_body(network, torch.load(weights, weights_only=True))
    train_network(network, train, n_steps=n_steps, random_state=random_state)
    return mean_foreground_dice(network, test)


def _fresh(source: Source, seed: int) -> SmallUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_unet(widths=source.widths)
