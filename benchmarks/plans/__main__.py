"""Rank one bank under several plans, and see how far scores and orders move, and what it costs.

    python -m benchmarks.plans --bank OUT --data DIR

OUT is the folder that ``python -m benchmarks.real_bank --out OUT`` wrote, once without and once
with ``--fine-tune``; DIR holds the data sets. Plans that are done are kept in OUT, so that an
interrupted run goes on. For every estimator: Kendall's tau between the order under the finest
plan and under each other one; beside it the tau with another draw of voxels, which is what chance
does, and the weighted Kendall with the Dice after fine-tuning. The estimators are those that skte
recommends, on the stages that they read by default, and CC-FV, GBC, PARC and LEEP on the same
stages. The table of the docs is written, too.

``sampled over exact W2`` in `plans.json` is how far sampled Wasserstein distances lie from
those of all voxels. It comes from an earlier version, which could extract features of all of them.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Mapping, Sequence
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
from skte.metrics import weighted_kendall_score
from skte.selection import extractor_for

RESULTS = Path(__file__).parent / "results"

ESTIMATORS = recommended_estimators() | {
    "ccfv": CCFV(),
    "gbc": GBC(log=True),
    "parc": PARC(),
    "leep": LEEP(),
}
TARGETS = ["Heart_ACDC", "HeadNeck_CT", "Spine_T1", "Task04_Hippocampus"]
REFERENCE = "whole volume, overlap 0.5"


def plans(window: Any) -> dict[str, dict[str, Any]]:
    """Settings of the extractor, the seed of the voxels, and the share of the cases."""
    whole = {"window_size": window, "samples": "all", "overlap": 0.5}
    region = {**whole, "samples": "roi"}
    return {
        REFERENCE: whole,
        "another draw of voxels": {**whole, "random_state": 1},
        "whole volume, overlap 0.25": {**whole, "overlap": 0.25},
        "overlap 0.5": region,
        "overlap 0.375": {**region, "overlap": 0.375},
        "overlap 0.25": {**region, "overlap": 0.25},
        "overlap 0": {**region, "overlap": 0.0},
        "the first half of the cases": {**whole, "share": 0.5},
    }


def rank(bank: Any, data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of every estimator that the samples allow, windows run, and processor time."""
    settings = dict(settings)
    able = {
        key: estimator
        for key, estimator in ESTIMATORS.items()
        if settings["samples"] == "all" or not estimator.tags.case_sample
    }
    seed, share = settings.pop("random_state", 0), settings.pop("share", 1.0)
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        selector = ModelBankSelector(
            able,
            extractor=extractor_for(able, **settings),
            error_score=np.nan,
            random_state=seed,
            reference=False,
        ).fit(bank, data[: round(share * len(data))])
    results = selector.results_
    return {
        "scores": {key: results[f"score_{key}"].tolist() for key in able},
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


def study(bank: Any, data: Any, window: Any, keep: Path | None = None) -> dict[str, Any]:
    """Results of every plan; those in the file `keep` are not computed again."""
    results = json.loads(keep.read_text()) if keep is not None and keep.exists() else {}
    for name, settings in plans(window).items():
        if name not in results:
            results[name] = rank(bank, data, settings)
        results[name]["tau"] = agreement(results[name], results[REFERENCE])
        taus = " ".join(f"{k} {v:.2f}" for k, v in results[name]["tau"].items())
        print(f"{name:28s} {results[name]['windows']:6d} windows: {taus}", flush=True)
        if keep is not None:
            keep.write_text(json.dumps(results))
    return {name: results[name] for name in plans(window)}


def with_dice(results: dict[str, Any], dice: Mapping[str, Sequence[float]]) -> None:
    """Note each plan's weighted Kendall with the Dice after fine-tuning, a mean over runs."""
    performance = [float(np.mean(runs)) for runs in dice.values()]
    for plan in results.values():
        plan["tau with Dice"] = {
            key: round(weighted_kendall_score(performance, np.nan_to_num(scores, nan=-1e9)), 3)
            for key, scores in plan["scores"].items()
        }


def page(names: Sequence[str]) -> None:
    """Write the table of the docs from the result files: means over the targets."""
    contents = [json.loads((RESULTS / f"{name}.json").read_text())["plans"] for name in names]
    keys = list(ESTIMATORS)
    head = [
        "plan",
        "windows",
        *keys,
        "least of the default's",
        "least of all",
        "probe with Dice",
        "logme with Dice",
    ]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    other = _means(contents, "another draw of voxels", "tau")
    for plan in contents[0]:
        taus, dice = _means(contents, plan, "tau"), _means(contents, plan, "tau with Dice")
        windows = np.mean([c[plan]["windows"] / c[REFERENCE]["windows"] for c in contents])
        share = {key: taus[key] / other[key] for key in taus}
        least = min(share[key] for key in recommended_estimators()), min(share.values())
        cells = [f"{taus[key]:.2f}" if key in taus else "" for key in keys]
        cells += [
            *(f"{value:.2f}" for value in least),
            *(f"{dice[key]:.2f}" for key in ("crosscaseprobe", "logme")),
        ]
        lines.append(f"| {plan} | {windows:.2f} | {' | '.join(cells)} |")
    path = Path(__file__).parents[2] / "docs" / "how-to" / "windows.md"
    begin, end = "<!-- plans: begin -->\n", "<!-- plans: end -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    table = "\n".join(lines)
    path.write_text(f"{before}{begin}\n{table}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def _means(contents: Sequence[Any], plan: str, what: str) -> dict[str, float]:
    known = [content[plan][what] for content in contents if what in content[plan]]
    return {key: float(np.mean([one[key] for one in known])) for key in known[0]}


def main() -> None:
    """Rank under every plan, and write the result files and the table of the docs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bank", type=Path, help="what benchmarks.real_bank wrote")
    parser.add_argument("--data", help="folder of datasets (default: SKTE_DATA)")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
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
        results = study(entries, data, window, args.bank / f"plans_{target}.json")
        dice = args.bank / f"dice_{target}.json"
        if dice.exists():
            with_dice(results, json.loads(dice.read_text()))
        content = {"window": window, "n_cases": len(data), "plans": results}
        write_json(RESULTS / f"{target}.json", {**provenance(seed=0), **content})
    page(args.targets)


if __name__ == "__main__":
    main()
