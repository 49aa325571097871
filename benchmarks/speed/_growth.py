"""How the time grows: the slope of log time over log size, between two sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed._labelled import MOMENT_SCORES, problem
from benchmarks.speed._pairs import cases
from skte.estimators import leep_score
from skte.estimators._ccfv import mean_pair_energy
from skte.estimators._consistency import Gaussians, pairwise_wasserstein
from skte.features import FeatureBlock


def exponents(smoke: bool) -> list[dict[str, Any]]:
    s = 8 if smoke else 1
    return [
        _row("W2, cases N", _w2_cases, 40 // s, 160 // s, smoke),
        _row("W2, voxels n < d", _w2_voxels, 32 // s, 128 // s, smoke),
        _row("W2, channels d < n", _w2_channels, 32 // s, 128 // s, smoke),
        _row("energy, voxels L", _energy, 1500 // s, 6000 // s, smoke),
        _row("moment scores, voxels n", _moments_n, 25_000 // s, 400_000 // s, smoke),
        _row("moment scores, channels d", _moments_d, 64 // s, 256 // s, smoke),
        _row("moment scores, classes", _moments_classes, 4, 64, smoke),
        _row("LEEP, voxels n", _leep, 50_000 // s, 800_000 // s, smoke),
    ]


def _row(
    name: str, prepare: Callable[[int], Callable[[], Any]], small: int, large: int, smoke: bool
) -> dict[str, Any]:
    times = []
    for size in (small, large):
        run = prepare(size)
        best = []
        for _ in range(1 if smoke else 5):
            begun = time.process_time()
            run()
            best.append(time.process_time() - begun)
        times.append(float(np.median(best)))
    slope = np.log(max(times[1], 1e-9) / max(times[0], 1e-9)) / np.log(large / small)
    return {"of": name, "from": small, "to": large, "exponent": round(float(slope), 2)}


def _w2_cases(n_cases: int) -> Callable[[], Any]:
    samples = cases(48, 60, 1, n_cases)
    pairs = np.stack(np.triu_indices(n_cases, 1), axis=1)
    return lambda: pairwise_wasserstein(Gaussians.from_samples(samples), pairs)


def _w2_voxels(n: int) -> Callable[[], Any]:
    samples = cases(256, n, 1, 16)
    pairs = np.stack(np.triu_indices(16, 1), axis=1)
    return lambda: pairwise_wasserstein(Gaussians.from_samples(samples), pairs)


def _w2_channels(d: int) -> Callable[[], Any]:
    samples = cases(d, 256, 1, 16)
    pairs = np.stack(np.triu_indices(16, 1), axis=1)
    return lambda: pairwise_wasserstein(Gaussians.from_samples(samples), pairs)


def _energy(n: int) -> Callable[[], Any]:
    X = np.random.default_rng(0).normal(size=(n, 64))
    return lambda: mean_pair_energy(X, s=1.0, min_distance=0.01)


def _moment_scores(X: Any, y: Any) -> None:
    block = FeatureBlock(X, y)
    for estimator, _ in MOMENT_SCORES.values():
        estimator.fit(block)


def _moments_n(n: int) -> Callable[[], Any]:
    X, y = problem(n, 64, 4)
    return lambda: _moment_scores(X, y)


def _moments_d(d: int) -> Callable[[], Any]:
    X, y = problem(20_000, d, 4)
    return lambda: _moment_scores(X, y)


def _moments_classes(n_classes: int) -> Callable[[], Any]:
    X, y = problem(50_000, 64, n_classes)
    return lambda: _moment_scores(X, y)


def _leep(n: int) -> Callable[[], Any]:
    P = np.random.default_rng(0).dirichlet(np.ones(16), n)
    y = np.random.default_rng(1).integers(0, 4, n)
    return lambda: leep_score(P, y)
