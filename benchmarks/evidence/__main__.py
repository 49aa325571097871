"""Does a ranking pick the model that fine-tunes best?

python -m benchmarks.evidence run --data DIR --out DIR     # hours; goes on after a kill
python -m benchmarks.evidence --smoke                      # phantoms, under a minute
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks._provenance import data_folder, provenance, write_json
from benchmarks.evidence._cost import cost
from benchmarks.evidence._driver import run
from benchmarks.evidence._embedding import embed
from benchmarks.evidence._jobs import KINDS
from benchmarks.evidence._noise import ENOUGH, LEARNT, seed_agreement
from benchmarks.evidence._page import write_page
from benchmarks.evidence._protocol import FULL, SMOKE, Study
from benchmarks.evidence._scores import ABLATION, CONTENDERS, ESTIMATORS, jackknifed, models_of
from benchmarks.evidence._search import terms
from benchmarks.evidence._variants import variants

RESULTS = Path(__file__).parent / "results"


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
    running.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of job")
    noise = commands.add_parser("noise", help="compare fine-tuning seeds")
    noise.add_argument("--out", required=True, type=Path, help="as for run")
    noise.add_argument("--label", help="also write results/noise_LABEL.json")
    scoring = commands.add_parser("score", help="score the banks, write the result files")
    scoring.add_argument("--out", required=True, type=Path, help="as for run")
    scoring.add_argument("--targets", nargs="+", default=[task.name for task in FULL.tasks])
    scoring.add_argument("--jobs", type=int, default=2, help="models at a time")
    costing = commands.add_parser("cost", help="time ranking beside fine-tuning")
    costing.add_argument("--out", required=True, type=Path, help="as for run")
    commands.add_parser("page", help="write tables and figures")
    args = parser.parse_args()
    if args.smoke:
        smoke()
    elif args.command == "run":
        run(FULL, args.targets, data_folder(args.data), args.out, args.jobs, args.kinds)
        print_noise(FULL, args.out)
    elif args.command == "noise":
        print_noise(FULL, args.out, args.label)
    elif args.command == "score":
        for target in args.targets:
            write_result(FULL, target, args.out, RESULTS, args.jobs)
    elif args.command == "cost":
        write_json(RESULTS / "cost.json", {**provenance(seed=0), **costs(FULL, args.out)})
    elif args.command == "page":
        results = [json.loads((RESULTS / f"{t.name}.json").read_text()) for t in FULL.tasks]
        write_page(results, json.loads((RESULTS / "cost.json").read_text()))
    else:
        parser.error("give a command, or --smoke")


def print_noise(study: Study, out: Path, label: str | None = None) -> None:
    """Print, for each target that is done, how far two seeds agree."""
    found = [seed_agreement(study, task.name, out) for task in study.tasks]
    done = [one for one in found if one is not None]
    for one in done:
        tau = one["weighted_kendall"]
        verdict = "enough" if tau >= ENOUGH else "too noisy to judge an estimator by"
        if one["best_dice"] < LEARNT:
            verdict = f"but no model learnt the task: the best Dice is {one['best_dice']:.2f}"
        print(f"{one['target']}: two seeds agree at weighted Kendall {tau:.2f}, {verdict}")
    if label:
        settings = {**asdict(study), "seed": 0}
        content = {**provenance(study=settings), "targets": done}
        write_json(RESULTS / f"noise_{label}.json", content)


def write_result(
    study: Study,
    target: str,
    out: Path,
    results: Path,
    n_jobs: int,
    estimators: Sequence[str] = tuple(ESTIMATORS),
) -> None:
    """Score a target's bank in every way, and write one file of it."""
    chosen = {name: ESTIMATORS[name] for name in estimators}
    content = {
        "target": target,
        "models": models_of(study, target, out),
        "scores": jackknifed(chosen, study, target, out, n_jobs),
        "ablation": jackknifed(ABLATION, study, target, out, n_jobs),
        "variants": variants(study, target, out, n_jobs, CONTENDERS),
        "terms": terms(study, target, out, n_jobs),
        "embedding": embed(study, target, out),
    }
    settings = {**asdict(study), "seed": 0}
    write_json(results / f"{target}.json", {**provenance(study=settings), **content})
    print(f"{target}: {len(content['models'])} models", flush=True)


def costs(study: Study, out: Path) -> dict[str, Any]:
    """Time ranking and fine-tuning on every target."""
    return {task.name: cost(study, task.name, out) for task in study.tasks}


def smoke() -> None:
    """Run every step on phantoms, to see that the study works."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        name = SMOKE.tasks[0].name
        run(SMOKE, [name], None, out, None)
        print_noise(SMOKE, out)
        write_result(SMOKE, name, out, out / "results", 1, ("CCFV", "RCFV", "LEEP"))
        written = json.loads((out / "results" / f"{name}.json").read_text())
        twice = [written, {**written, "target": "again"}]  # to hold one out of
        seconds = cost(SMOKE, name, out)
        (out / "README.md").write_text("<!-- evidence: begin -->\n<!-- evidence: end -->\n")
        write_page(twice, {name: seconds, "again": seconds}, docs=out, readme=out / "README.md")
        print((out / "README.md").read_text())


if __name__ == "__main__":
    main()
