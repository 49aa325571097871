"""The search that RCFV came from: what a score may be made of, chosen leaving targets out.

Candidates are a variety, a consistency, or the sum of one of each; each is a mean over
layers or of the finest layer. For each target the candidate is chosen that has the best
mean tau on the *other* targets, over several numbers of labelled cases.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.special import entr

from benchmarks.evidence._judge import Target, Verdict, judge, last_if_missing, tau
from benchmarks.evidence._protocol import Model, Study
from benchmarks.evidence._scores import load_features
from skte.estimators import CCFV, RCFV
from skte.features import FeatureSet

__all__ = ["Choice", "Search", "candidates", "choose", "terms"]

Terms = Mapping[str, Sequence[Sequence[float | None]]]

VARIETIES = ("F_v", "rank, unit sphere", "rank, raw")
CONSISTENCIES = (
    "1 / C_cons",
    "B / W, unit sphere",
    "B / W, raw",
    "spread / W, unit sphere",
    "spread / W, raw",
)
REDUCTIONS = ("mean", "last")
SIZES = (3, 5, 10)


@dataclass(frozen=True)
class Choice:
    """What the other targets chose for one, and how it did there."""

    target: str
    candidate: str
    held_out: Verdict


@dataclass(frozen=True)
class Search:
    """What was chosen.

    Attributes
    ----------
    choices : list of Choice
        One a target.
    final : str
        The best on all targets.
    taus : mapping
        Mean tau of each candidate over targets and numbers of cases.
    """

    choices: list[Choice]
    final: str
    taus: Mapping[str, float]


def terms(study: Study, target: str, out: Path, n_jobs: int) -> dict[str, Any]:
    """Logarithm of every term, for each number of cases, model and layer; None if collapsed."""
    bank = study.bank(target)
    sizes = sorted({*SIZES, study.n_tune_cases, study.n_rank_cases})
    sizes = [n for n in sizes if n <= study.n_rank_cases]
    rows = Parallel(n_jobs=n_jobs)(
        delayed(_of_model)(model, target, out, n) for n in sizes for model in bank
    )
    names = list(rows[0])
    return {
        str(n): {name: [row[name] for row in rows[i * len(bank) :][: len(bank)]] for name in names}
        for i, n in enumerate(sizes)
    }


def candidates(found: Terms) -> dict[str, list[float | None]]:
    """Scores of a target's bank by each candidate."""
    parts = [
        [(f"{name}, {how}", _reduced(found[name], how)) for name in names for how in REDUCTIONS]
        for names in (VARIETIES, CONSISTENCIES)
    ]
    result = dict(itertools.chain(*parts))
    for (variety, v), (consistency, c) in itertools.product(*parts):
        result[f"{variety} + {consistency}"] = v + c
    return {
        name: [round(float(value), 5) if np.isfinite(value) else None for value in values]
        for name, values in result.items()
    }


def choose(targets: Sequence[Target], found: Sequence[Mapping[str, Terms]]) -> Search:
    """Choose for each target on the others, and for a target yet to come on all.

    What is held out is the tau at the number of cases that fine-tuning has.
    """
    taus: dict[str, list[list[float]]] = {}
    for target, by_size in zip(targets, found, strict=True):
        for terms_at in by_size.values():
            for name, scores in candidates(terms_at).items():
                own = taus.setdefault(name, [])
                if not own or len(own[-1]) == len(by_size):
                    own.append([])
                own[-1].append(tau(target.performance, last_if_missing(scores)))
    means = {name: np.mean(rows, axis=1) for name, rows in taus.items()}
    chosen = []
    for i, (target, by_size) in enumerate(zip(targets, found, strict=True)):
        best = max(means, key=lambda name: float(np.delete(means[name], i).mean()))
        size = str(target.n_tune_cases)
        held = judge(target, candidates(by_size[size])[best])
        chosen.append(Choice(target.name, best, held))
    final = max(means, key=lambda name: float(means[name].mean()))
    return Search(chosen, final, {name: float(rows.mean()) for name, rows in means.items()})


def _of_model(model: Model, target: str, out: Path, n_cases: int) -> dict[str, Any]:
    features = load_features(out, target, model.name)[:n_cases]
    sphere = _on_sphere(features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ccfv = CCFV().fit(features).layer_details_
        by_place = {
            where: RCFV().fit(one).layer_details_
            for where, one in (("raw", features), ("unit sphere", sphere))
        }
    with np.errstate(divide="ignore"):
        found: dict[str, NDArray[np.float64]] = {
            "F_v": np.log([np.mean(one["variety"]) for one in ccfv]),
            "1 / C_cons": -np.log([sum(one["consistency"].values()) for one in ccfv]),
            "rank, unit sphere": np.log([_rank(sphere, name) for name in sphere.layer_names]),
            "rank, raw": np.log([_rank(features, name) for name in features.layer_names]),
        }
        for where, details in by_place.items():
            W, B = (
                np.array([_mean_log(one[part], 0.01 * one["spread"]) for one in details])
                for part in ("within", "between")
            )
            found[f"B / W, {where}"] = B - W
            found[f"spread / W, {where}"] = np.log([one["spread"] for one in details]) - W
    finest = next(iter(features)).layers[features.layer_names[-1]]
    plain = {
        name: [round(float(value), 5) if np.isfinite(value) else None for value in values]
        for name, values in found.items()
    }
    return {**plain, "channels": [float(finest.X.shape[1])]}


def _on_sphere(features: FeatureSet) -> FeatureSet:
    def unit(X: NDArray[Any]) -> NDArray[Any]:
        return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-30)

    return FeatureSet(
        replace(
            case,
            layers={
                name: replace(one, X=unit(one.X), X_case=unit(one.X_case))
                for name, one in case.layers.items()
            },
        )
        for case in features
    )


def _rank(features: FeatureSet, layer: str) -> float:
    """Effective rank of the whole-case features as they come."""
    X = np.concatenate([case.layers[layer].X_case for case in features]).astype(float)
    variances = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2
    total = variances.sum()
    return float(np.exp(entr(variances / total).sum())) if total > 0 else 0.0


def _mean_log(values: Mapping[Any, float], floor: float) -> float:
    return float(np.mean([np.log(max(value, floor, 1e-300)) for value in values.values()]))


def _reduced(values: Sequence[Sequence[float | None]], how: str) -> NDArray[np.float64]:
    """Over layers, of which models have different numbers; NaN where one collapsed."""
    rows = [np.array(row, dtype=float) for row in values]
    return np.array([row.mean() if how == "mean" else row[-1] for row in rows])
