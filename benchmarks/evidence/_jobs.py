"""The study's jobs: each reads files, writes files, and returns a small record."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.evidence._data import split, training_cases
from benchmarks.evidence._networks import HEADS, RATES, build, fresh
from benchmarks.evidence._protocol import Model, Study
from benchmarks.evidence._train import train
from skte import BankEntry, SegmentationFeatureExtractor
from skte._files import write_atomically
from skte.datasets import make_phantoms
from skte.demo import TrainingCase, load_body, prepare_cases
from skte.features import pack_case

__all__ = ["KINDS", "Job", "entry_of", "jobs_of", "run_job", "weights_path"]


@dataclass(frozen=True)
class Job:
    """One thing to do; its record is OUT/jobs/<name>.json."""

    kind: str
    model: Model
    target: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        parts = [self.kind, self.target, self.model.name]
        if self.kind == "tune":
            parts.append(f"seed{self.seed}")
        return "__".join(part for part in parts if part)


def jobs_of(study: Study, targets: list[str]) -> list[list[Job]]:
    """Stages of jobs; those of a stage depend on earlier stages alone."""
    needed = [model for model in study.models() if any(model in study.bank(t) for t in targets)]
    stages = [[Job("pretrain", model) for model in needed]]
    # One stage, so that no core waits; the first seeds of all targets come before the second.
    later = [Job("extract", model, target) for target in targets for model in study.bank(target)]
    for seed in study.seeds:
        for target in targets:
            later += [Job("tune", model, target, seed) for model in study.bank(target)]
    return [*stages, later]


def run_job(job: Job, study: Study, out: Path, device: str) -> dict[str, Any]:
    """Do one job on one thread, and tell what came out."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = _DO[job.kind](job, study, out, device)
    return {
        "job": asdict(job),
        "seconds": round(time.perf_counter() - begun, 2),
        "device": device,
        **result,
    }


def weights_path(out: Path, model: Model) -> Path:
    """Where a model's weights lie, in half precision."""
    return out / "weights" / f"{model.name}.pt"


def entry_of(model: Model, study: Study, out: Path) -> BankEntry:
    """Recipe of a model for skte."""
    return BankEntry(
        model.name,
        build,
        arguments={
            "architecture": model.architecture,
            "n_classes": _head_size(model, study),
            "patch": study.patch,
        },
        weights=weights_path(out, model),
        window_size=study.patch,
        preprocessing=["ZNormalization"],
        source_head=model.objective == "supervised",
    )


def _head_size(model: Model, study: Study) -> int:
    if model.objective == "restoration":
        return 1
    return 3 if model.source is None else study.task(model.source).n_classes


def _pretrain(job: Job, study: Study, out: Path, device: str) -> dict[str, Any]:
    model = job.model
    network = fresh(model.architecture, _head_size(model, study), study.patch, model.seed)
    losses: list[float] = []
    if model.n_steps:
        cases, n_classes = _source(study, model, out)
        network.to(device)
        losses = train(
            network,
            cases,
            objective=model.objective,
            n_classes=n_classes,
            n_steps=model.n_steps,
            patch=study.patch,
            batch_size=study.batch_size,
            rate=RATES[model.architecture],
            seed=model.seed,
        )
    state = {key: value.cpu().half() for key, value in network.state_dict().items()}
    path = weights_path(out, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    return {
        "final_loss": float(np.mean(losses[-20:])) if losses else None,
        "n_parameters": sum(p.numel() for p in network.parameters()),
    }


def _source(study: Study, model: Model, out: Path) -> tuple[list[TrainingCase], int]:
    """Cases to pre-train on, and their classes; phantoms where no task is the source."""
    if model.source is None:
        return prepare_cases(make_phantoms(4, size=(40, 40, 40), random_state=1), (0, 1)), 2
    subjects, _ = split(study, model.source, out)
    task = study.task(model.source)
    return training_cases(subjects[: study.n_pretrain_cases], task), task.n_classes


def _tune(job: Job, study: Study, out: Path, device: str) -> dict[str, Any]:
    model, task = job.model, study.task(job.target)
    own, test = split(study, job.target, out)
    network = fresh(model.architecture, task.n_classes, study.patch, 1000 + job.seed)
    state = torch.load(weights_path(out, model), weights_only=True)
    weights = {key: value.float() for key, value in state.items()}
    load_body(network, weights, HEADS[model.architecture])
    network.to(device)
    begun = time.perf_counter()
    losses = train(
        network,
        training_cases(own[: study.n_tune_cases], task),
        objective="supervised",
        n_classes=task.n_classes,
        n_steps=study.tune_steps,
        patch=study.patch,
        batch_size=study.batch_size,
        rate=study.head_rate,
        body_rate=study.body_rate,
        head=HEADS[model.architecture],
        seed=job.seed,
    )
    seconds = time.perf_counter() - begun
    per_case = [
        class_dice(network, case, study.patch, task.n_classes)
        for case in training_cases(test, task)
    ]
    return {
        "dice": [[None if np.isnan(v) else round(v, 5) for v in row] for row in per_case],
        "case_ids": [subject["case_id"] for subject in test],
        "final_loss": float(np.mean(losses[-20:])),
        "train_seconds": round(seconds, 2),
    }


def segment(network: nn.Module, image: torch.Tensor, patch: tuple[int, ...]) -> torch.Tensor:
    """Class of each voxel, from overlapping windows."""
    from monai.inferers import sliding_window_inference

    device = next(network.parameters()).device
    with torch.inference_mode():
        logits = sliding_window_inference(
            image[None].to(device), patch, 8, network, overlap=0.25, mode="gaussian"
        )
    return logits[0].argmax(dim=0).cpu()  # type: ignore[union-attr,call-overload,no-any-return]


def class_dice(
    network: nn.Module, case: TrainingCase, patch: tuple[int, ...], n_classes: int
) -> list[float]:
    """Dice of each foreground class; NaN for a class that the case does not hold."""
    predicted = segment(network, case.image, patch)
    return [_dice(predicted == k, case.target == k) for k in range(1, n_classes)]


def _dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum())) if b.any() else float("nan")


def _extract(job: Job, study: Study, out: Path, device: str) -> dict[str, Any]:
    """Sample features of the ranking cases, and try the source head as it is."""
    entry = entry_of(job.model, study, out)
    own, _ = split(study, job.target, out)
    subjects = own[: study.n_rank_cases]
    extractor = SegmentationFeatureExtractor(entry, device=device, random_state=0)
    begun = time.perf_counter()
    features = extractor.fit_transform(subjects)
    seconds = time.perf_counter() - begun
    folder = out / "features" / job.target / job.model.name
    folder.mkdir(parents=True, exist_ok=True)
    for i, case in enumerate(features):
        packed = pack_case(case)
        write_atomically(folder / f"{i:03d}.skte", lambda path, b=packed: path.write_bytes(b))
    record: dict[str, Any] = {
        "case_ids": list(features.case_ids),
        "layers": [asdict(layer) for layer in extractor.layers_],
        "extract_seconds": round(seconds, 2),
        "n_windows": sum(int(case.info["n_windows"]) for case in features),
    }
    if job.model.objective == "supervised":
        network = entry.load().to(device)
        cases = training_cases(subjects, study.task(job.target))
        record["zero_shot"] = [
            _dice(segment(network, case.image, study.patch) > 0, case.target > 0) for case in cases
        ]
    return record


_DO = {"pretrain": _pretrain, "tune": _tune, "extract": _extract}
KINDS = tuple(_DO)
