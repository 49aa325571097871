"""Images as slices or small volumes, split by person, image or run of sections; phantoms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from benchmarks.evidence._tasks import DATASETS, PHANTOMS, SEED, TASKS, Dataset, Task
from skte.datasets import load_msd

__all__ = ["EDGE", "Part", "load_task"]

EDGE = 64
_MOST = {"source": 160, "support": 20, "test": 40}
#: Least area of the foreground, as a share of the largest in the volume.
_LEAST = {"source": 0.2, "support": 0.5, "test": 0.5}
_PER_GROUP = {"source": 8, "support": 4, "test": 12}
_VOLUME = (32, 32, 16)
_MOST_VOLUMES = {"source": 40, "support": 20, "test": 20}
_MOST_PHANTOMS = {"source": 120, "support": 20, "test": 40}


@dataclass(frozen=True)
class Part:
    """Cases of one part: images ``(n, 1, *spatial)``, labels ``(n, *spatial)``, groups."""

    images: torch.Tensor
    labels: torch.Tensor
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Part:
        """The first `n` slices."""
        return Part(self.images[:n], self.labels[:n], self.groups[:n])

    def at(self, rows: NDArray[np.intp]) -> Part:
        """The slices at some rows."""
        return Part(self.images[rows], self.labels[rows], tuple(self.groups[i] for i in rows))


def load_task(name: str, part: str, data: Path | None, work: Path, n_dims: int = 2) -> Part:
    """Slices or volumes of the source, support or test part of a task, the same on every call."""
    if name in PHANTOMS:
        return _phantoms(name, part)
    folder = work / ("slices" if n_dims == 2 else "volumes")
    file = folder / f"{name}-{part}.npz"
    if not file.exists():
        if data is None:
            raise ValueError(f"{name} needs a folder of images: pass --data, or set SKTE_DATA.")
        prepare = _prepare if n_dims == 2 else _prepare_volumes
        prepare(TASKS[name], data, folder)
    with np.load(file) as held:
        return Part(
            torch.from_numpy(held["images"]),
            torch.from_numpy(held["labels"]),
            tuple(held["groups"].tolist()),
        )


def _phantoms(name: str, part: str) -> Part:
    """An ellipse, a ring and a cross each, of which one shape is the foreground."""
    domain = PHANTOMS[name]
    rng = np.random.default_rng(crc32(f"{name}-{part}".encode()))
    images, labels = [], []
    for _ in range(_MOST_PHANTOMS[part]):
        image = np.zeros((EDGE, EDGE))
        places = rng.permutation([(18, 18), (18, 46), (46, 18), (46, 46)])
        for shape, place in zip(("ellipse", "ring", "cross"), places, strict=False):
            mask = _drawn(shape, place + rng.uniform(-5, 5, 2), rng)
            image[mask] = domain.contrast
            if shape == domain.shape:
                label = mask
        image += rng.normal(scale=0.3) * np.linspace(-1, 1, EDGE)  # a slope of brightness
        image = gaussian_filter(image, domain.blur) if domain.blur else image
        image += rng.normal(scale=domain.noise, size=image.shape)
        images.append((image - image.mean()) / image.std())
        labels.append(label.astype(np.uint8))
    groups = tuple(f"{part}-{i}" for i in range(len(images)))
    return Part(
        torch.from_numpy(np.stack(images)[:, None]).float(),
        torch.from_numpy(np.stack(labels)),
        groups,
    )


def _drawn(shape: str, centre: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    angle, size, squeeze = rng.uniform(0, np.pi), rng.uniform(7, 11), rng.uniform(0.7, 1.0)
    y, x = np.indices((EDGE, EDGE)) - centre[:, None, None]
    u = (np.cos(angle) * x + np.sin(angle) * y) / size
    v = (np.cos(angle) * y - np.sin(angle) * x) / (size * squeeze)
    r = np.hypot(u, v)
    if shape == "cross":
        found = (np.minimum(abs(u), abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 1)
    else:
        found = (r < 1) & (r > 0.55 if shape == "ring" else True)
    return np.asarray(found)


def _prepare_volumes(task: Task, data: Path, out: Path) -> None:
    """Whole volumes at the resolution that two cores can train, one per person."""
    dataset = DATASETS[task.dataset]
    found: dict[str, Any] = {}
    for subject in load_msd(data / dataset.folder):
        case = str(subject["case_id"])
        if case.startswith(dataset.prefix):
            found.setdefault(dataset.group(case), subject)
    for part, groups in _split(sorted(found), dataset).items():
        kept = []
        for group in groups:
            image = functional.adaptive_avg_pool3d(found[group]["image"].data.float(), _VOLUME)
            label = torch.isin(found[group]["label"].data.int(), torch.tensor(task.labels))
            share = functional.adaptive_avg_pool3d(label.float(), _VOLUME)
            if (share >= 0.5).sum() >= 8:
                kept.append((group, *_finished(image[0], (share[0] >= 0.5).float())))
        _write(out, f"{task.name}-{part}", kept[: _MOST_VOLUMES[part]])


def _prepare(task: Task, data: Path, out: Path) -> None:
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
        _write(out, f"{task.name}-{part}", chosen)


def _write(out: Path, name: str, cases: list[tuple[str, Any, Any]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / f".{name}-{np.random.default_rng().integers(1 << 30)}.npz"
    np.savez_compressed(
        temporary,
        images=np.stack([image for _, image, _ in cases]),
        labels=np.stack([label for _, _, label in cases]),
        groups=np.array([group for group, _, _ in cases]),
    )
    temporary.replace(out / f"{name}.npz")


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
