"""How often a race finds the winner of the full evaluation, and what it runs for that."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from skte.estimators import CCFV, GBC, LogME, TransferabilityEstimator
from skte.features import CaseFeatures, FeatureSet, LayerSample
from skte.selection._halving import outpaced, rung_sizes

__all__ = ["RACING", "SETTINGS", "race_bank", "races", "trade_off"]

#: What races are run with.
RACING: dict[str, TransferabilityEstimator] = {
    "CCFV": CCFV(),
    "GBC (log)": GBC(log=True),
    "LogME": LogME(),
}
#: Cases of the first rung, and how fast they grow.
SETTINGS = ((4, 1.5), (4, 2.0))
LEVELS = (0.6, 0.8, 0.9, 0.95, 0.99)
KINDS = [
    *(("both", level) for level in LEVELS),
    *(("confidence", level) for level in LEVELS),
    ("halving", None),
]
_CHANNELS = 6


def race_bank(n_cases: int, n_models: int, seed: int) -> list[FeatureSet]:
    """Models that see the same voxels through features of their own, more or less noisy."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, _CHANNELS)) * 1.6
    noise = rng.permutation(np.geomspace(0.3, 3.0, n_models))
    views = [rng.normal(size=(_CHANNELS, 8)) for _ in range(n_models)]
    cases: list[list[CaseFeatures]] = [[] for _ in range(n_models)]
    for i in range(n_cases):
        y = np.sort(rng.choice(3, 60, p=rng.dirichlet([6.0, 4.0, 4.0])))
        y[:6] = np.repeat(np.arange(3), 2)
        seen = np.concatenate([y, rng.choice(3, 40, p=[0.7, 0.2, 0.1])])
        shift = rng.normal(size=(3, _CHANNELS)) * rng.gamma(4.0, 0.15)
        Z = centres[seen] + shift[seen] + rng.normal(size=(100, _CHANNELS))
        for kept, view, scale in zip(cases, views, noise, strict=True):
            own = rng.normal(size=(3, 8)) * 0.3 * rng.gamma(4.0, 0.25)
            X = Z @ view + scale * (rng.normal(size=(100, 8)) + own[seen])
            kept.append(CaseFeatures(f"case{i}", {"up": LayerSample(X[:60], y, X[60:])}))
    return [FeatureSet(one) for one in cases]


def races(
    bank: Sequence[FeatureSet],
    estimator: TransferabilityEstimator,
    n_orders: int,
    seed: int,
    *,
    min_cases: int,
    factor: float,
) -> list[dict[str, Any]]:
    """Races over random orders of the cases, at every level: from one fit a model."""
    n_total = len(bank[0])
    sizes = rung_sizes(n_total, min_cases, factor)
    weights, index = _weights(n_total, sizes, n_orders, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = np.stack(
            [clone(estimator).fit(one).resample_cases(one, weights)["score"] for one in bank]
        )
    full = scores[:, 0]
    found = []
    for rungs in index:
        for kind, level in KINDS:
            found.append(_race(scores, rungs, sizes, full, kind, level, factor))
    return found


def _weights(
    n_total: int, sizes: Sequence[int], n_orders: int, seed: int
) -> tuple[NDArray[np.intp], list[list[slice]]]:
    """All cases; then, of each order and rung, its cases and these without each one."""
    rng = np.random.default_rng(seed)
    rows = [np.ones((1, n_total), dtype=np.intp)]
    index, start = [], 1
    for _ in range(n_orders):
        order, rungs = rng.permutation(n_total), []
        for size in sizes[:-1]:
            own = np.zeros((size + 1, n_total), dtype=np.intp)
            own[:, order[:size]] = 1
            own[np.arange(1, size + 1), order[:size]] = 0
            rows.append(own)
            rungs.append(slice(start, start + size + 1))
            start += size + 1
        index.append(rungs)
    return np.concatenate(rows), index


def _race(
    scores: NDArray[np.float64],
    rungs: Sequence[slice],
    sizes: Sequence[int],
    full: NDArray[np.float64],
    kind: str,
    level: float | None,
    factor: float,
) -> dict[str, Any]:
    """What `HalvingModelBankSelector` does, from scores at hand."""
    alive = np.arange(len(full))
    run, before = 0, 0
    for rung, size in zip(rungs, sizes[:-1], strict=True):
        run += len(alive) * (size - before)
        before = size
        own, without = scores[alive, rung.start], scores[alive, rung.start + 1 : rung.stop]
        dropped = np.zeros(len(alive), dtype=bool)
        if kind != "confidence":
            kept = max(1, math.ceil(len(alive) / factor))
            dropped[np.argsort(-own, kind="stable")[kept:]] = True
        if level is not None:
            confidence = 1 - (1 - level) / (len(sizes) - 1)
            dropped |= outpaced(
                own, without, n_total=sizes[-1], n_keep=1, confidence_level=confidence
            ).dropped
        alive = alive[~dropped]
        if len(alive) == 1:
            break
    else:
        run += len(alive) * (sizes[-1] - before)
    winner = alive[np.argmax(full[alive])]
    return {
        "kind": kind,
        "level": level,
        "share": run / (len(full) * sizes[-1]),
        "same": bool(winner == full.argmax()),
        "place": int((full > full[winner]).sum()) + 1,
    }


def trade_off(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each level costs and loses."""
    table = []
    for kind, level in KINDS:
        own = [race for race in found if (race["kind"], race["level"]) == (kind, level)]
        shares = np.array([race["share"] for race in own])
        same = np.array([race["same"] for race in own])
        table.append(
            {
                "elimination": kind,
                "confidence_level": level,
                "races": len(own),
                "share_of_forward_passes": round(float(shares.mean()), 4),
                "share_90th_percentile": round(float(np.quantile(shares, 0.9)), 4),
                "same_winner": round(float(same.mean()), 4),
                "mean_place_of_winner": round(float(np.mean([r["place"] for r in own])), 3),
            }
        )
    return table
