"""Coverage of intervals, and what races save and lose.

    python -m benchmarks.confidence coverage --cases 10 20 --runs 200 --work DIR
    python -m benchmarks.confidence races

Runs of the first are kept in DIR, and a call that is cut short goes on there. Each part
writes a file of its own into ``results``. ``--smoke`` does a little of everything.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from benchmarks._provenance import provenance, write_json
from benchmarks.confidence._coverage import (
    ESTIMATORS,
    LEVEL,
    coverage,
    large_sample,
    load_runs,
    save_runs,
    simulate,
)
from benchmarks.confidence._races import RACING, SETTINGS, race_bank, races, trade_off

RESULTS = Path(__file__).parent / "results"
_VOXELS_EVERY = 4  # slower than the rest
_BOOTSTRAPPED = 60


def run_coverage(
    sizes: list[int], n_runs: int, work: Path, *, heavy: bool, names: Sequence[str]
) -> dict[str, Any]:
    """Simulate, and go on where an earlier call stopped."""
    truth = large_sample(heavy=heavy, names=names)
    result: dict[str, Any] = {}
    for n_cases in sizes:
        path = work / f"{'heavy' if heavy else 'regular'}_{n_cases}.npz"
        runs = load_runs(path)
        while len(runs) < n_runs:
            k = len(runs)
            runs.append(
                simulate(
                    n_cases,
                    k,
                    voxels=k % _VOXELS_EVERY == 0,
                    bootstrap=k < _BOOTSTRAPPED,
                    heavy=heavy,
                    names=names,
                )
            )
            if len(runs) % 5 == 0:
                save_runs(runs, path)
                print(f"{n_cases} cases: {len(runs)} of {n_runs}", flush=True)
        result[f"{n_cases} cases"] = {"runs": len(runs), **coverage(runs, truth)}
    return result


def run_races(
    n_banks: int, n_orders: int, n_cases: int, n_models: int, n_jobs: int = 1
) -> dict[str, Any]:
    """Race random banks."""
    found: dict[str, list[dict[str, Any]]] = {}
    banks = Parallel(n_jobs=n_jobs, verbose=10)(
        delayed(_race_bank)(seed, n_orders, n_cases, n_models) for seed in range(n_banks)
    )
    for bank in banks:
        for key, own in bank.items():
            found.setdefault(key, []).extend(own)
    return {key: trade_off(own) for key, own in found.items()}


def _race_bank(
    seed: int, n_orders: int, n_cases: int, n_models: int
) -> dict[str, list[dict[str, Any]]]:
    bank = race_bank(n_cases, n_models, seed)
    return {
        f"{name}, min_cases={m}, factor={f:g}": races(
            bank, estimator, n_orders, seed, min_cases=m, factor=f
        )
        for name, estimator in RACING.items()
        for m, f in SETTINGS
    }


def main() -> None:
    """Run one part, or a little of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", choices=["coverage", "races"])
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=ESTIMATORS, help="add these to the file")
    parser.add_argument("--heavy", action="store_true", help="cases far from all others")
    parser.add_argument("--work", help="folder where runs are kept")
    parser.add_argument("--banks", type=int, default=10)
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        smoke()
    elif args.part == "coverage":
        work = Path(args.work or tempfile.mkdtemp())
        work.mkdir(parents=True, exist_ok=True)
        names = args.only or list(ESTIMATORS)
        found = run_coverage(args.cases, args.runs, work, heavy=args.heavy, names=names)
        path = RESULTS / ("coverage_heavy.json" if args.heavy else "coverage.json")
        content = {**provenance(level=LEVEL, seed=0), **found}
        if args.only:
            content = _added(json.loads(path.read_text()), found, args.only)
        write_json(path, content)
    elif args.part == "races":
        settings = {"n_banks": args.banks, "n_orders": args.orders, "n_cases": 32, "n_models": 20}
        found = run_races(**settings, n_jobs=args.jobs)
        write_json(RESULTS / "races.json", {**provenance(seed=0, **settings), **found})
    else:
        parser.error("name a part, or --smoke")


def _added(known: dict[str, Any], found: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A result file with rows of some estimators, and what those are of."""
    seen = {"commit": provenance()["commit"], **{k: v["runs"] for k, v in found.items()}}
    for size, table in found.items():
        known[size] |= {name: table[name] for name in names}
    return {**known, "added": known.get("added", {}) | dict.fromkeys(names, seen)}


def smoke() -> None:
    """Run every part a little, to see that it works."""
    truth = large_sample(50)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.npz"
        save_runs([simulate(4, seed, voxels=True, bootstrap=True) for seed in (0, 1)], path)
        table = coverage(load_runs(path), truth)
    assert table["CCFV"]["standard_error"] > 0
    table = run_races(1, 2, 12, 4)
    rows = [row for own in table.values() for row in own]
    assert all(0 < row["share_of_forward_passes"] <= 1 for row in rows)
    print("coverage and races: fine")


if __name__ == "__main__":
    main()
