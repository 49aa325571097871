"""Real images as 64 x 64 slices, split by person, image or run of sections."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.evidence._tasks import DATASETS, SEED, TASKS, Dataset, Task
from skte.datasets import load_msd

__all__ = ["EDGE", "Part", "load_task"]

EDGE = 64
_MOST = {"source": 160, "support": 20, "test": 40}
#: Least area of the foreground, as a share of the largest in the volume.
_LEAST = {"source": 0.2, "support": 0.5, "test": 0.5}
_PER_GROUP = {"source": 8, "support": 4, "test": 12}


@dataclass(frozen=True)
class Part:
    """Slices of one part: images ``(n, 1, 64, 64)``, labels ``(n, 64, 64)``, groups."""

    images: torch.Tensor
    labels: torch.Tensor
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Part:
        """The first `n` slices."""
        return Part(self.images[:n], self.labels[:n], self.groups[:n])


def load_task(name: str, part: str, data: Path | None, work: Path) -> Part:
    """Slices of the source, support or test part of a task, the same on every call.

    Without a folder of images they are phantoms.
    """
    if data is None:
        return _phantoms(name, part)
    file = work / "slices" / f"{name}-{part}.npz"
    if not file.exists():
        _prepare(TASKS[name], data, work / "slices")
    with np.load(file) as held:
        return Part(
            torch.from_numpy(held["images"]),
            torch.from_numpy(held["labels"]),
            tuple(held["groups"].tolist()),
        )


def _phantoms(name: str, part: str) -> Part:
    """Discs in noise, with another contrast in every task."""
    rng = np.random.default_rng(crc32(f"{name}-{part}".encode()))
    n = 12
    centre = rng.uniform(20, 44, size=(n, 2, 1, 1))
    distance = np.hypot(*(np.indices((EDGE, EDGE))[:, None] - centre.transpose(1, 0, 2, 3)))
    labels = (distance < rng.uniform(6, 14, size=(n, 1, 1))).astype(np.uint8)
    contrast = 1 + crc32(name.encode()) % 3
    images = rng.normal(size=labels.shape) + contrast * labels
    groups = tuple(f"{part}-{i}" for i in range(n))
    return Part(torch.from_numpy(images[:, None]).float(), torch.from_numpy(labels), groups)


def _prepare(task: Task, data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    dataset = DATASETS[task.dataset]
    found: dict[str, list[Any]] = {}
    for subject in load_msd(data / dataset.folder):
        case = str(subject["case_id"])
        if case.startswith(dataset.prefix):
            found.setdefault(dataset.group(case), []).append(subject)
    parts = _split(sorted(found), dataset)
    for part in ("test", "support", "source"):  # the source part comes last: it stands for all
        slices = [_slices(found[group], task, dataset, part) for group in parts[part]]
        rounds = max(len(some) for some in slices)
        # One slice of every group before a second of any, so that few cases are many persons.
        chosen = [
            (group, *some[k])
            for k in range(rounds)
            for group, some in zip(parts[part], slices, strict=True)
            if k < len(some)
        ][: _MOST[part]]
        temporary = out / f".{task.name}-{part}-{np.random.default_rng().integers(1 << 30)}.npz"
        np.savez_compressed(
            temporary,
            images=np.stack([image for _, image, _ in chosen]),
            labels=np.stack([label for _, _, label in chosen]),
            groups=np.array([group for group, _, _ in chosen]),
        )
        temporary.replace(out / f"{task.name}-{part}.npz")


def _split(groups: list[str], dataset: Dataset) -> dict[str, list[str]]:
    n_source, n_support = dataset.split
    gap = 1 if dataset.in_runs else 0
    if not dataset.in_runs:
        groups = [groups[i] for i in np.random.default_rng(SEED).permutation(len(groups))]
    first, second = n_source + gap, n_source + gap + n_support
    return {
        "source": groups[:n_source],
        "support": groups[first:second],
        "test": groups[second + gap :],
    }


def _slices(
    subjects: list[Any], task: Task, dataset: Dataset, part: str
) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """Slices of one group with enough foreground, spread evenly."""
    found = []
    for subject in subjects:
        image = subject["image"].data[0].float()
        label = torch.isin(subject["label"].data[0].int(), torch.tensor(task.labels)).float()
        axis = image.ndim - 1 if dataset.tiled else dataset.axis
        for k in range(image.shape[axis]):
            found += _cut(image.select(axis, k), label.select(axis, k), dataset)
    areas = np.array([int(label.sum()) for _, label in found])
    kept = np.flatnonzero(areas >= max(8, _LEAST[part] * areas.max()))
    n = min(_PER_GROUP[part], len(kept))
    # Middle first: one slice of a group is the one between the outer ones.
    spread = kept[((np.arange(n) + 0.5) * len(kept) / max(n, 1)).astype(int)]
    order = np.argsort(np.abs(np.arange(n) - (n - 1) / 2), kind="stable")
    return [found[i] for i in spread[order]]


def _cut(
    image: torch.Tensor, label: torch.Tensor, dataset: Dataset
) -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    if dataset.tiled:  # thin vessels and membranes: four tiles at full resolution
        return [
            _finished(image[i : i + EDGE, j : j + EDGE], label[i : i + EDGE, j : j + EDGE])
            for i in (0, EDGE)
            for j in (0, EDGE)
        ]
    size = dataset.crop or max(image.shape)
    image, label = (_to_square(plane, size) for plane in (image, label))
    planes = torch.stack([image, label])[:, None]
    if size != EDGE:
        planes = functional.interpolate(
            planes, size=(EDGE, EDGE), mode="bilinear", antialias=size > EDGE
        )
    return [_finished(planes[0, 0], (planes[1, 0] >= 0.5).float())]


def _to_square(plane: torch.Tensor, size: int) -> torch.Tensor:
    """Crop or pad around the middle."""
    for axis in (0, 1):
        missing = size - plane.shape[axis]
        if missing < 0:
            plane = plane.narrow(axis, -missing // 2, size)
    short = [size - n for n in reversed(plane.shape)]
    pads = [p for n in short for p in (n // 2, n - n // 2)]
    return functional.pad(plane, pads)


def _finished(
    image: torch.Tensor, label: torch.Tensor
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Zero mean and unit variance, as every network of the bank sees it."""
    image = (image - image.mean()) / image.std().clamp_min(1e-6)
    return image[None].numpy().astype(np.float32), label.numpy().astype(np.uint8)
