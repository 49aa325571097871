"""Synthetic tissue tasks: images with labels for demos and tests, without any file."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte.datasets._case_list import CaseList
from skte.datasets._shapes import Grid, Level, make_grid, smooth_field
from skte.datasets._tissues import TISSUES, Tissue
from skte.exceptions import DatasetError

__all__ = ["PHANTOM_TASKS", "make_phantoms"]

#: Names of the tissue tasks that `make_phantoms` draws.
PHANTOM_TASKS: tuple[str, ...] = tuple(TISSUES)

# Redraws until every class is there, and the share of a case that a class must fill.
_ATTEMPTS, _SHARE = 50, 0.004
_N_DISTRACTORS = 4


def make_phantoms(
    n_cases: int = 8,
    *,
    task: str = "ellipsoids",
    size: Sequence[int] = (48, 48, 48),
    n_classes: int = 2,
    labels: Sequence[int] | None = None,
    n_channels: int = 1,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    noise: float = 0.15,
    random_state: int = 0,
) -> CaseList:
    """Draw synthetic cases of one tissue task.

    Every image has a varying background, a smooth bias field, noise, a scale and offset
    of its own, and distractors: structures as bright as the classes but of another
    geometry. So shape and surroundings must be learnt; a threshold does not do.

    Parameters
    ----------
    n_cases : int, default=8
        Number of cases.
    task : str, default="ellipsoids"
        One of `PHANTOM_TASKS`: "ellipsoids" (bright, among thin threads), "lobes" (bright
        blobs that touch, among pebbles), "sheets" (dark and waving), "shells" (dark rings, one
        in another where there are several classes, beside solid bodies), "texture" (as
        bright as their surroundings, told by a finer pattern) and "tubes" (bright curved
        vessels).
    size : sequence of int, default=(48, 48, 48)
        Voxels along x, y and z, at least 8 each; z = 1 gives 2-D images.
    n_classes : int, default=2
        Number of classes, background included.
    labels : sequence of int, optional
        Ids of the classes, background first, ``(0, 2, 7)`` for instance. Default 0, 1,
        ...; sets `n_classes`.
    n_channels : int, default=1
        Channels of the image. All show the same anatomy, each with contrasts and noise
        of its own.
    spacing : sequence of float, default=(1.0, 1.0, 1.0)
        Size of a voxel in mm.
    noise : float, default=0.15
        Standard deviation of the noise, relative to the contrast of a class.
    random_state : int, default=0
        Seed. Case i depends on seed, task and i, not on `n_cases`.

    Returns
    -------
    CaseList
        Subjects in memory, with float32 ``image``, ``label``, and ``case_id`` such as
        ``"tubes_003"``. Every case holds every class.

    Raises
    ------
    DatasetError
        If a parameter is out of its range, or `size` too small for the classes.

    Examples
    --------
    >>> from skte.datasets import PHANTOM_TASKS, make_phantoms
    >>> PHANTOM_TASKS
    ('ellipsoids', 'lobes', 'sheets', 'shells', 'texture', 'tubes')
    >>> case = make_phantoms(1, task="tubes", size=(32, 32, 32))[0]
    >>> case["case_id"], case["image"].shape
    ('tubes_000', (1, 32, 32, 32))
    """
    _check_parameters(n_cases, task, n_classes, labels, n_channels, noise, random_state)
    x, y, z = _check_size(size)
    affine = np.diag([*_check_spacing(spacing), 1.0])
    ids = np.array(range(n_classes) if labels is None else labels, dtype=np.int64)
    grid = make_grid((x, y, z))
    subjects = []
    for index in range(n_cases):
        rng = np.random.default_rng([random_state, zlib.crc32(task.encode()), index])
        anatomy = _draw_anatomy(rng, task, grid, len(ids) - 1)
        image = np.stack(
            [_render(rng, TISSUES[task], grid, anatomy, c, noise) for c in range(n_channels)]
        )
        label = ids[anatomy.classes][None]
        subjects.append(
            tio.Subject(
                image=tio.ScalarImage(tensor=torch.from_numpy(image), affine=affine),
                label=tio.LabelMap(tensor=torch.from_numpy(label), affine=affine),
                case_id=f"{task}_{index:03d}",
                ignore_label=None,
                label_names={
                    i: f"{task} {k}" if k else "background" for k, i in enumerate(ids.tolist())
                },
            )
        )
    return CaseList(subjects)


@dataclass(frozen=True, eq=False)
class _Anatomy:
    """Soft masks (0 to 1) of the classes and the distractors, and the class indices."""

    masks: NDArray[np.float64]
    distractors: NDArray[np.float64]
    classes: NDArray[np.intp]


def _draw_anatomy(rng: np.random.Generator, task: str, grid: Grid, n: int) -> _Anatomy:
    edge = 2 / (max(grid.shape[1:]) - 1)
    n_wanted = max(4, round(_SHARE * grid[0].size))
    for _ in range(_ATTEMPTS):
        levels = TISSUES[task].shape(rng, grid, n)
        # Where two structures overlap, the one that lies deeper is what is seen.
        classes = np.argmax([np.zeros_like(grid[0]), *levels], axis=0)
        if np.bincount(classes.ravel(), minlength=n + 1).min() >= n_wanted:
            break
    else:
        raise DatasetError(
            f"make_phantoms: size={grid.shape[1:]} is too small for {n + 1} classes of task "
            f"{task!r}: take a larger size or fewer classes."
        )
    masks = np.clip(0.5 + np.array(levels) / edge, 0, 1)
    masks *= np.argmax(levels, axis=0) == np.arange(n).reshape(-1, 1, 1, 1)
    # Distractors, cut away where the classes are: labels stay true.
    others = TISSUES[task].distractor(rng, grid, _N_DISTRACTORS)
    distractors = np.clip(0.5 + np.array(others) / edge, 0, 1) * (1 - masks.sum(axis=0))
    return _Anatomy(masks, distractors, classes)


def _render(
    rng: np.random.Generator,
    tissue: Tissue,
    grid: Grid,
    anatomy: _Anatomy,
    channel: int,
    noise: float,
) -> NDArray[np.float32]:
    """One channel of the image."""
    n = len(anatomy.masks)
    spread = np.linspace(0.7, 1.4, n) if n > 1 else np.ones(1)
    contrasts = tissue.contrast * spread * _modality(channel, n)
    values = 1.5 + 0.2 * smooth_field(rng, grid, 1, 4)
    if tissue.texture:
        values += tissue.texture * _stripes(rng, grid, anatomy.masks)
    for mask, contrast in zip(anatomy.masks, contrasts, strict=True):
        values += contrast * mask
    for mask in anatomy.distractors:
        values += mask * (rng.choice(contrasts) if tissue.contrast else 1.0)
    bias = np.exp(0.15 * smooth_field(rng, grid, 0.5, 1.5, n_waves=3))
    noisy = bias * values + noise * rng.normal(size=values.shape)
    image: NDArray[np.float32] = (rng.uniform(50, 200) * noisy + rng.uniform(-50, 50)).astype(
        np.float32
    )
    return image


def _modality(channel: int, n: int) -> NDArray[np.float64]:
    """How a channel shows the classes: the same for all cases, as a modality does."""
    if channel == 0:
        return np.ones(n)
    rng = np.random.default_rng(channel)
    factors: NDArray[np.float64] = rng.uniform(0.4, 1.1, n) * rng.choice([-1.0, 1.0], n)
    return factors


def _stripes(rng: np.random.Generator, grid: Grid, masks: NDArray[np.float64]) -> Level:
    """Return a pattern of one strength everywhere, coarse in the background, finer by class."""
    edge = 2 / (max(grid.shape[1:]) - 1)
    outside = 1 - masks.sum(axis=0)
    pattern: Level = np.zeros(outside.shape)
    for mask, period in zip(
        [outside, *masks], [14, *np.linspace(4.5, 2.8, len(masks))], strict=True
    ):
        wave_number = 2 * np.pi / (period * edge)
        pattern += mask * smooth_field(rng, grid, 0.9 * wave_number, 1.1 * wave_number)
    return pattern


def _check_parameters(
    n_cases: int,
    task: str,
    n_classes: int,
    labels: Sequence[int] | None,
    n_channels: int,
    noise: float,
    random_state: int,
) -> None:
    problems = []
    if task not in TISSUES:
        problems.append(f"task={task!r} is not one of {PHANTOM_TASKS}")
    counts = {
        "n_cases": (n_cases, 1),
        "n_channels": (n_channels, 1),
        "n_classes": (n_classes, 2),
        "random_state": (random_state, 0),
    }
    problems += [
        f"{name}={value!r} must be an integer of at least {lowest}"
        for name, (value, lowest) in counts.items()
        if not isinstance(value, (int, np.integer)) or value < lowest
    ]
    if labels is not None:
        ids = list(labels)
        if len(ids) < 2 or len(set(ids)) < len(ids) or any(i != int(i) or i < 0 for i in ids):
            problems.append(f"labels={labels!r} must be two or more distinct non-negative integers")
        if n_classes not in (2, len(ids)):
            problems.append(f"n_classes={n_classes} does not agree with labels={labels!r}")
    if not noise >= 0:
        problems.append(f"noise={noise!r} must be at least 0")
    if problems:
        raise DatasetError("make_phantoms: " + "; ".join(problems) + ".")


def _check_size(size: Sequence[int]) -> tuple[int, int, int]:
    edges = [int(n) for n in size]
    if len(edges) != 3 or min(edges[:2]) < 8 or (edges[2] < 8 and edges[2] != 1):
        raise DatasetError(
            f"make_phantoms: size={tuple(size)} must be three edges of at least 8 voxels; "
            "the last may be 1 for 2-D images."
        )
    return edges[0], edges[1], edges[2]


def _check_spacing(spacing: Sequence[float]) -> list[float]:
    edges = [float(mm) for mm in spacing]
    if len(edges) != 3 or not all(0 < mm < np.inf for mm in edges):
        raise DatasetError(
            f"make_phantoms: spacing={tuple(spacing)} must be three positive sizes in mm."
        )
    return edges
