"""Run the study: ``python -m benchmarks.evidence {train,score,judge,page} --work DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks._provenance import data_folder
from benchmarks.evidence._jobs import run_all, score_all
from benchmarks.evidence._page import write_page
from benchmarks.evidence._place import Place
from benchmarks.evidence._report import RESULTS, read_results, write_results
from benchmarks.evidence._tasks import N_RUNS, targets


def main() -> None:
    """Parse the command line and run one step of the study."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("step", nargs="?", choices=["train", "score", "judge", "page"])
    parser.add_argument("--smoke", action="store_true", help="phantoms, two steps, one target")
    parser.add_argument("--data", help="folder of the real images (default: SKTE_DATA)")
    parser.add_argument("--work", type=Path, help="folder of slices, weights and small files")
    parser.add_argument("--targets", nargs="+", default=list(targets()), metavar="TARGET")
    parser.add_argument("--runs", type=int, default=N_RUNS)
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
    place = Place(data_folder(args.data), args.work)
    if args.step == "train":
        run_all(place, args.targets, args.runs, args.workers)
    elif args.step == "score":
        score_all(place, args.targets, args.workers)
    else:
        write_results(place, RESULTS)


def _smoke() -> None:
    """Train, score and judge a bank of one target on phantoms."""
    with TemporaryDirectory() as folder:
        place = Place(None, Path(folder))
        run_all(place, ["drive"], n_workers=1)
        score_all(place, ["drive"], n_workers=1)
        write_results(place, place.work / "results")
        [target] = read_results(place.work / "results")
        if target.n_missing:
            raise SystemExit(f"{target.n_missing} models have no run or no scores.")
        print(len(target.models), "models,", len(target.scores), "scores of each")


if __name__ == "__main__":
    main()
