"""Kill, fill, break and fuzz on purpose, and count what comes of it.

    python -m benchmarks.reliability [--smoke] [--only kills faults fuzz text ...]

Everything is seeded. ``--again TARGET NUMBER`` tries one input of the fuzzing once more, with
its traceback. Ends with 1 if anything was lost. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks._provenance import provenance, write_json
from benchmarks.reliability import _faults, _kills
from benchmarks.reliability._doors import DOORS, available, run_door
from benchmarks.reliability._fuzz import fuzz, try_one
from benchmarks.reliability._page import write_page
from benchmarks.reliability._place import Place, import_as_runs_do
from tests.reliability.targets import TARGETS

RESULT = Path(__file__).parent / "results" / "reliability.json"
# Inputs of each door: the slow ones get fewer.
N_INPUTS = {
    "manifest": 4000,
    "msd": 5000,
    "nnunet_raw": 5000,
    "plans": 4000,
    "cache": 8000,
    "checkpoint": 10_000,
    "nifti": 8000,
    "arrays": 16_000,
    "shell": 3000,
}


def parts(place: Place, seed: int, n_jobs: int, smoke: bool) -> dict[str, dict[str, Callable]]:
    """Everything there is to try, by part and name; smaller for a smoke test."""
    n_kills, step = (2, 40) if smoke else (500, 1)
    limits = [3000] if smoke else [0, 100, 1000, 3000, 8000, 20_000, 50_000, 300_000]
    sizes = [40_000] if smoke else [n * 40_000 for n in range(1, 11)]
    return {
        "kills": {
            "random": lambda: _kills.kill_at_random(place, n_kills, seed, n_jobs),
            "operations": lambda: _kills.kill_at_operations(place, step, n_jobs),
        },
        "faults": {
            "file_size": lambda: _faults.file_size_limit(place, limits),
            "full_disk": lambda: _faults.full_disk(place, sizes),
            "read_only": lambda: _faults.read_only_cache(place),
            "shared": lambda: _faults.shared_cache(place, 2 if smoke else 12, seed),
            **({} if smoke else _slow(place)),
        },
        "fuzz": {
            name: partial(fuzz, name, 8 if smoke else N_INPUTS[name], seed, n_jobs)
            for name in TARGETS
        },
    }


def _slow(place: Place) -> dict[str, Callable]:
    return {
        "clock": lambda: _faults.changed_clock(place),
        "changed": lambda: _faults.changed_file(place),
        "models": lambda: _faults.failing_models(place),
    }


def main() -> None:
    """Run the parts and write the result file and the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["kills", "faults", "fuzz", *DOORS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "NUMBER"), help="one input again")
    parser.add_argument("--smoke", action="store_true", help="a few of each, no file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.again:
        try_one(args.again[0], args.seed, int(args.again[1]))
        return
    n_lost = sum(
        run_door(name, smoke=args.smoke, seed=args.seed)
        for name in available()
        if not args.only or name in args.only
    )
    if not args.only or {"kills", "faults", "fuzz"} & set(args.only):
        n_lost += run_parts(args)
    if not args.smoke:
        write_page(json.loads(RESULT.read_text()))
    if n_lost:
        sys.exit(f"{n_lost} problems")


def run_parts(args: argparse.Namespace) -> int:
    """Kill, fill and fuzz; return how many problems there were."""
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    n_lost = 0
    with tempfile.TemporaryDirectory(prefix="skte-reliability-") as folder:
        place = Place(Path(folder))
        if not args.only or {"kills", "faults"} & {*args.only}:  # those fork
            import_as_runs_do(place)
        for part, tries in parts(place, args.seed, args.n_jobs, args.smoke).items():
            if args.only and part not in args.only:
                continue
            found = {}
            for name, attempt in tries.items():
                begun = time.monotonic()
                found[name] = attempt()
                n_lost += len(found[name]["problems"])
                line = {k: v for k, v in found[name].items() if k != "what"}
                print(f"{part} {name} ({time.monotonic() - begun:.0f} s): {line}", flush=True)
            if not args.smoke:
                now = provenance()
                result[part] = {"seed": args.seed, "commit": now["commit"], **found}
                known = {k: result[k] for k in ("kills", "faults", "fuzz") if k in result}
                result = {**now, **known}
                write_json(RESULT, result)
    return n_lost


if __name__ == "__main__":
    main()
