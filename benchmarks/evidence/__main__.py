"""Run the study: ``python -m benchmarks.evidence {train,score,judge,page} --work DIR``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks._provenance import data_folder
from benchmarks.evidence._jobs import run_all, score_all
from benchmarks.evidence._page import write_page
from benchmarks.evidence._place import Place
from benchmarks.evidence._report import RESULTS, read_results, write_results
from benchmarks.evidence._tasks import BANKS, few_models


def main() -> None:
    """Parse the command line and run one step of the study."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("step", nargs="?", choices=["train", "score", "judge", "page"])
    parser.add_argument("--smoke", action="store_true", help="phantoms, two steps, one target")
    parser.add_argument("--data", help="folder of the real images (default: SKTE_DATA)")
    parser.add_argument("--work", type=Path, help="folder of slices, weights and small files")
    parser.add_argument("--bank", choices=BANKS, default="ladder")
    parser.add_argument("--targets", nargs="+", metavar="TARGET")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.smoke:
        _smoke()
        return
    if args.step is None:
        parser.error("Name a step: train, score, judge or page.")
    if args.step == "page":
        write_page(RESULTS)
        return
    if args.work is None:
        parser.error(f"{args.step} needs --work, a folder outside the repository.")
    bank = BANKS[args.bank]
    place = Place(None if bank.phantoms else data_folder(args.data), args.work)
    targets = args.targets or list(bank.targets)
    if args.step == "train":
        run_all(place, bank, targets, args.workers)
    elif args.step == "score":
        score_all(place, bank, targets, args.workers)
    else:
        write_results(place, args.bank, RESULTS)


def _smoke() -> None:
    """Train, score and judge one target of the bank of phantoms, with a third of its models."""
    bank = BANKS["phantoms"] = replace(BANKS["phantoms"], models_of=few_models, n_runs=2)
    with TemporaryDirectory() as folder:
        place = Place(None, Path(folder), most_steps=2)
        run_all(place, bank, ["ring_clear"], n_workers=1)
        score_all(place, bank, ["ring_clear"], n_workers=1)
        write_results(place, "phantoms", place.work / "results")
        [target] = read_results(place.work / "results", "phantoms")
        if target.n_missing:
            raise SystemExit(f"{target.n_missing} models have no run or no scores.")
        print(len(target.models), "models,", len(target.scores), "scores of each")


if __name__ == "__main__":
    main()
