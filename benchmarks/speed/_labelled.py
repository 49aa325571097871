"""Scores of labelled features: LogME, LEEP, H-score, and all from one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.speed import _published
from benchmarks.speed._timing import Ratio, compare
from skte.estimators import GBC, LEEP, HScore, LogME, TransRate
from skte.features import FeatureBlock

MOMENT_SCORES = {
    "logme": (LogME(), _published.logme),
    "gbc": (GBC(), _published.gbc),
    "transrate": (TransRate(), _published.transrate),
    "h_score": (HScore(), _published.h_score),
}


def ratios(smoke: bool) -> Iterator[Ratio]:
    many, more = (2_000, 5_000) if smoke else (100_000, 1_000_000)
    rounds = 1 if smoke else 5
    X, y = problem(many, 128, 5)
    yield compare(
        f"LogME, n={many} d=128 5 classes",
        lambda: LogME().fit(FeatureBlock(X, y)).score_,
        lambda: _published.logme(X, y),
        _relative,
        rounds=rounds,
    )
    X, y = problem(more, 64, 4)
    P = np.exp(X - X.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    yield compare(
        f"LEEP, n={more} d=64 4 classes",
        lambda: LEEP().score(P, y),
        lambda: _published.leep(P, y),
        _relative,
        rounds=min(rounds, 3),
    )
    yield compare(
        f"H-score, n={more} d=64 4 classes",
        lambda: HScore().score(X, y),
        lambda: _published.h_score(X, y),
        _relative,
        rounds=rounds,
    )
    X, y = problem(many, 64, 4)
    yield compare(
        f"four moment scores together, n={many} d=64 4 classes",
        lambda: _ours(X, y),
        lambda: [published(X, y) for _, published in MOMENT_SCORES.values()],
        lambda a, b: max(map(_relative, a, b)),
        rounds=rounds,
    )


def problem(n: int, d: int, n_classes: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    X = rng.normal(size=(n, d))
    X += 0.5 * np.random.default_rng(1).normal(size=(n_classes, d))[y]
    return X, y


def _ours(X: Any, y: Any) -> list[float]:
    block = FeatureBlock(X, y)
    return [estimator.fit(block).score_ for estimator, _ in MOMENT_SCORES.values()]


def _relative(a: float, b: float) -> float:
    return abs(a - b) / abs(b)
