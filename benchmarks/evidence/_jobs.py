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
from torch.nn import functional

from benchmarks.evidence._data import split, training_cases
from benchmarks.evidence._networks import HEADS, build, fresh
from benchmarks.evidence._protocol import Model, Study
from skte import BankEntry, SegmentationFeatureExtractor
from skte._files import write_atomically
from skte.demo import TrainingCase, load_body, train_network
from skte.features import pack_case

__all__ = ["Job", "entry_of", "jobs_of", "run_job", "weights_path"]


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
    for target in targets:
        bank = study.bank(target)
        tuning = [Job("tune", model, target, seed) for seed in study.seeds for model in bank]
        stages.append([Job("extract", model, target) for model in bank] + tuning)
    return stages


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
    if model.source is not None:
        task = study.task(model.source)
        subjects, _ = split(study, model.source, out)
        cases = training_cases(subjects[: study.n_pretrain_cases], task)
        network.to(device)
        train = train_network if model.objective == "supervised" else _train_restoration
        losses = train(
            network,
            cases,
            n_steps=model.n_steps,
            patch_size=study.patch,
            batch_size=study.batch_size,
            learning_rate=study.rate,
            random_state=model.seed,
        )
    state = {key: value.cpu().half() for key, value in network.state_dict().items()}
    path = weights_path(out, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    return {
        "final_loss": float(np.mean(losses[-20:])) if losses else None,
        "n_parameters": sum(p.numel() for p in network.parameters()),
    }


def _train_restoration(
    network: nn.Module,
    cases: list[TrainingCase],
    *,
    n_steps: int,
    patch_size: tuple[int, ...],
    batch_size: int,
    learning_rate: float,
    random_state: int,
) -> list[float]:
    """Teach a network to restore patches with noise and with cubes cut out."""
    rng = np.random.default_rng(random_state)
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps)
    losses = []
    network.train()
    for _ in range(n_steps):
        clean = torch.stack(
            [
                _patch(cases[int(rng.integers(len(cases)))].image, patch_size, rng)
                for _ in range(batch_size)
            ]
        )
        noise = rng.normal(scale=0.3, size=clean.shape).astype(np.float32)
        coarse = rng.random((batch_size, 1, *(max(1, edge // 8) for edge in patch_size))) > 0.3
        kept = functional.interpolate(torch.from_numpy(coarse).float(), size=tuple(patch_size))
        spoilt = ((clean + torch.from_numpy(noise)) * kept).to(device)
        loss = functional.mse_loss(network(spoilt), clean.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    network.eval()
    return losses


def _patch(image: torch.Tensor, edges: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """A random patch; volumes smaller than it are padded."""
    shape = image.shape[1:]
    starts = [int(rng.integers(max(1, n - edge + 1))) for n, edge in zip(shape, edges, strict=True)]
    window = tuple(slice(a, a + edge) for a, edge in zip(starts, edges, strict=True))
    patch = image[(slice(None), *window)]
    missing = [edge - n for n, edge in zip(patch.shape[1:], edges, strict=True)]
    return functional.pad(patch, [p for extra in missing[::-1] for p in (0, extra)])


def _tune(job: Job, study: Study, out: Path, device: str) -> dict[str, Any]:
    model, task = job.model, study.task(job.target)
    train, test = split(study, job.target, out)
    network = fresh(model.architecture, task.n_classes, study.patch, 1000 + job.seed)
    state = torch.load(weights_path(out, model), weights_only=True)
    weights = {key: value.float() for key, value in state.items()}
    load_body(network, weights, HEADS[model.architecture])
    network.to(device)
    begun = time.perf_counter()
    losses = train_network(
        network,
        training_cases(train[: study.n_tune_cases], task),
        n_steps=study.tune_steps,
        patch_size=study.patch,
        batch_size=study.batch_size,
        learning_rate=study.rate,
        random_state=job.seed,
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
            image[None].to(device), patch, 1, network, overlap=0.25, mode="gaussian"
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
    train, _ = split(study, job.target, out)
    subjects = train[: study.n_rank_cases]
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
