"""What matters: the same features, scored in other ways."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from benchmarks.evidence._protocol import Model, Study
from benchmarks.evidence._scores import combine, load_features, scores_of
from skte.estimators import CCFV, LogME, TransferabilityEstimator
from skte.features import CaseFeatures, FeatureSet, LayerSample

__all__ = ["variants"]

Change = Callable[[FeatureSet], FeatureSet]


def variants(
    study: Study,
    target: str,
    out: Path,
    n_jobs: int,
    contenders: Mapping[str, TransferabilityEstimator],
) -> dict[str, dict[str, list[float | None]]]:
    """Scores of a target's bank under each setting: of CC-FV, LogME and contenders."""
    estimators = {"CCFV": CCFV(), "CCFV raw": CCFV(normalize=None), "LogME": LogME(), **contenders}
    changes = _changes(study)
    rows = Parallel(n_jobs=n_jobs)(
        delayed(_of_model)(estimators, changes, model, target, out) for model in study.bank(target)
    )
    return {
        f"{setting}: {name}": scores
        for setting in changes
        for name, scores in combine(estimators, [row[setting] for row in rows]).items()
    }


def _of_model(
    estimators: Mapping[str, TransferabilityEstimator],
    changes: Mapping[str, Change],
    model: Model,
    target: str,
    out: Path,
) -> dict[str, dict[str, Any]]:
    features = load_features(out, target, model.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            setting: scores_of(estimators, change(features)) for setting, change in changes.items()
        }


def _changes(study: Study) -> dict[str, Change]:
    n = study.n_tune_cases
    found: dict[str, Change] = {
        "last layer": lambda f: _layers(f[:n], 1),
        "last two layers": lambda f: _layers(f[:n], 2),
        "all layers": lambda f: f[:n],
    }
    for n_cases in (3, 5, 8, study.n_rank_cases):
        found[f"{n_cases} cases"] = lambda f, k=n_cases: f[:k]
    for n_voxels in (25, 50, 100, 250, 500):
        found[f"{n_voxels} voxels a class and case"] = lambda f, k=n_voxels: _rows(f[:n], k, False)
    found["balanced classes"] = lambda f: _rows(f[:n], 10**9, True)
    return found


def _layers(features: FeatureSet, n: int) -> FeatureSet:
    """Keep the finest layers."""
    names = features.layer_names[-n:]
    return FeatureSet(
        [replace(case, layers={name: case.layers[name] for name in names}) for case in features],
        name=features.name,
    )


def _rows(features: FeatureSet, n_voxels: int, balanced: bool) -> FeatureSet:
    """Keep at most so many voxels of a class and case, or as many of each class."""
    return FeatureSet(
        [_case_rows(case, n_voxels, balanced, seed) for seed, case in enumerate(features)],
        name=features.name,
    )


def _case_rows(case: CaseFeatures, n_voxels: int, balanced: bool, seed: int) -> CaseFeatures:
    layers = {}
    for name, sample in case.layers.items():
        most = n_voxels
        if balanced:
            most = int(np.unique(sample.y, return_counts=True)[1].min())
        kept = _chosen(sample.y, most, np.random.default_rng(seed))
        layers[name] = LayerSample(sample.X[kept], sample.y[kept], sample.X_case)
    return replace(case, layers=layers)


def _chosen(y: NDArray[np.integer], most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of a random sample without more than `most` of a class."""
    rows = [rng.permutation(np.flatnonzero(y == label))[:most] for label in np.unique(y)]
    return np.sort(np.concatenate(rows))
