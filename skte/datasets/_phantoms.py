"""Synthetic tissue tasks: images with labels for demos and tests, without any file.

Coordinates run from -1 to 1 along every axis (0 along an axis of one voxel), so that shapes
scale with the volume. Levels are positive inside a structure and grow by about the distance
from its surface, so that dividing by the edge of a voxel gives partial volumes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte.datasets._case import CaseList
from skte.exceptions import DatasetError

Grid = NDArray[np.float64]
Level = NDArray[np.float64]
# Redraws until every class is there, and the share of a case that a class must fill.
_ATTEMPTS, _SHARE = 50, 0.004
_N_DISTRACTORS = 4


def ellipsoid(rng: np.random.Generator, grid: Grid, radius: float, reach: float = 0.5) -> Level:
    """Return a turned ellipsoid of about this radius; its centre lies within `reach`."""
    offset = grid - _column(_point(rng, grid, reach))
    axes = radius * rng.uniform(0.75, 1.3, 3)
    turned = np.tensordot(_rotation(rng, grid), offset, axes=1)
    level: Level = radius * (1 - np.sqrt(((turned / _column(axes)) ** 2).sum(axis=0)))
    return level


def shells(rng: np.random.Generator, grid: Grid, n_layers: int, outer: float = 0.62) -> list[Level]:
    """Nested layers of one ellipsoid, from the wall inwards; with one layer, a ring."""
    body = ellipsoid(rng, grid, outer, reach=0.25)
    thickness = outer / (n_layers + 1) * rng.uniform(0.8, 1.1)
    depths = thickness * np.arange(n_layers + 1)
    return [np.minimum(body - a, b - body) for a, b in pairwise(depths)]


def lobes(
    rng: np.random.Generator, grid: Grid, n_lobes: int, radius: float, reach: float = 0.2
) -> list[Level]:
    """Blobs that touch, each divided from the others where theirs begins."""
    center = _point(rng, grid, reach)
    turn = rng.uniform(0, 2 * np.pi)
    bodies = []
    for i in range(n_lobes):
        angle = turn + 2 * np.pi * i / n_lobes
        place = center + 0.75 * radius * np.array([np.cos(angle), np.sin(angle), 0])
        place += 0.3 * radius * rng.uniform(-1, 1, 3) * _extended(grid)
        # Two spheres make a lobe that is no ellipsoid.
        knob = place + 0.6 * radius * _direction(rng, grid)
        bodies.append(np.maximum(_ball(grid, place, radius), _ball(grid, knob, 0.65 * radius)))
    return [
        np.minimum(body, body - np.max([o for o in bodies if o is not body], axis=0))
        for body in bodies
    ]


def tube(rng: np.random.Generator, grid: Grid, radius: float) -> Level:
    """Return a curved tube across the volume."""
    t = np.linspace(-1, 1, 60)
    along, across = _direction(rng, grid), _direction(rng, grid)
    phase, turns = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.0)
    bend = 0.3 * np.sin(np.pi * turns * t + phase)
    points = _point(rng, grid, 0.35) + 1.3 * t[:, None] * along + bend[:, None] * across
    # Squared distance by one matrix product a point would cancel; 60 passes are cheap.
    nearest = np.full(grid.shape[1:], np.inf)
    for point in points:
        np.minimum(nearest, ((grid - _column(point)) ** 2).sum(axis=0), out=nearest)
    level: Level = radius - np.sqrt(nearest)
    return level


def sheet(rng: np.random.Generator, grid: Grid, thickness: float) -> Level:
    """Return a waving sheet across the volume."""
    turned = np.tensordot(_rotation(rng, grid), grid, axes=1)
    wave = 0.18 * sum(
        np.sin(rng.uniform(2, 4) * turned[axis] + rng.uniform(0, 2 * np.pi)) for axis in (1, 2)
    )
    height = turned[0] - rng.uniform(-0.45, 0.45) - wave
    level: Level = thickness / 2 - np.abs(height)
    return level


def smooth_field(
    rng: np.random.Generator, grid: Grid, low: float, high: float, n_waves: int = 6
) -> Level:
    """Return a field of unit variance: plane waves of `low` to `high` radians a unit."""
    field = np.zeros(grid.shape[1:])
    for _ in range(n_waves):
        k = rng.uniform(low, high) * _direction(rng, grid)
        field += np.cos(np.tensordot(k, grid, axes=1) + rng.uniform(0, 2 * np.pi))
    field *= np.sqrt(2 / n_waves)
    return field


def _ball(grid: Grid, center: NDArray[np.float64], radius: float) -> Level:
    level: Level = radius - np.sqrt(((grid - _column(center)) ** 2).sum(axis=0))
    return level


def _extended(grid: Grid) -> NDArray[np.bool_]:
    """Axes of more than one voxel."""
    return np.array(grid.shape[1:]) > 1


def _point(rng: np.random.Generator, grid: Grid, reach: float) -> NDArray[np.float64]:
    return rng.uniform(-reach, reach, 3) * _extended(grid)


def _direction(rng: np.random.Generator, grid: Grid) -> NDArray[np.float64]:
    vector = rng.normal(size=3) * _extended(grid)
    return vector / np.linalg.norm(vector)


def _rotation(rng: np.random.Generator, grid: Grid) -> NDArray[np.float64]:
    """Return a random turn, within the plane where the volume is flat."""
    matrix = rng.normal(size=(3, 3))
    if not _extended(grid)[2]:
        matrix[2, :2] = matrix[:2, 2] = 0
    return np.linalg.qr(matrix)[0]


def _column(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.reshape(3, 1, 1, 1)


Shape = Callable[[np.random.Generator, Grid, int], list[Level]]


@dataclass(frozen=True)
class Tissue:
    """How the structures of a task look."""

    shape: Shape  # level of each foreground class
    distractor: Shape  # as bright as a class, of another geometry
    contrast: float  # to the background, times 0.7 to 1.4 from first class to last
    texture: float = 0.0  # strength of a pattern, finer by class


def _ellipsoids(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    """Several a class, small enough to fit a training patch."""
    each = 4 if n == 1 else 3
    return [
        np.max([ellipsoid(rng, grid, 0.3, reach=0.7) for _ in range(each)], axis=0)
        for _ in range(n)
    ]


def _lobes(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    if n == 1:  # two pairs, small enough to fit a training patch
        return [np.max([lobes(rng, grid, 2, 0.28, reach=0.6) for _ in range(2)], axis=(0, 1))]
    return lobes(rng, grid, n, 0.36 if n < 3 else 0.32)


def _tubes(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    radii = np.linspace(0.17, 0.26, n) if n > 1 else [0.22]
    return [tube(rng, grid, radius) for radius in radii]


def _each(draw: Callable[..., Level], size: float, times: int = 1, **options: float) -> Shape:
    """Return a shape that draws a structure once or more often for each class."""
    return lambda rng, grid, n: [draw(rng, grid, size, **options) for _ in range(times * n)]


_PEBBLES = _each(ellipsoid, 0.15, times=2, reach=0.8)
TISSUES = {
    "ellipsoids": Tissue(_ellipsoids, _each(tube, 0.09), contrast=1.0),
    "lobes": Tissue(_lobes, _PEBBLES, contrast=1.1),
    "sheets": Tissue(_each(sheet, 0.26), _PEBBLES, contrast=-0.9),
    "shells": Tissue(shells, _each(ellipsoid, 0.22, reach=0.8), contrast=-1.0),
    "texture": Tissue(_ellipsoids, _PEBBLES, contrast=0.0, texture=0.9),
    "tubes": Tissue(_tubes, _PEBBLES, contrast=1.2),
}


#: Names of the tissue tasks that `make_phantoms` draws.
PHANTOM_TASKS: tuple[str, ...] = tuple(TISSUES)


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

    Every image has a varying background, a bias field, noise, a scale and offset of its own,
    and distractors: structures as bright as the classes but of another geometry.

    Parameters
    ----------
    n_cases : int, default=8
        Number of cases.
    task : str, default="ellipsoids"
        One of `PHANTOM_TASKS`: "ellipsoids", "lobes" (blobs that touch), "sheets" (waving),
        "shells" (rings, one in another), "texture" (told by a finer pattern alone) and
        "tubes" (curved vessels).
    size : sequence of int, default=(48, 48, 48)
        Voxels along x, y and z, at least 8 each; z = 1 gives 2-D images.
    n_classes : int, default=2
        Number of classes, background included.
    labels : sequence of int, optional
        Ids of the classes, background first; sets `n_classes`. Default 0, 1, ...
    n_channels : int, default=1
        Channels of the image, each with contrasts and noise of its own.
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
    _check_grid(size, spacing)
    affine = np.diag([*spacing, 1.0])
    ids = np.array(range(n_classes) if labels is None else labels, dtype=np.int64)
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in size]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))  # (3, x, y, z)
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
    return np.asarray(rng.uniform(50, 200) * noisy + rng.uniform(-50, 50), dtype=np.float32)


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


def _check_grid(size: Sequence[int], spacing: Sequence[float]) -> None:
    if len(size) != 3 or min(size[:2]) < 8 or (size[2] < 8 and size[2] != 1):
        raise DatasetError(
            f"make_phantoms: size={tuple(size)} must be three edges of at least 8 voxels; "
            "the last may be 1 for 2-D images."
        )
    if len(spacing) != 3 or not all(0 < mm < np.inf for mm in spacing):
        raise DatasetError(
            f"make_phantoms: spacing={tuple(spacing)} must be three positive sizes in mm."
        )
