"""CC-FV's two terms: distances between cases, energy of voxels."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.speed import _published
from benchmarks.speed._timing import Ratio, compare
from skte.estimators._ccfv import mean_pair_energy
from skte.estimators._consistency import Gaussians, pairwise_wasserstein

SIZES = ((64, 200), (128, 100), (320, 100))
N_CASES = 60
# Pairs that the slow side computes in a round; its time is scaled to all pairs.
N_TIMED = 60


def ratios(smoke: bool) -> Iterator[Ratio]:
    for d, n in ((16, 30),) if smoke else SIZES:
        for decay in (0, 1, 2):
            yield from _wasserstein(d, n, decay, 8 if smoke else N_CASES, 1 if smoke else 3)
    yield _energy(500 if smoke else 5000, 64, 1 if smoke else 7)


def cases(d: int, n: int, decay: int, n_cases: int, seed: int = 0) -> list[Any]:
    """Gaussian samples; eigenvalues of the covariance fall like ``k**-decay``.

    Deep features have decaying spectra.
    """
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** (-decay / 2)
    axes = [np.linalg.qr(rng.normal(size=(d, d)))[0] for _ in range(n_cases)]
    centres = 0.3 * rng.normal(size=(n_cases, d))
    return [(rng.normal(size=(n, d)) * scale) @ Q + c for Q, c in zip(axes, centres, strict=True)]


def _wasserstein(d: int, n: int, decay: int, n_cases: int, rounds: int) -> Iterator[Ratio]:
    samples = cases(d, n, decay, n_cases)
    means = [X.mean(axis=0) for X in samples]
    covariances = [np.cov(X, rowvar=False) for X in samples]
    pairs = np.stack(np.triu_indices(n_cases, k=1), axis=1)
    some = pairs[np.random.default_rng(0).permutation(len(pairs))[:N_TIMED]]
    some = some[np.lexsort(some.T[::-1])]
    positions = np.flatnonzero((pairs[:, None] == some).all(axis=2).any(axis=1))
    label = f"d={d} n={n} N={n_cases} spectrum k^-{decay}"

    def difference(ours: Any, theirs: Any) -> float:
        return float(np.abs(ours[positions] / theirs - 1).max())

    def against(name: str, theirs: Callable[[], Any]) -> Ratio:
        return compare(
            f"{name}, {label}",
            lambda: pairwise_wasserstein(Gaussians.from_samples(samples), pairs),
            theirs,
            difference,
            rounds=rounds,
            share=len(some) / len(pairs),
        )

    def published() -> Any:
        return _published.wasserstein(means, covariances, some)

    yield against("W2 sqrtm", published)
    if find_spec("ot") is not None:
        from ot.gaussian import bures_wasserstein_distance

        yield against(
            "W2 POT",
            lambda: np.array(
                [
                    bures_wasserstein_distance(means[i], means[j], covariances[i], covariances[j])
                    for i, j in some
                ]
            ),
        )


def _energy(n: int, d: int, rounds: int) -> Ratio:
    X = np.random.default_rng(0).normal(size=(n, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)

    def ours() -> float:
        return mean_pair_energy(X, s=1.0, min_distance=0.01).energy

    def theirs() -> float:
        return _published.energy(X)

    ratio = compare(
        f"energy, L={n} d={d}", ours, theirs, lambda a, b: abs(a / b - 1), rounds=rounds
    )
    peaks = []
    for run in (ours, theirs):
        tracemalloc.start()
        run()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return ratio.named(f"{ratio.case}, peak memory {peaks[0] / peaks[1]:.3f} of theirs")
