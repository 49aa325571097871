"""Cases of a task: split once, labels merged, written where every job finds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torchio as tio

from benchmarks.evidence._protocol import Study, Task
from skte.datasets import load_msd, make_phantoms
from skte.demo import TrainingCase, prepare_cases, write_msd

__all__ = ["prepare_task", "split", "training_cases"]

_TEST_SHARE = 0.2
_SEED = 20231008


def prepare_task(task: Task, data: Path | None, out: Path) -> None:
    """Write the task's cases with merged labels; without `data`, phantoms."""
    folder = out / "data" / task.name
    if (folder / "dataset.json").exists():
        return
    if data is None:
        cases = make_phantoms(10, task=task.name, size=(20, 20, 20), random_state=0)
        write_msd(folder, cases, task.name)
        return
    description = json.loads((data / task.name / "dataset.json").read_text())
    subjects = load_msd(data / task.name)
    for subject, pair in zip(subjects, description["training"], strict=True):
        coarse = _coarsened(subject, task)
        for part in ("image", "label"):
            (folder / pair[part]).parent.mkdir(parents=True, exist_ok=True)
            coarse[part].save(folder / pair[part])
    description["labels"] = {str(i): f"class {i}" for i in range(task.n_classes)}
    (folder / "dataset.json").write_text(json.dumps(description))


def _coarsened(subject: Any, task: Task) -> Any:
    """Merge labels, then resample image (trilinear, smoothed) and label (nearest)."""
    merged = tio.RemapLabels(dict(task.merge))(subject) if task.merge else subject
    spacing = np.multiply(subject["image"].spacing, task.coarsen)
    return tio.Resample(tuple(spacing), antialias=True)(merged)


def split(study: Study, task: str, out: Path) -> tuple[list[Any], list[Any]]:
    """Training and test cases of a task, 80 to 20, the same on every call."""
    subjects = load_msd(out / "data" / task)
    order = np.random.default_rng(_SEED).permutation(len(subjects))
    n_test = round(_TEST_SHARE * len(subjects))
    test = [subjects[i] for i in sorted(order[:n_test])][: study.n_test_cases]
    return [subjects[i] for i in order[n_test:]], test


def training_cases(subjects: list[Any], task: Task) -> list[TrainingCase]:
    """Load cases, images with zero mean and unit variance."""
    return prepare_cases(subjects, class_ids=range(task.n_classes))
