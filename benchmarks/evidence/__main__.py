"""Does a ranking pick the model that fine-tunes best?

python -m benchmarks.evidence run --data DIR --out DIR     # hours; goes on after a kill
python -m benchmarks.evidence --smoke                      # phantoms, under a minute
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks._provenance import data_folder
from benchmarks.evidence._driver import run
from benchmarks.evidence._protocol import FULL, SMOKE


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="everything, small, on phantoms")
    commands = parser.add_subparsers(dest="command")
    running = commands.add_parser("run", help="pre-train, fine-tune, extract")
    running.add_argument("--data", help="folder of datasets (default: SKTE_DATA)")
    running.add_argument("--out", required=True, type=Path, help="folder of all that is made")
    running.add_argument("--targets", nargs="+", default=[task.name for task in FULL.tasks])
    running.add_argument("--jobs", type=int, help="jobs at a time (default: one a core)")
    args = parser.parse_args()
    if args.smoke:
        smoke()
    elif args.command == "run":
        run(FULL, args.targets, data_folder(args.data), args.out, args.jobs)
    else:
        parser.error("give a command, or --smoke")


def smoke() -> None:
    """Run every step on phantoms, to see that the study works."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run(SMOKE, [task.name for task in SMOKE.tasks], None, out, None)


if __name__ == "__main__":
    main()
