"""Train small models, save them the ways six tools do, and rank them with one command.

    python -m benchmarks.mixed_bank --data DIR --out DIR

DIR holds datasets in the layout of the Medical Segmentation Decathlon. Every model is
trained on a task other than the target, on what its own preprocessing shows. Models
already in OUT are not trained again. ``--smoke`` does the same with phantoms in well
under a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torchio as tio

from benchmarks._provenance import data_folder, provenance, write_json
from benchmarks.mixed_bank._models import MODELS, Model
from benchmarks.real_bank.__main__ import ESTIMATORS, first_cases, rank
from skte import BankEntry, ModelBank
from skte.cli import main as main_of_skte
from skte.datasets import load_msd, make_phantoms
from skte.demo import TrainingCase, train_network, write_msd

RESULTS = Path(__file__).parent / "results"
TARGET = "Task04_Hippocampus"


def add_model(model: Model, data: Path, bank: Path, *, n_steps: int, n_cases: int) -> float:
    """Write a model, read it as skte does, train it on what it is shown, write it again."""
    labels = json.loads((data / model.task / "dataset.json").read_text())["labels"]
    torch.manual_seed(0)
    network = model.build(len(labels))
    model.write(model, bank, network, labels)
    (entry,) = ModelBank.from_folder(bank / model.folder)
    cases = shown_cases(entry, load_msd(data / model.task)[:n_cases])
    losses = train_network(network, cases, n_steps=n_steps, patch_size=model.patch)
    model.write(model, bank, network, labels)
    return sum(losses[-20:]) / len(losses[-20:])


def shown_cases(entry: BankEntry, subjects: list[Any]) -> list[TrainingCase]:
    """Return images as an entry's preprocessing leaves them, with labels on their grid."""
    transform = entry.transform()
    assert transform is not None
    cases = []
    for subject in subjects:
        image = transform(subject["image"])
        # Nearest neighbour; orders the axes as the image has them, too.
        label = tio.Resample((image.spatial_shape, image.affine))(subject["label"])
        cases.append(TrainingCase(image.data.float(), label.data[0].long()))
    return cases


def make_bank(data: Path, bank: Path, *, n_steps: int, n_cases: int) -> dict[str, Any]:
    """Make what is not there yet; returns how each model was trained, by its folder."""
    bank.mkdir(parents=True, exist_ok=True)
    notes_file = bank / "trained.json"
    notes: dict[str, Any] = json.loads(notes_file.read_text()) if notes_file.exists() else {}
    for model in MODELS:
        if model.missing:
            print(model.missing, flush=True)
            continue
        if model.folder in notes:
            continue
        begun = time.perf_counter()
        loss = add_model(model, data, bank, n_steps=n_steps, n_cases=n_cases)
        seconds = round(time.perf_counter() - begun, 1)
        notes[model.folder] = {"task": model.task, "n_steps": n_steps, "n_cases": n_cases}
        notes[model.folder] |= {"loss": round(loss, 4), "seconds": seconds}
        print(f"{model.folder}: loss {loss:.3f}, {seconds} s", flush=True)
        write_json(notes_file, notes)
    return notes


def entry_rows(bank: Path) -> dict[str, Any]:
    """Return where each entry comes from and what it sees, by its name."""
    return {
        entry.name: {
            "format": str(entry.provenance.get("format", "manifest")),
            "weights": Path(entry.weights or "").name,
            "window_size": entry.window_size,
            "preprocessing": [
                repr(step) if isinstance(step, tuple) else type(step).__name__
                for step in entry.preprocessing
            ],
        }
        for entry in ModelBank.from_folder(bank)
    }


def table(result: dict[str, Any]) -> str:
    """Return the ranking in Markdown: scores, with ranks in brackets."""
    ranked = [model for model in result["models"] if not model.get("reference")]
    rows = sorted(ranked, key=lambda model: model["rank"])
    lines = ["| model | saved as | " + " | ".join(ESTIMATORS) + " |", "|---" * 7 + "|"]
    for row in rows:
        entry = result["bank"][row["name"]]
        cells = [row["name"], f"{entry['format']}, `{entry['weights']}`"]
        cells += [f"{row[f'score_{e}']:.4g} ({row[f'rank_{e}']})" for e in ESTIMATORS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, rank, and write the result file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed_bank", description=__doc__)
    parser.add_argument("--data", help="folder of datasets (default: SKTE_DATA)")
    parser.add_argument("--out", default="mixed_bank", help="folder for bank and target cases")
    parser.add_argument("--steps", type=int, default=200, help="of training, for each model")
    parser.add_argument("--train-cases", type=int, default=6, help="for each model")
    parser.add_argument("--cases", type=int, default=20, help="of the target to rank on")
    parser.add_argument("--smoke", action="store_true", help="phantoms, few steps, no file")
    args = parser.parse_args()
    if args.smoke:
        smoke()
        return
    data, out = data_folder(args.data), Path(args.out)
    training = make_bank(data, out / "bank", n_steps=args.steps, n_cases=args.train_cases)
    target = out / f"first_{args.cases}" / TARGET
    first_cases(data / TARGET, args.cases, target)
    result = rank(out / "bank", target, out / f"{TARGET}.json")
    result |= {"bank": entry_rows(out / "bank"), "training": training}
    result |= {"data": TARGET, "n_cases": args.cases}
    write_json(RESULTS / f"{TARGET}.json", {**provenance(seed=0), **result})
    print(f"\n{TARGET}: {result['seconds']} s, {result['peak_memory_mib']} MiB")
    print(table(result))


def smoke() -> None:
    """Run every step on phantoms, to see that the script works."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for name in sorted({TARGET, *(model.task for model in MODELS)}):
            write_msd(out / "data" / name, make_phantoms(2, size=(24, 24, 24)), name)
        training = make_bank(out / "data", out / "bank", n_steps=2, n_cases=2)
        result = rank(out / "bank", out / "data" / TARGET, out / "ranking.json", main_of_skte)
        result["bank"] = entry_rows(out / "bank")
        print(table(result))
        if sum(not row.get("reference") for row in result["models"]) != len(training):
            sys.exit("not every model of the bank was ranked")


if __name__ == "__main__":
    main()
