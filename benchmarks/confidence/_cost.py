"""What resampling costs, as a share of the extraction that it follows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from skte.bank import BankEntry
from skte.demo import small_unet
from skte.estimators import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    NLEEP,
    PARC,
    SFDA,
    HScore,
    LogME,
    RankMe,
    TransferabilityEstimator,
    TransRate,
)
from skte.extraction import SegmentationFeatureExtractor

__all__ = ["measure_cost"]

ESTIMATORS: dict[str, TransferabilityEstimator] = {
    "CCFV": CCFV(),
    "LogME": LogME(),
    "GBC": GBC(),
    "TransRate": TransRate(),
    "HScore": HScore(),
    "HScore (Ledoit-Wolf)": HScore(shrinkage="ledoit-wolf"),
    "LEEP": LEEP(),
    "NCE": NCE(),
    "RankMe": RankMe(),
    "SFDA": SFDA(),
    "KNN": KNN(),
    "PARC": PARC(),
    "NLEEP": NLEEP(),
}


def measure_cost(cases: list[Any], *, widths: tuple[int, ...], rows: int) -> dict[str, Any]:
    """Processor seconds of extraction, score, jackknife and 1000 bootstrap draws.

    The draws follow from the time of `rows` more rows of weights: a thousand of the
    slowest would take hours.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    entry = BankEntry.from_module("net", small_unet(n_classes=3, widths=widths))
    extractor = SegmentationFeatureExtractor(entry)
    begun = time.process_time()
    features = extractor.fit_transform(cases)
    extraction = time.process_time() - begun
    n = len(features)
    rng = np.random.default_rng(0)
    table = {}
    for name, estimator in ESTIMATORS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            score = _timed(lambda e=estimator: e.fit(features))
            few = rng.multinomial(n, [1 / n] * n, 2)
            many = np.concatenate([few, rng.multinomial(n, [1 / n] * n, rows)])
            first = _timed(lambda e=estimator, w=few: e.resample_cases(features, w))
            more = _timed(lambda e=estimator, w=many: e.resample_cases(features, w))
        each = max(0.0, more - first) / rows
        fixed = max(0.0, first - 2 * each)
        table[name] = {
            "score": round(score, 3),
            "jackknife": round(fixed + n * each, 3),
            "bootstrap_1000": round(fixed + 1000 * each, 3),
            "jackknife_share": round((fixed + n * each) / extraction, 4),
            "bootstrap_1000_share": round((fixed + 1000 * each) / extraction, 4),
        }
    return {
        "n_cases": n,
        "widths": widths,
        "layers": {k: int(v.X.shape[1]) for k, v in features[0].layers.items()},
        "extraction": round(extraction, 2),
        "estimators": table,
    }


def _timed(call: Callable[[], Any]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun
