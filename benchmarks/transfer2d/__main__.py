"""Run the study: ``python -m benchmarks.transfer2d train --work DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks._provenance import data_folder
from benchmarks.transfer2d._jobs import Place, run_all
from benchmarks.transfer2d._tasks import N_RUNS, targets


def main() -> None:
    """Parse the command line and run one step of the study."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer2d", description=__doc__)
    parser.add_argument("step", choices=["train"])
    parser.add_argument("--data", help="folder of the real images (default: SKTE_DATA)")
    parser.add_argument("--work", type=Path, required=True, help="folder of slices and weights")
    parser.add_argument("--targets", nargs="+", default=list(targets()), metavar="TARGET")
    parser.add_argument("--runs", type=int, default=N_RUNS)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    place = Place(data_folder(args.data), args.work)
    run_all(place, args.targets, args.runs, args.workers)


if __name__ == "__main__":
    main()
