"""Scoring a whole bank beside extracting its features."""

from __future__ import annotations

import time
import warnings
from typing import Any

from benchmarks.speed._networks import unet_entry
from skte import CCFV, GBC, LEEP, LogME, SegmentationFeatureExtractor, TransRate
from skte.datasets import make_phantoms

ESTIMATORS = (CCFV(), LogME(), LEEP(), GBC(), TransRate())


def shares(smoke: bool) -> list[dict[str, Any]]:
    """Time of five estimators, as a share of the extraction, over a bank."""
    n_models, n_cases, edge = (2, 3, 16) if smoke else (10, 40, 64)
    subjects = make_phantoms(n_cases, size=(edge, edge, edge))
    extract = score = 0.0
    for seed in range(n_models):
        entry = unet_entry(f"net{seed}", widths=(16, 32, 64, 128), seed=seed)
        begun = time.process_time()
        features = SegmentationFeatureExtractor(entry).fit_transform(subjects)
        middle = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # untrained networks collapse here and there
            for estimator in ESTIMATORS:
                estimator.fit(features)
        extract += middle - begun
        score += time.process_time() - middle
    return [
        {
            "case": f"{n_models} models x {n_cases} cases x {len(features.layer_names)} layers",
            "extraction_seconds": round(extract, 2),
            "scoring_seconds": round(score, 2),
            "share": round(score / extract, 4),
        }
    ]
