"""Costs beside time: volume, memory, a second estimator."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.extraction import _published
from benchmarks.extraction._networks import NETWORKS
from skte import CCFV, GBC, BankEntry, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms

Shape = tuple[int, int, int]


def growth(name: str, window: Shape, small: Shape, rounds: int) -> dict[str, Any]:
    """Time of a case whose edges double, with max_windows=4."""
    network = NETWORKS[name](window).eval()
    entry = BankEntry.from_module(name, network, window_size=window)
    sides: dict[str, tuple[Any, Any]] = {}
    for label, factor in (("volume", 1), ("volume x 8", 2)):
        shape = (small[0] * factor, small[1] * factor, small[2] * factor)
        cases = make_phantoms(1, size=shape)
        sides[label] = (SegmentationFeatureExtractor(entry, max_windows=4).fit(cases), cases)
    rows: dict[str, list[dict[str, float]]] = {label: [] for label in sides}
    for _ in range(rounds):
        for label, (extractor, cases) in sides.items():
            begun = time.perf_counter()
            info = extractor.transform(cases)[0].info
            total = time.perf_counter() - begun
            rows[label].append(
                {"run": info["seconds_forward"], "total": total, "windows": info["n_windows"]}
            )
    median = {
        label: {k: round(statistics.median(row[k] for row in seen), 3) for k in seen[0]}
        for label, seen in rows.items()
    }
    small_one, large = median["volume"], median["volume x 8"]
    return {
        "shapes": [small, [2 * n for n in small]],
        "median": median,
        "own time, loading excluded": round(large["run"] / small_one["run"], 3),
        "with reading, sampling and preprocessing": round(large["total"] / small_one["total"], 3),
    }


def peak_memory(name: str, window: Shape, shape: Shape, rounds: int) -> dict[str, Any]:
    """Resident set of separate processes, in MiB: it differs by a tenth between runs."""
    peaks: dict[str, list[float]] = {}
    for _ in range(rounds):
        for side in ("bare", "skte", "published"):
            command = [sys.executable, "-m", "benchmarks.extraction._costs", side, name]
            command += [json.dumps(window), json.dumps(shape)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.setdefault(side, []).append(round(float(done.stdout.splitlines()[-1])))
    pairs = zip(peaks["skte"], peaks["bare"], strict=True)
    return {"MiB": peaks, "skte / bare": round(statistics.median(a / b for a, b in pairs), 3)}


def second_estimator(name: str, window: Shape, shape: Shape, n_cases: int) -> dict[str, Any]:
    """Time of another estimator when features are in the cache."""
    network = NETWORKS[name](window).eval()
    cases = make_phantoms(n_cases, size=shape)
    bank = [BankEntry.from_module(name, network, window_size=window)]
    seconds = {}
    with TemporaryDirectory() as folder:
        for label, estimator in (("first", CCFV()), ("second", LogME()), ("third", GBC())):
            begun = time.perf_counter()
            ModelBankSelector(estimator, cache=Path(folder) / "cache").fit(bank, cases)
            seconds[label] = round(time.perf_counter() - begun, 3)
    return {"seconds": seconds, "second / first": round(seconds["second"] / seconds["first"], 4)}


def _one_side(side: str, name: str, window: Sequence[int], shape: Sequence[int]) -> None:
    """Run one side in this process and print its peak memory."""
    network = NETWORKS[name](window).eval()
    cases = make_phantoms(1, size=tuple(shape))
    image = cases[0]["image"].data.float()
    if side == "bare":
        with torch.inference_mode():
            for place in _published.windows(shape, window, 0.0):
                network(image[(slice(None), *place)][None])
    else:
        entry = BankEntry.from_module(name, network, window_size=tuple(window))
        extractor = SegmentationFeatureExtractor(entry, overlap=0.0).fit(cases)
        if side == "published":
            layers = [layer.name for layer in extractor.layers_]
            voxels = np.random.default_rng(0).integers(0, shape, (1000, 3))
            _published.extract(network, layers, image, voxels, window)
        else:
            extractor.transform(cases)
    # Not getrusage: its peak counts the parent that this process was forked from.
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


if __name__ == "__main__":
    _one_side(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4]))
