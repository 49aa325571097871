"""Do intervals hold what they promise? Scores of few random cases, and of very many."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.base import clone

from benchmarks.confidence._cases import draw_bank, draw_cases
from skte.estimators import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    NLEEP,
    PARC,
    RCFV,
    SFDA,
    HScore,
    LogME,
    RankMe,
    TransferabilityEstimator,
    TransRate,
)
from skte.features import CaseFeatures, FeatureSet, LayerSample

__all__ = ["ESTIMATORS", "coverage", "large_sample", "load_runs", "save_runs", "simulate"]

#: Those that look at pairs of voxels take as many at any number of cases.
ESTIMATORS: dict[str, TransferabilityEstimator] = {
    "CCFV": CCFV(),
    "RCFV": RCFV(),
    "LogME": LogME(),
    "GBC": GBC(),
    "GBC (log)": GBC(log=True),
    "TransRate": TransRate(),
    "HScore": HScore(),
    "HScore (Ledoit-Wolf)": HScore(shrinkage="ledoit-wolf"),
    "LEEP": LEEP(),
    "NCE": NCE(),
    "RankMe": RankMe(),
    "SFDA": SFDA(),
    "KNN": KNN(max_samples=300),
    "PARC": PARC(max_samples=300),
    "NLEEP": NLEEP(n_components_per_class=2, covariance="diag"),
}
# Cheap enough for true bootstrap draws.
BOOTSTRAPPED = ("CCFV", "RCFV", "GBC", "GBC (log)", "HScore", "LEEP", "NCE", "TransRate")
N_DRAWS = 200
LEVEL = 0.9
_PARTS = 10  # of the voxels, left out in turn

Arrays = dict[str, NDArray[np.float64]]


def large_sample(
    n_cases: int = 800, *, heavy: bool = False, names: Iterable[str] = ESTIMATORS
) -> dict[str, list[float]]:
    """Scores of very many cases, for both models."""
    truth: dict[str, list[float]] = {}
    for model in (0, 1):
        many = draw_cases(n_cases, 999_999, model=model, heavy=heavy)
        for name in names:
            estimator = ESTIMATORS[name]
            truth.setdefault(name, []).append(_many(estimator, many))
    return truth


def _many(estimator: TransferabilityEstimator, many: FeatureSet) -> float:
    if not isinstance(estimator, (KNN, PARC)):
        return float(clone(estimator).fit(many).score_)
    # The same number of voxels from ever more cases: the mean over many draws of 50.
    parts = [many[i : i + 50] for i in range(0, len(many), 50)]
    return float(np.mean([clone(estimator).fit(part).score_ for part in parts]))


def simulate(
    n_cases: int,
    seed: int,
    *,
    voxels: bool,
    bootstrap: bool,
    heavy: bool = False,
    names: Iterable[str] = ESTIMATORS,
) -> Arrays:
    """Scores of two models on the same random cases, with what resampling gives."""
    found: Arrays = {}
    leave_out = 1 - np.eye(n_cases, dtype=int)
    drawn = np.random.default_rng(seed).multinomial(n_cases, [1 / n_cases] * n_cases, N_DRAWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model, features in enumerate(draw_bank(n_cases, seed, 2, heavy=heavy)):
            for name in names:
                estimator = ESTIMATORS[name]
                fitted = clone(estimator).fit(features)
                found[f"{name}|{model}|score"] = np.array(fitted.score_)
                weights = leave_out
                if bootstrap and name in BOOTSTRAPPED:
                    weights = np.concatenate([leave_out, drawn])
                scores = fitted.resample_cases(features, weights)["score"]
                found[f"{name}|{model}|jackknife"] = scores[:n_cases]
                found[f"{name}|{model}|bootstrap"] = scores[n_cases:]
                if voxels and model == 0:
                    found[f"{name}|voxels"] = _without_voxels(estimator, features, seed)
    return found


def _without_voxels(
    estimator: TransferabilityEstimator, features: FeatureSet, seed: int
) -> NDArray[np.float64]:
    """Scores without a tenth of the voxels of every case, as if voxels were independent."""
    rng = np.random.default_rng(seed)
    parts = [
        (rng.permutation(len(c.layers["up"].y)) % _PARTS, rng.permutation(40) % _PARTS)
        for c in features
    ]
    scores = []
    for left_out in range(_PARTS):
        cases = []
        for case, (own, whole) in zip(features, parts, strict=True):
            sample, head = case.layers["up"], case.posterior
            assert head is not None
            kept, held = own != left_out, whole != left_out
            thinned = LayerSample(sample.X[kept], sample.y[kept], sample.X_case[held])
            posterior = LayerSample(head.X[kept], head.y[kept], head.X_case)
            cases.append(CaseFeatures(case.case_id, {"up": thinned}, posterior))
        scores.append(clone(estimator).fit(FeatureSet(cases)).score_)
    return np.array(scores)


def coverage(runs: list[Arrays], truth: Mapping[str, list[float]]) -> dict[str, Any]:
    """Share of the runs whose interval holds the score of very many cases."""
    table: dict[str, Any] = {}
    for name in ESTIMATORS:
        if f"{name}|0|score" not in runs[0]:
            continue
        row = _of_scores(name, runs, truth[name][0])
        row["difference of two models"] = _of_differences(name, runs, truth[name])
        table[name] = row
    return table


def _of_scores(name: str, runs: list[Arrays], true: float) -> dict[str, Any]:
    scores = np.array([float(run[f"{name}|0|score"]) for run in runs])
    hits: dict[str, list[bool]] = {}
    errors = []
    for run, score in zip(runs, scores, strict=True):
        jackknife, bootstrap = run[f"{name}|0|jackknife"], run[f"{name}|0|bootstrap"]
        errors.append(_error(jackknife))
        for form, (low, high) in _intervals(score, jackknife, bootstrap).items():
            hits.setdefault(form, []).append(bool(low <= true <= high))
    row: dict[str, Any] = {
        "large_sample": round(true, 5),
        "mean": round(float(scores.mean()), 5),
        "standard_deviation": round(float(scores.std(ddof=1)), 5),
        "standard_error": round(float(np.sqrt(np.mean(np.square(errors)))), 5),
        "coverage": {form: round(float(np.mean(values)), 3) for form, values in hits.items()},
    }
    with_voxels = [run for run in runs if f"{name}|voxels" in run]
    if with_voxels:
        claimed = [_error(run[f"{name}|voxels"]) for run in with_voxels]
        z = norm.ppf((1 + LEVEL) / 2)
        covered = [
            abs(float(run[f"{name}|0|score"]) - true) <= z * error
            for run, error in zip(with_voxels, claimed, strict=True)
        ]
        row["voxels"] = {
            "runs": len(with_voxels),
            "standard_error": round(float(np.sqrt(np.mean(np.square(claimed)))), 5),
            "coverage": round(float(np.mean(covered)), 3),
        }
    return row


def _of_differences(name: str, runs: list[Arrays], truth: list[float]) -> dict[str, float]:
    """The same of the difference of two models, paired and as if they were unrelated."""
    hits: dict[str, list[bool]] = {"paired": [], "paired, bias removed": [], "unpaired": []}
    ratios = []
    for run in runs:
        score = float(run[f"{name}|0|score"] - run[f"{name}|1|score"])
        first, second = run[f"{name}|0|jackknife"], run[f"{name}|1|jackknife"]
        n, error = len(first), _error(first - second)
        bias = (n - 1) * (float((first - second).mean()) - score)
        apart = float(np.hypot(_error(first), _error(second)))
        factor = student.ppf((1 + LEVEL) / 2, n - 1)
        gap = score - (truth[0] - truth[1])
        hits["paired"].append(abs(gap) <= factor * error)
        hits["paired, bias removed"].append(abs(gap - bias) <= factor * error)
        hits["unpaired"].append(abs(gap) <= factor * apart)
        ratios.append(error / apart)
    found = {form: round(float(np.mean(values)), 3) for form, values in hits.items()}
    return {**found, "error over that of unpaired": round(float(np.median(ratios)), 3)}


def _error(jackknife: NDArray[np.float64]) -> float:
    n = len(jackknife)
    return float(np.sqrt((n - 1) / n * np.square(jackknife - jackknife.mean()).sum()))


def _intervals(
    score: float, jackknife: NDArray[np.float64], bootstrap: NDArray[np.float64]
) -> dict[str, tuple[float, float]]:
    n, tail = len(jackknife), (1 - LEVEL) / 2
    half = student.ppf(1 - tail, n - 1) * _error(jackknife)
    centre = score - (n - 1) * (float(jackknife.mean()) - score)
    found = {
        "jackknife-t": (score - half, score + half),
        "jackknife-t, bias removed": (centre - half, centre + half),
        "jackknife-normal": _around(score, norm.ppf(1 - tail) * _error(jackknife)),
    }
    draws = bootstrap[np.isfinite(bootstrap)]
    if len(draws):
        low, high = np.quantile(draws, [tail, 1 - tail])
        found["bootstrap percentile"] = (low, high)
        found["bootstrap basic"] = (2 * score - high, 2 * score - low)
        found["bootstrap BCa"] = _bca(score, jackknife, draws, tail)
        spread = float(draws.std()) * np.sqrt(n / (n - 1))
        found["bootstrap-t"] = _around(score, student.ppf(1 - tail, n - 1) * spread)
    return found


def _around(centre: float, half: float) -> tuple[float, float]:
    return centre - half, centre + half


def _bca(
    score: float, jackknife: NDArray[np.float64], draws: NDArray[np.float64], tail: float
) -> tuple[float, float]:
    """Efron's bias-corrected, accelerated quantiles."""
    gaps = jackknife.mean() - jackknife
    acceleration = (gaps**3).sum() / max(6 * np.square(gaps).sum() ** 1.5, 1e-300)
    below = np.clip((draws < score).mean(), 1 / len(draws), 1 - 1 / len(draws))
    shift = norm.ppf(below)
    z = shift + np.array([norm.ppf(tail), norm.ppf(1 - tail)])
    low, high = np.quantile(draws, norm.cdf(shift + z / (1 - acceleration * z)))
    return float(low), float(high)


def load_runs(path: Path) -> list[Arrays]:
    """Runs of an earlier call that was cut short."""
    if not path.exists():
        return []
    with np.load(path, allow_pickle=False) as kept:
        runs: dict[int, Arrays] = {}
        for key in kept.files:
            number, rest = key.split("|", 1)
            runs.setdefault(int(number), {})[rest] = kept[key]
    return [runs[i] for i in sorted(runs)]


def save_runs(runs: list[Arrays], path: Path) -> None:
    """Keep runs, in one step."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **{f"{i}|{key}": v for i, run in enumerate(runs) for key, v in run.items()})
    temporary.replace(path)
