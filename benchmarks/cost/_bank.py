"""A bank of twenty on forty cases by ``skte rank``, beside fine-tuning one model once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks._provenance import data_folder
from benchmarks.cost._timing import cost
from skte.datasets import load_dataset, make_phantoms
from skte.demo import prepare_cases, small_unet, train_network, write_msd
from skte.metrics import weighted_kendall_score

_PRETRAINED, _STEPS = 60, 40  # steps before the ranking, and those of fine-tuning that are timed
_WINDOW = (40, 56, 40)  # about a hippocampus
_WHOLE = 250_000  # steps of nnU-Net's default schedule


def bank(
    data: Path | None, n_models: int, n_cases: int, n_jobs: int, widths: tuple[int, ...]
) -> dict[str, Any]:
    """Wall and processor time of the default and of a race.

    The models are one network, pre-trained on other cases, and copies of it whose weights
    carry more and more noise, so that there is a best one to find.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        window = _WINDOW if data else (24, 24, 24)
        if data is None:
            write_msd(folder / "data", make_phantoms(n_cases + 4, size=(24, 24, 24)), "phantoms")
            data, n_classes = folder / "data", 2
        else:
            data, n_classes = data / "Task04_Hippocampus", 3
        cases = load_dataset(data)
        network = _write_bank(folder, cases[n_cases:], n_classes, n_models, widths)
        ids = [case["case_id"] for case in cases[:n_cases]]
        common = ["--bank", str(folder / "bank.json"), "--data", str(data), "--cases", *ids]
        common += ["--n-jobs", str(n_jobs), "--quiet", "--window", *map(str, window)]
        rows = {
            "default": _command(folder, common),
            "race": _command(folder, [*common, "--race"]),
        }
        step = _step(network, cases[:n_cases], n_classes)
    default, race = rows["default"], rows["race"]
    scores = [[row["scores"][k] for k in default["scores"]] for row in (default, race)]
    found = {
        "winner of the race is at rank": 1
        + sum(v > default["scores"][race["first"]] for v in default["scores"].values()),
        "weighted Kendall of the race with the default": round(weighted_kendall_score(*scores), 2),
        "race over default, processor": round(race["processor"] / default["processor"], 2),
    }
    for row in rows.values():
        del row["scores"]
    return {
        "n_models": n_models, "n_cases": n_cases, "n_jobs": n_jobs, "widths": widths,
        "rows": rows, **found,
        "fine-tuning": {
            "seconds per step, processor": round(step, 3),
            "steps measured": _STEPS,
            "steps of nnU-Net's schedule": _WHOLE,
            "hours of that, extrapolated": round(step * _WHOLE / 3600, 1),
            "steps that cost as much as the default": round(default["processor"] / step),
            "steps that cost as much as the race": round(race["processor"] / step),
        },
    }  # fmt: skip


def _write_bank(folder: Path, cases: Any, n_classes: int, n_models: int, widths: Any) -> Any:
    """Write the manifest; return the pre-trained network."""
    torch.manual_seed(0)
    network = small_unet(n_classes=n_classes, widths=widths)
    prepared = prepare_cases(cases[:40], range(n_classes))
    train_network(network, prepared, n_steps=_PRETRAINED, patch_size=32)
    models = []
    for i, noise in enumerate(np.linspace(0, 2, n_models)):
        weights = {
            key: value + noise * value.std(correction=0) * torch.randn_like(value)
            for key, value in network.state_dict().items()
        }
        torch.save(weights, folder / f"noise-{i:02d}.pt")
        models.append({"name": f"noise-{i:02d}", "weights": f"noise-{i:02d}.pt"})
    defaults = {
        "factory": "skte.demo:small_unet",
        "arguments": {"n_classes": n_classes, "widths": list(widths)},
        "preprocessing": ["ZNormalization"],
    }
    (folder / "bank.json").write_text(json.dumps({"defaults": defaults, "models": models}))
    return network


def _command(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """Run ``skte rank``: processor time is that of all its processes."""
    out = folder / "ranking.json"
    environment = {k: v for k, v in os.environ.items() if not k.endswith("NUM_THREADS")}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "skte", "rank", *arguments, "--out", str(out)],
        check=True,
        env=environment,
    )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    models = [one for one in json.loads(out.read_text()) if not one.get("reference")]
    best = min(models, key=lambda one: one["rank"])
    return {
        "wall": round(wall, 1),
        "processor": round(used, 1),
        "forward passes": sum(one["n_windows"] for one in models),
        "first": best["name"],
        "scores": {one["name"]: one["score"] for one in models},
    }


def _step(network: Any, cases: Any, n_classes: int) -> float:
    """Seconds of a step of fine-tuning: two patches of the size of a window."""
    prepared = prepare_cases(cases, range(n_classes))
    torch.set_num_threads(1)
    steps = 2 if len(cases) < 10 else _STEPS
    taken = cost(lambda: train_network(network, prepared, n_steps=steps, patch_size=_WINDOW))
    return taken.seconds / steps


def tasks(argument: str | None) -> Path | None:
    """Folder of the real images; None where there are none."""
    try:
        return data_folder(argument)
    except SystemExit:
        return None
