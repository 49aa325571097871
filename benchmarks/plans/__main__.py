"""Rank one bank under several window plans, and see how far scores and orders move.

    python -m benchmarks.plans --bank OUT/bank_for_Heart_ACDC.json --data DIR/Heart_ACDC

The bank is one that ``python -m benchmarks.real_bank --out OUT`` wrote. For every
estimator: Kendall's tau between the order under the full grid and under each other
plan; beside it the tau with another draw of voxels, which is what chance does.

``sampled over exact W2`` in the result file is how far sampled Wasserstein distances lie from
those of all voxels. It comes from an earlier version, which could extract features of all of them.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from benchmarks._provenance import provenance, write_json
from skte import (
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
    ModelBank,
    ModelBankSelector,
    RankMe,
    SegmentationFeatureExtractor,
    TransRate,
)
from skte.bank import BankEntry
from skte.datasets import load_dataset, make_phantoms
from skte.demo import small_unet

RESULTS = Path(__file__).parent / "results"

ESTIMATORS = {
    "ccfv": CCFV(),
    "ccfv literal": CCFV(normalize=None),
    "logme": LogME(),
    "leep": LEEP(),
    "nce": NCE(),
    "gbc": GBC(log=True),
    "transrate": TransRate(),
    "hscore": HScore(),
    "nleep": NLEEP(),
    "parc": PARC(),
    "sfda": SFDA(),
    "knn": KNN(max_samples=2000),
    "rankme": RankMe(),
}


def plans(window: Any) -> dict[str, dict[str, Any]]:
    """Settings of the extractor, and the seed of the voxels."""
    grid = {"window_size": window}
    return {
        "grid, overlap 0.5": grid,
        "another draw of voxels": {**grid, "random_state": 1},
        "grid, overlap 0": {**grid, "overlap": 0.0},
        "grid, overlap 0.25": {**grid, "overlap": 0.25},
        "cover": {**grid, "windows": "cover"},
        "max_windows=8": {**grid, "max_windows": 8},
        "max_windows=4": {**grid, "max_windows": 4},
    }


def rank(bank: Any, data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of every estimator, and windows run."""
    settings = dict(settings)
    seed = settings.pop("random_state", 0)
    extractor = SegmentationFeatureExtractor(**settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        selector = ModelBankSelector(
            ESTIMATORS, extractor=extractor, error_score=np.nan, random_state=seed, n_jobs=2
        ).fit(bank, data)
    scores = {key: selector.results_[f"score_{key}"].tolist() for key in ESTIMATORS}
    seconds = selector.results_["seconds_forward"].sum() + selector.results_["seconds_load"].sum()
    return {
        "scores": scores,
        "windows": int(selector.results_["n_windows"].sum()),
        "seconds": round(float(seconds), 1),
    }


def agreement(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """Kendall's tau between two orders, by estimator; models that collapsed are last."""
    result = {}
    for key, scores in ours["scores"].items():
        a, b = np.array(scores), np.array(reference["scores"][key])
        known = ~(np.isnan(a) | np.isnan(b))
        result[key] = round(float(kendalltau(a[known], b[known]).statistic), 3)
    return result


def main() -> None:
    """Rank under every plan and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bank", help="manifest of the models")
    parser.add_argument("--data", help="folder of the cases")
    parser.add_argument("--window", type=int, nargs="+", default=[32, 32, 16])
    parser.add_argument("--cases", type=int, default=30, help="cases to use")
    parser.add_argument("--smoke", action="store_true", help="phantoms, two models, no result file")
    args = parser.parse_args()
    if args.smoke:
        bank: Any = [BankEntry.from_module(f"w{w}", small_unet(widths=(w, 2 * w))) for w in (4, 6)]
        data: Any = make_phantoms(3, size=(24, 24, 16))
        window = (16, 16, 16)
    else:
        bank, data = ModelBank.from_manifest(args.bank), load_dataset(args.data)[: args.cases]
        window = tuple(args.window)
    results = {}
    for name, settings in plans(window).items():
        results[name] = rank(bank, data, settings)
        results[name]["tau"] = agreement(results[name], results["grid, overlap 0.5"])
        taus = " ".join(f"{k} {v:.2f}" for k, v in results[name]["tau"].items())
        print(f"{name:24s} {results[name]['windows']:6d} windows: {taus}", flush=True)
    if not args.smoke:
        content = {"window": window, "n_cases": len(data), "plans": results}
        write_json(RESULTS / "plans.json", {**provenance(seed=0), **content})


if __name__ == "__main__":
    main()
