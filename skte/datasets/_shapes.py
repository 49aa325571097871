"""Geometry of phantoms: smooth functions that are positive inside a structure.

Coordinates run from -1 to 1 along every axis (0 along an axis of one voxel), so that
shapes scale with the volume. Levels grow by about the distance from the surface, so
that dividing by a voxel's edge gives partial volumes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["ellipsoid", "lobes", "make_grid", "sheet", "shells", "smooth_field", "tube"]

Grid = NDArray[np.float64]
Level = NDArray[np.float64]


def make_grid(size: tuple[int, int, int]) -> Grid:
    """Coordinates of the voxels: shape (3, x, y, z)."""
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in size]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


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
