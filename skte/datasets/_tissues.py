"""Tissue tasks of the phantoms: which shapes, among which others, how bright."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skte.datasets._shapes import Grid, Level, ellipsoid, lobes, sheet, shells, tube

__all__ = ["TISSUES", "Tissue"]

Shape = Callable[[np.random.Generator, Grid, int], list[Level]]


@dataclass(frozen=True)
class Tissue:
    """How the structures of a task look.

    `shape` gives the level of each foreground class. Classes differ from background by
    `contrast` times 0.7 to 1.4, first class to last. `distractor` has the contrast of a
    class in another geometry. `texture` is the strength of a pattern, finer by class.
    """

    shape: Shape
    distractor: Shape
    contrast: float
    texture: float = 0.0


def _ellipsoids(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    """Several a class, small enough to fit a training patch."""
    each = 4 if n == 1 else 3
    return [
        np.max([ellipsoid(rng, grid, 0.3, reach=0.7) for _ in range(each)], axis=0)
        for _ in range(n)
    ]


def _pebbles(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    return [ellipsoid(rng, grid, 0.15, reach=0.8) for _ in range(2 * n)]


def _solids(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    return [ellipsoid(rng, grid, 0.22, reach=0.8) for _ in range(n)]


def _lobes(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    if n == 1:  # two pairs, small enough to fit a training patch
        return [np.max([lobes(rng, grid, 2, 0.28, reach=0.6) for _ in range(2)], axis=(0, 1))]
    return lobes(rng, grid, n, 0.36 if n < 3 else 0.32)


def _tubes(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    radii = np.linspace(0.17, 0.26, n) if n > 1 else [0.22]
    return [tube(rng, grid, radius) for radius in radii]


def _threads(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    return [tube(rng, grid, 0.09) for _ in range(n)]


def _sheets(rng: np.random.Generator, grid: Grid, n: int) -> list[Level]:
    return [sheet(rng, grid, 0.26) for _ in range(n)]


TISSUES = {
    "ellipsoids": Tissue(_ellipsoids, _threads, contrast=1.0),
    "lobes": Tissue(_lobes, _pebbles, contrast=1.1),
    "sheets": Tissue(_sheets, _pebbles, contrast=-0.9),
    "shells": Tissue(shells, _solids, contrast=-1.0),
    "texture": Tissue(_ellipsoids, _pebbles, contrast=0.0, texture=0.9),
    "tubes": Tissue(_tubes, _pebbles, contrast=1.2),
}
