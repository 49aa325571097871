"""Rank one bank under several plans, and see how far scores and orders move, and what it costs.

    python -m benchmarks.plans --bank OUT --data DIR --targets Heart_ACDC Task04_Hippocampus

OUT is the folder that ``python -m benchmarks.real_bank --out OUT`` wrote; DIR holds the data
sets. For every estimator: Kendall's tau between the order under the full grid and under each
other plan; beside it the tau with another draw of voxels, which is what chance does. The
estimators are those that skte recommends, on the stages that they read by default, and CC-FV,
GBC, PARC and LEEP on the same stages.

``sampled over exact W2`` in `plans.json` is how far sampled Wasserstein distances lie from
those of all voxels. It comes from an earlier version, which could extract features of all of them.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from benchmarks._provenance import data_folder, provenance, write_json
from skte import CCFV, GBC, LEEP, PARC, ModelBank, ModelBankSelector
from skte.bank import BankEntry
from skte.datasets import load_dataset, make_phantoms
from skte.demo import small_unet
from skte.estimators import recommended_estimators
from skte.selection import extractor_for

RESULTS = Path(__file__).parent / "results"

ESTIMATORS = recommended_estimators() | {
    "ccfv": CCFV(),
    "gbc": GBC(log=True),
    "parc": PARC(),
    "leep": LEEP(),
}
REFERENCE = "grid, overlap 0.5"


def plans(window: Any) -> dict[str, dict[str, Any]]:
    """Settings of the extractor, the seed of the voxels, and the share of the cases."""
    grid = {"window_size": window, "overlap": 0.5}
    return {
        REFERENCE: grid,
        "another draw of voxels": {**grid, "random_state": 1},
        "the first half of the cases": {**grid, "share": 0.5},
        "overlap 0.25": {**grid, "overlap": 0.25},
        "overlap 0": {**grid, "overlap": 0.0},
        **{f"max_windows={n}": {**grid, "max_windows": n} for n in (8, 4, 2)},
        "max_windows=4, overlap 0": {**grid, "max_windows": 4, "overlap": 0.0},
        "100 voxels per class": {**grid, "n_class_samples": 100, "n_case_samples": 100},
    }


def rank(bank: Any, data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of every estimator, windows run, and processor time."""
    settings = dict(settings)
    seed, share = settings.pop("random_state", 0), settings.pop("share", 1.0)
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        selector = ModelBankSelector(
            ESTIMATORS,
            extractor=extractor_for(ESTIMATORS, **settings),
            error_score=np.nan,
            random_state=seed,
            reference=False,
        ).fit(bank, data[: round(share * len(data))])
    results = selector.results_
    return {
        "scores": {key: results[f"score_{key}"].tolist() for key in ESTIMATORS},
        "windows": int(results["n_windows"].sum()),
        "seconds": round(time.process_time() - begun, 1),
        "seconds_forward": round(float(results["seconds_forward"].sum()), 1),
    }


def agreement(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """Kendall's tau between two orders, by estimator; models that collapsed are last."""
    result = {}
    for key, scores in ours["scores"].items():
        a, b = np.array(scores), np.array(reference["scores"][key])
        known = ~(np.isnan(a) | np.isnan(b))
        result[key] = round(float(kendalltau(a[known], b[known]).statistic), 3)
    return result


def study(bank: Any, data: Any, window: Any) -> dict[str, Any]:
    """Results of every plan."""
    results: dict[str, Any] = {}
    for name, settings in plans(window).items():
        results[name] = rank(bank, data, settings)
        results[name]["tau"] = agreement(results[name], results[REFERENCE])
        taus = " ".join(f"{k} {v:.2f}" for k, v in results[name]["tau"].items())
        print(f"{name:28s} {results[name]['windows']:6d} windows: {taus}", flush=True)
    return results


def main() -> None:
    """Rank under every plan and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bank", type=Path, help="what benchmarks.real_bank wrote")
    parser.add_argument("--data", help="folder of datasets (default: SKTE_DATA)")
    parser.add_argument("--targets", nargs="+", default=["Heart_ACDC", "Task04_Hippocampus"])
    parser.add_argument("--window", type=int, nargs="+", default=[32, 32, 16])
    parser.add_argument("--cases", type=int, default=12, help="cases to use")
    parser.add_argument("--smoke", action="store_true", help="phantoms, two models, no result file")
    args = parser.parse_args()
    if args.smoke:
        bank = [BankEntry.from_module(f"w{w}", small_unet(widths=(w, 2 * w))) for w in (4, 6)]
        study(bank, make_phantoms(4, size=(24, 24, 16)), (16, 16, 16))
        return
    if args.bank is None:
        parser.error("--bank: give the folder that benchmarks.real_bank wrote.")
    for target in args.targets:
        entries = ModelBank.from_manifest(args.bank / f"bank_for_{target}.json")
        data = load_dataset(data_folder(args.data) / target)[: args.cases]
        window = tuple(args.window)
        results = study(entries, data, window)
        content = {"window": window, "n_cases": len(data), "plans": results}
        write_json(RESULTS / f"{target}.json", {**provenance(seed=0), **content})


if __name__ == "__main__":
    main()
