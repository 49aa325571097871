"""What ranking costs beside fine-tuning, on one thread of this machine's CPU."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence._data import split, training_cases
from benchmarks.evidence._jobs import entry_of
from benchmarks.evidence._networks import ARCHITECTURES, HEADS, fresh
from benchmarks.evidence._protocol import Study
from benchmarks.evidence._train import train
from skte import CCFV, SegmentationFeatureExtractor

__all__ = ["cost", "of_bank"]

_PART = 10  # of the steps of fine-tuning that are timed


def cost(study: Study, target: str, out: Path) -> dict[str, dict[str, float]]:
    """Seconds to rank one model (extraction and CC-FV) and to fine-tune it, by architecture.

    Fine-tuning is timed over a tenth of its steps.
    """
    torch.set_num_threads(1)
    task, (own, _) = study.task(target), split(study, target, out)
    own = own[: study.n_tune_cases]
    cases = training_cases(own, task)
    found = {}
    for architecture in ARCHITECTURES:
        [model] = [m for m in study.untrained() if m.name == f"none__{architecture}"]
        n_steps = max(1, study.tune_steps // _PART)
        network = fresh(architecture, task.n_classes, study.patch, 0)
        begun = time.perf_counter()
        train(
            network,
            cases,
            objective="supervised",
            n_classes=task.n_classes,
            n_steps=n_steps,
            patch=study.patch,
            batch_size=study.batch_size,
            rate=study.head_rate,
            body_rate=study.body_rate,
            head=HEADS[architecture],
        )
        tuned = (time.perf_counter() - begun) * study.tune_steps / n_steps
        extractor = SegmentationFeatureExtractor(entry_of(model, study, out), device="cpu")
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CCFV().fit(extractor.fit_transform(own))
        ranked = time.perf_counter() - begun
        found[architecture] = {"rank": round(ranked, 2), "tune": round(tuned, 2)}
    return found


def of_bank(
    seconds: dict[str, dict[str, float]], models: list[dict[str, Any]]
) -> tuple[float, float]:
    """Seconds to rank and to fine-tune every model of a bank once."""
    rank, tune = (
        sum(seconds[model["architecture"]][what] for model in models) for what in ("rank", "tune")
    )
    return rank, tune
