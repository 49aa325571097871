"""Where the study reads and keeps things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence._network import UNet, build
from benchmarks.evidence._tasks import Model

__all__ = ["Place", "load_network", "truth_file", "weights_file", "write"]


@dataclass(frozen=True)
class Place:
    """Where images are read, and where slices, weights and results are kept.

    `most_steps` cuts every training short, to see that everything runs.
    """

    data: Path | None
    work: Path
    most_steps: int | None = None

    def steps(self, wanted: int) -> int:
        """Steps to train for."""
        return wanted if self.most_steps is None else min(wanted, self.most_steps)


def weights_file(place: Place, model: Model) -> Path:
    """Weights of a pre-trained model."""
    return place.work / "weights" / f"{model.name}.pt"


def truth_file(place: Place, target: str, model: Model, run: int) -> Path:
    """Result of one fine-tuning."""
    return place.work / "truth" / target / f"{model.name}.{run}.json"


def load_network(place: Place, model: Model) -> UNet:
    """Network of a bank, as pre-training left it."""
    network = build(model.network, 1 if model.source.endswith("restoration") else 2)
    network.load_state_dict(torch.load(weights_file(place, model), weights_only=True))
    return network.eval()


def write(file: Path, facts: Mapping[str, Any]) -> None:
    """Write a small file; an interrupted run leaves none or a whole one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(facts))
    temporary.replace(file)
