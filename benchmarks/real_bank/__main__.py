"""Pre-train small networks on real tasks and rank them for others with ``skte rank``.

    python -m benchmarks.real_bank --data DIR --out DIR
    python -m benchmarks.real_bank --data DIR --out DIR --fine-tune

DIR holds datasets in the layout of the Medical Segmentation Decathlon. For each
target, the bank holds the networks of all *other* tasks and two without any
training. Weights already in OUT are not trained again. ``--fine-tune`` trains each of
them on the first cases of its targets, which `benchmarks.plans` ranks by, and writes the
Dice on others to OUT. ``--smoke`` does the same with phantoms in well under a minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._provenance import data_folder, provenance, write_json
from skte.cli import main as main_of_skte
from skte.datasets import load_msd, make_phantoms
from skte.demo import (
    load_body,
    mean_foreground_dice,
    prepare_cases,
    small_unet,
    train_network,
)
from skte.estimators import recommended_estimators

#: The paper's five, which read the decoder, and what skte recommends, which reads all stages.
ESTIMATORS = ("ccfv", "logme", "leep", "gbc", "transrate")
RECOMMENDED = tuple(recommended_estimators())
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Source:
    """A task to pre-train on, and how."""

    task: str
    n_classes: int
    widths: tuple[int, ...]
    n_steps: int

    @property
    def name(self) -> str:
        trained = f"{self.n_steps}steps" if self.n_steps else "untrained"
        return f"{self.task}_w{self.widths[0]}_{trained}"


SOURCES = [
    Source(task, n_classes, widths, n_steps)
    for task, n_classes in {
        "Heart_ACDC": 4,
        "HeadNeck_CT": 6,
        "LeftAtrium": 2,
        "Spine_T1": 6,
        "Task04_Hippocampus": 3,
    }.items()
    for widths, n_steps in (((8, 16, 32), 300), ((4, 8, 16), 300))
]
UNTRAINED = [Source("none", 3, widths, 0) for widths in ((8, 16, 32), (4, 8, 16))]
TARGETS = ("Task04_Hippocampus", "Heart_ACDC", "HeadNeck_CT", "Spine_T1")


def pretrain(source: Source, cases: list[Any], out: Path, patch: tuple[int, ...]) -> None:
    """Train one network, unless its weights are there already."""
    path = out / f"{source.name}.pt"
    if path.exists():
        return
    torch.manual_seed(0)
    network = small_unet(n_classes=source.n_classes, widths=source.widths)
    begun, losses = time.perf_counter(), [float("nan")]
    if source.n_steps:
        prepared = prepare_cases(cases, class_ids=range(source.n_classes))
        losses = train_network(network, prepared, n_steps=source.n_steps, patch_size=patch)
    temporary = path.with_suffix(".tmp")
    torch.save(network.state_dict(), temporary)
    temporary.replace(path)
    final = sum(losses[-20:]) / len(losses[-20:])
    print(f"{source.name}: loss {final:.3f}, {time.perf_counter() - begun:.0f} s", flush=True)


def patch_of(task: str) -> tuple[int, ...]:
    """Edges of the patches that a task is trained on."""
    return (48, 48, 16) if task == "Heart_ACDC" else (32, 32, 32)


def bank_for(target: str) -> list[Source]:
    """Networks of all other tasks, and untrained ones."""
    return [source for source in SOURCES if source.task != target] + UNTRAINED


#: Fine-tuning: cases to train on (the first), to test on (the last), steps, runs of each network.
TUNING = {"train": 12, "test": 15, "steps": 200, "seeds": 1}


def fine_tune(
    target: str, subjects: Sequence[Any], out: Path, seed: int, tuning: dict[str, int] = TUNING
) -> dict[str, list[float]]:
    """Fine-tune each network of a target's bank; Dice by its name, one for each seed so far."""
    path = out / f"dice_{target}.json"
    found: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}
    n_classes = next(source.n_classes for source in SOURCES if source.task == target)
    parts = subjects[: tuning["train"]], subjects[-tuning["test"] :]
    train, test = (prepare_cases(part, range(n_classes)) for part in parts)
    for source in bank_for(target):
        runs = found.setdefault(source.name, [])
        if len(runs) > seed:
            continue
        torch.manual_seed(seed)  # of the new head
        network = small_unet(n_classes=n_classes, widths=source.widths)
        load_body(network, torch.load(out / f"{source.name}.pt", weights_only=True))
        train_network(
            network, train, n_steps=tuning["steps"], patch_size=patch_of(target),
            random_state=seed,
        )  # fmt: skip
        runs.append(round(mean_foreground_dice(network, test), 4))
        path.write_text(json.dumps(found))
        print(f"{target}, {source.name}: {runs}", flush=True)
    return found


def write_manifest(sources: list[Source], path: Path) -> None:
    """Write a bank manifest beside the weights."""
    entries = [
        {
            "name": source.name,
            "factory": "skte.demo:small_unet",
            "arguments": {"n_classes": source.n_classes, "widths": list(source.widths)},
            "weights": f"{source.name}.pt",
            "preprocessing": ["ZNormalization"],
            "provenance": asdict(source),
        }
        for source in sources
    ]
    path.write_text(json.dumps({"models": entries}, indent=1))


def first_cases(data: Path, n: int, out: Path) -> Path:
    """Copy the first cases of a dataset into a folder of their own."""
    description = json.loads((data / "dataset.json").read_text())
    description["training"] = description["training"][:n]
    description["numTraining"] = len(description["training"])
    for pair in description["training"]:
        for file in (pair["image"], pair["label"]):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / file, out / file)
    (out / "dataset.json").write_text(json.dumps(description))
    return out


def in_process(arguments: Sequence[str]) -> None:
    """Run ``skte`` in a process of its own, whose memory is its own."""
    command = [sys.executable, "-m", "skte", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def rank(
    manifest: Path, data: Path, out: Path, run: Callable[[list[str]], Any] = in_process
) -> dict[str, Any]:
    """Run ``skte rank`` twice, and note time and memory."""
    begun = time.perf_counter()
    models = _rank(manifest, data, out, ESTIMATORS, run)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    recommended = _rank(manifest, data, out.with_name(f"recommended_{out.name}"), RECOMMENDED, run)
    return {
        "seconds": round(seconds, 1),
        "peak_memory_mib": round(peak),
        "models": models,
        "recommended": recommended,
    }


def _rank(
    manifest: Path,
    data: Path,
    out: Path,
    estimators: Sequence[str],
    run: Callable[[list[str]], Any],
) -> Any:
    arguments = ["rank", "--bank", str(manifest), "--data", str(data)]
    arguments += [part for name in estimators for part in ("--estimator", name)]
    run([*arguments, "--out", str(out)])
    return json.loads(out.read_text())


def _table(result: dict[str, Any]) -> str:
    ranked = [model for model in result["models"] if not model.get("reference")]
    rows = sorted(ranked, key=lambda model: model["rank"])
    head = "| model | " + " | ".join(ESTIMATORS) + " |"
    lines = [head, "|---|" + "---|" * len(ESTIMATORS)]
    for row in rows:
        cells = [f"{row[f'score_{e}']:.4g} ({row[f'rank_{e}']})" for e in ESTIMATORS]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Pre-train, rank, and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder of datasets (default: SKTE_DATA)")
    parser.add_argument("--out", help="folder for weights and manifests")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--cases", type=int, default=40, help="cases of each target to rank on")
    parser.add_argument("--fine-tune", action="store_true", help="only fine-tune what is there")
    parser.add_argument("--smoke", action="store_true", help="phantoms, two models, few steps")
    args = parser.parse_args()
    if args.smoke:
        smoke()
        return
    data, out = data_folder(args.data), Path(args.out or "real_bank")
    out.mkdir(parents=True, exist_ok=True)
    if args.fine_tune:
        for seed, target in itertools.product(range(TUNING["seeds"]), args.targets):
            fine_tune(target, load_msd(data / target), out, seed)
        return
    for source in [*SOURCES, *UNTRAINED]:
        cases = load_msd(data / source.task) if source.n_steps else []
        pretrain(source, cases, out, patch_of(source.task))
    for target in args.targets:
        bank = bank_for(target)
        manifest = out / f"bank_for_{target}.json"
        write_manifest(bank, manifest)
        cases = first_cases(data / target, args.cases, out / f"{target}_{args.cases}")
        result = rank(manifest, cases, out / f"{target}.json")
        result.update(bank=manifest.name, data=target, n_cases=args.cases)
        write_json(RESULTS / f"{target}.json", {**provenance(seed=0), **result})
        print(f"\n{target}: {result['seconds']} s, {result['peak_memory_mib']} MiB")
        print(_table(result), flush=True)


def smoke() -> None:
    """Run every step on phantoms, to see that the script works."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        cases = make_phantoms(3, size=(16, 16, 16))
        for kind in ("image", "label"):
            (out / f"{kind}s").mkdir()
            for i, case in enumerate(cases):
                case[kind].save(out / f"{kind}s" / f"case{i}.nii.gz")
        sources = [Source("phantoms", 3, (4, 8), steps) for steps in (0, 3)]
        for source in sources:
            pretrain(source, cases, out, (16, 16, 16))
        write_manifest(sources, out / "bank.json")
        result = rank(out / "bank.json", out, out / "ranking.json", main_of_skte)
        print(_table(result))
        assert sum(not row.get("reference") for row in result["models"]) == len(sources)


if __name__ == "__main__":
    main()
