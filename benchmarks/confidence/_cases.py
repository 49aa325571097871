"""Random cases with a known law, so that scores of very many of them can be had."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from skte.features import CaseFeatures, FeatureSet, LayerSample

__all__ = ["draw_bank", "draw_cases"]

_CLASSES = 3
_CHANNELS = 6


def draw_cases(
    n_cases: int, seed: int, *, model: float = 0, n_rows: int = 45, heavy: bool = False
) -> FeatureSet:
    """Cases of one model.

    Voxels of a case share displacements of each class and a spread of the features, both
    skewed, and with `heavy` tails some cases are far from all others. Cases also differ in
    the shares of their classes. Models differ in how far classes are apart and how much
    cases differ; they see the same cases.
    """
    shape, scale, width = (1.5, 0.4, 0.35) if heavy else (4.0, 0.15, 0.2)
    laws = np.random.default_rng(12345)
    centres = laws.normal(size=(_CLASSES, _CHANNELS)) * (1.6 + 0.15 * model)
    mixing = laws.normal(size=(_CHANNELS, _CHANNELS)) / np.sqrt(_CHANNELS)
    mixing = np.eye(_CHANNELS) + (0.3 + 0.1 * model) * mixing
    head = laws.normal(size=(_CHANNELS, 4)) * 0.6
    cases = []
    for i, child in enumerate(np.random.SeedSequence(seed).spawn(n_cases)):
        rng = np.random.default_rng(child)
        spread = np.exp(rng.normal(0.0, width))
        shift = rng.normal(size=(_CLASSES, _CHANNELS)) * rng.gamma(shape, scale)
        shares = rng.dirichlet([6.0, 4.0, 4.0])
        y = np.sort(rng.choice(_CLASSES, n_rows, p=shares))
        y[:6] = np.repeat(np.arange(_CLASSES), 2)  # every case has every class
        whole = rng.choice(_CLASSES, 40, p=[0.7, 0.2, 0.1])
        noise = rng.normal(size=(n_rows + 40, _CHANNELS)) * spread
        seen = np.concatenate([y, whole])
        X = (centres[seen] + shift[seen] * (1 + 0.2 * model) + noise) @ mixing + 1.0
        posterior = LayerSample(softmax(X[:n_rows] @ head, axis=1), y, np.zeros((0, 4)))
        sample = LayerSample(X[:n_rows], y, X[n_rows:])
        cases.append(CaseFeatures(f"case{i}", {"up": sample}, posterior))
    return FeatureSet(cases, name=f"model{model}")


def draw_bank(n_cases: int, seed: int, n_models: int, *, heavy: bool = False) -> list[FeatureSet]:
    """The same cases, seen by several models."""
    return [draw_cases(n_cases, seed, model=m, heavy=heavy) for m in range(n_models)]
