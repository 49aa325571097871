"""What scores and their resamples cost, as shares of the extraction that they follow."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.cost._networks import NETWORKS
from benchmarks.cost._timing import cost
from skte import BankEntry
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.estimators import all_estimators, recommended_estimators
from skte.features import CaseFeatures, FeatureSet
from skte.selection import extractor_for

# Its mixtures take minutes on all layers: the finest alone.
_ON_ONE_LAYER = ("nleep",)
# Whole scans that are extracted; all cases take the mean of these each.
_N_SCANS = 2
Shape = tuple[int, int, int]


def scoring(
    n_cases: int, edge: int, widths: tuple[int, ...], network: str, window: Shape, shape: Shape
) -> dict[str, Any]:
    """Seconds of one model: extraction, and for each estimator score, jackknife and bootstrap.

    The bootstrap of 1000 draws follows from the time of a few. Of the extraction of scans, with
    `network`, a few cases are measured.
    """
    torch.manual_seed(0)
    entry = BankEntry.from_module("net", small_unet(n_classes=3, widths=widths))
    cases = make_phantoms(n_cases, size=(edge, edge, edge), n_classes=3)
    extractor = extractor_for(recommended_estimators(), entry=entry, samples="all")
    extraction = cost(lambda: extractor.fit_transform(cases))
    scan = _scan(network, window, shape)
    features: FeatureSet = extraction.result
    features.blocks(), features.joined_block()  # made once for all estimators
    leave_out = 1 - np.eye(n_cases, dtype=int)
    draws = np.random.default_rng(0).multinomial(n_cases, [1 / n_cases] * n_cases, 21)
    rows = {}
    for name, kind in all_estimators().items():
        if name == "ensemble":
            continue
        given = _finest(features) if name in _ON_ONE_LAYER else features
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator = kind()
            score = _seconds(lambda e=estimator, f=given: e.fit(f))
            jackknife = _seconds(lambda e=estimator, f=given: e.resample_cases(f, leave_out))
            one = _seconds(lambda e=estimator, f=given: e.resample_cases(f, draws[:1]))
            all_draws = _seconds(lambda e=estimator, f=given: e.resample_cases(f, draws))
            each = max(0.0, all_draws - one) / (len(draws) - 1)
        rows[name] = {
            "score": round(score, 3),
            "jackknife": round(jackknife, 3),
            "bootstrap_1000": round(1000 * each, 1),
            "share": round((score + jackknife) / extraction.seconds, 4),
            "layers": len(given.layer_names),
            "is_default": name in recommended_estimators(),
        }
        print(f"  {name}: {rows[name]}", flush=True)
    return {
        "n_cases": n_cases,
        "edge": edge,
        "widths": widths,
        "rows of features": sum(len(case.layers["decoder.0"].X) for case in features),
        "extraction": round(extraction.seconds, 2),
        "scans": {
            "network": network,
            "window": window,
            "shape": shape,
            "measured": _N_SCANS,
            "seconds per scan": round(scan, 2),
            "extraction": round(n_cases * scan, 1),
        },
        "estimators": rows,
    }


def _scan(name: str, window: Shape, shape: Shape) -> float:
    """Mean seconds of the extraction of a scan."""
    entry = BankEntry.from_module(name, NETWORKS[name](window).eval(), window_size=window)
    extractor = extractor_for(recommended_estimators(), entry=entry, samples="all")
    scans = make_phantoms(_N_SCANS, size=shape)
    return cost(lambda: extractor.fit_transform(scans)).seconds / _N_SCANS


def _seconds(run: Callable[[], Any]) -> float:
    return cost(run).seconds


def _finest(features: FeatureSet) -> FeatureSet:
    name = features.layer_names[-1]
    return FeatureSet([CaseFeatures(c.case_id, {name: c.layers[name]}) for c in features])
