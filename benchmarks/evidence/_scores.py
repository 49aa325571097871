"""Scores of every model for every target, from the features that the jobs left."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone

from benchmarks.evidence._driver import record_of
from benchmarks.evidence._jobs import Job
from benchmarks.evidence._protocol import Model, Study
from skte import estimators as family
from skte.estimators import CCFV, RCFV, TransferabilityEstimator
from skte.features import FeatureSet, unpack_case

__all__ = [
    "ABLATION",
    "CONTENDERS",
    "ESTIMATORS",
    "combine",
    "jackknifed",
    "load_features",
    "models_of",
    "scores_of",
]

Estimators = Mapping[str, TransferabilityEstimator]

#: Table 1: every estimator of the package with its defaults.
ESTIMATORS: dict[str, TransferabilityEstimator] = {
    name: getattr(family, name)() for name in family.__all__ if name != "TransferabilityEstimator"
}
#: Table 2: what CC-FV is made of.
ABLATION: dict[str, TransferabilityEstimator] = {
    "CC-FV": CCFV(),
    "without C_cons": CCFV(class_consistency=False),
    "without F_v": CCFV(feature_variety=False),
    "single scale": CCFV(layer_reduction="last"),
    "KL": CCFV(distance="kl"),
    "Bhattacharyya": CCFV(distance="bhattacharyya"),
    "raw features": CCFV(normalize=None),
}
#: Whose settings are looked at beside those of CC-FV and LogME.
CONTENDERS: dict[str, TransferabilityEstimator] = {"RCFV": RCFV()}


def load_features(out: Path, target: str, model: str) -> FeatureSet:
    """Features of one model on the ranking cases of a target."""
    files = sorted((out / "features" / target / model).glob("*.skte"))
    return FeatureSet([unpack_case(file.read_bytes()) for file in files], name=model)


def models_of(study: Study, target: str, out: Path) -> list[dict[str, Any]]:
    """What is known of each model of a target's bank: cost, Dice, zero-shot Dice."""
    rows = []
    for model in study.bank(target):
        pretrained = _record(Job("pretrain", model), out)
        extracted = _record(Job("extract", model, target), out)
        tuned = [_record(Job("tune", model, target, seed), out) for seed in study.seeds]
        zero_shot = extracted.get("zero_shot")
        rows.append(
            {
                **vars(model),
                "n_parameters": pretrained["n_parameters"],
                # of the cases that fine-tuning trains on: a score may see no others
                "zero_shot": zero_shot and float(np.mean(zero_shot[: study.n_tune_cases])),
                "dice": [[_mean(case) for case in record["dice"]] for record in tuned],
                "pretrain_seconds": pretrained["seconds"],
                "tune_seconds": float(np.mean([r["train_seconds"] for r in tuned])),
                "extract_seconds": extracted["extract_seconds"],
                "n_ranked_cases": len(extracted["case_ids"]),
                "device": tuned[0]["device"],
            }
        )
    return rows


def combine(
    estimators: Estimators, parts: Sequence[Mapping[str, Any]]
) -> dict[str, list[float | None]]:
    """Scores of a bank from what was learnt of each model."""
    result: dict[str, list[float | None]] = {}
    for name, estimator in estimators.items():
        known = [part[name] for part in parts if part[name] is not None]
        scores = iter(estimator.combine(known)) if known else iter(())
        result[name] = [None if part[name] is None else float(next(scores)) for part in parts]
    return result


def scores_of(estimators: Estimators, features: FeatureSet) -> dict[str, Any]:
    """What each estimator learns of one model; None where it cannot be used."""
    parts: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator in estimators.items():
            try:
                parts[name] = clone(estimator).fit(features).part_
            except ValueError:
                parts[name] = None
    return parts


def score_with_jackknife(
    estimators: Estimators, model: Model, target: str, out: Path, n_cases: int
) -> list[dict[str, Any]]:
    """Parts of one model on all cases, then with each case left out."""
    features = load_features(out, target, model.name)[:n_cases]
    left_out = 1 - np.eye(n_cases, dtype=int)
    rows: list[dict[str, Any]] = [{} for _ in range(1 + n_cases)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator in estimators.items():
            try:
                fitted = clone(estimator).fit(features)
                resampled = fitted.resample_cases(features, left_out)
                parts = [fitted.part_, *(_at(resampled, i) for i in range(n_cases))]
            except ValueError:  # such as LEEP without a source head
                parts = [None] * len(rows)
            for row, part in zip(rows, parts, strict=True):
                row[name] = part
    return rows


def _at(resampled: Any, i: int) -> Any:
    """One resample of what an estimator learnt; an Ensemble's parts are nested."""
    if isinstance(resampled, Mapping):
        return {key: _at(value, i) for key, value in resampled.items()}
    return float(resampled[i])


def jackknifed(
    estimators: Estimators, study: Study, target: str, out: Path, n_jobs: int
) -> dict[str, dict[str, Any]]:
    """Scores of a target's bank, and what they are with each case left out."""
    bank = study.bank(target)
    parts = Parallel(n_jobs=n_jobs)(
        delayed(score_with_jackknife)(estimators, model, target, out, study.n_tune_cases)
        for model in bank
    )
    by_subset = [combine(estimators, [model[r] for model in parts]) for r in range(len(parts[0]))]
    return {
        name: {"scores": by_subset[0][name], "left_out": [one[name] for one in by_subset[1:]]}
        for name in estimators
    }


def _record(job: Job, out: Path) -> dict[str, Any]:
    record = record_of(job, out)
    if record is None:
        raise SystemExit(f"{job.name} has not been done: run the study first.")
    return record


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean([value for value in values if value is not None]))
