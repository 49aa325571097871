"""Time extraction beside bare forward passes, MONAI's sliding window and the paper's way.

    python -m benchmarks.extraction            # about fifteen minutes on two cores
    python -m benchmarks.extraction --smoke    # small volumes, seconds, no result file

The same network, weights, volume and voxels on all sides; rounds alternate, and the
ratio is the median over rounds. Wall time: forward passes use all cores.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from benchmarks._provenance import provenance, write_json
from benchmarks.extraction import _costs, _published
from benchmarks.extraction._networks import NETWORKS
from skte import BankEntry, SegmentationFeatureExtractor
from skte.datasets import make_phantoms

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Setting:
    """What is run."""

    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    rounds: int
    networks: Sequence[str]
    few: Sequence[str] = ()  # networks that go through fewer comparisons

    @classmethod
    def of(cls, smoke: bool) -> Setting:
        if smoke:
            return cls((40, 40, 32), (32, 32, 32), 1, ("unet-8",))
        return cls((160, 160, 128), (96, 96, 96), 2, ("unet-16",), ("unet-32", "unetr"))


class Subject:
    """One network, one volume, and every way to run the one over the other."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting, self.name = setting, name
        self.network = NETWORKS[name](setting.window).eval()
        self.entry = BankEntry.from_module(name, self.network, window_size=setting.window)
        self.cases = make_phantoms(1, size=setting.shape)
        self.image = self.cases[0]["image"].data.float()
        self.infos: dict[str, dict[str, Any]] = {}  # windows and seconds of the last case

    def skte(self, **params: Any) -> Callable[[], Any]:
        extractor = SegmentationFeatureExtractor(self.entry, **params).fit(self.cases)

        def run() -> None:
            info = extractor.transform(self.cases)[0].info
            self.infos[str(params)] = {k: round(v, 3) for k, v in info.items()}

        return run

    def bare(self) -> None:
        with torch.inference_mode():
            for place in _published.windows(self.setting.shape, self.setting.window, 0.0):
                self.network(self.image[(slice(None), *place)][None])

    def monai(self) -> None:
        with torch.inference_mode():
            sliding_window_inference(
                self.image[None], self.setting.window, 1, self.network, overlap=0.5
            )

    def published(self) -> Callable[[], Any]:
        extractor = SegmentationFeatureExtractor(self.entry).fit(self.cases)
        layers = [layer.name for layer in extractor.layers_]
        label = self.cases[0]["label"].data[0].numpy()
        rng = np.random.default_rng(0)
        voxels = [rng.integers(0, self.setting.shape, (500, 3))]
        for value in np.unique(label):
            here = np.argwhere(label == value)
            voxels.append(here[rng.permutation(len(here))[:500]])
        sample = np.concatenate(voxels)
        return lambda: _published.extract(
            self.network, layers, self.image, sample, self.setting.window
        )


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            gc.collect()
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
            print(f"  {name}: {seconds[name][-1]:.1f} s", flush=True)
    return seconds


def ratio(seconds: dict[str, list[float]], ours: str, theirs: str) -> float:
    pairs = zip(seconds[ours], seconds[theirs], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def compare_few(subject: Subject) -> dict[str, Any]:
    """Bare passes beside ours, for networks that take long."""
    sides = {
        "bare grid, no overlap": subject.bare,
        "skte, overlap 0": subject.skte(overlap=0.0),
        "skte, max_windows=4": subject.skte(max_windows=4),
    }
    seconds = in_turn(sides, subject.setting.rounds)
    return {
        "network": subject.name,
        "seconds": {k: [round(s, 3) for s in v] for k, v in seconds.items()},
        "ratios": {
            "skte (overlap 0) / bare": ratio(seconds, "skte, overlap 0", "bare grid, no overlap")
        },
    }


def compare(subject: Subject) -> dict[str, Any]:
    """Every bar of a table, for one network."""
    sides = {
        "bare grid, no overlap": subject.bare,
        "MONAI sliding window, overlap 0.5": subject.monai,
        "published": subject.published(),
        "skte, overlap 0": subject.skte(overlap=0.0),
        "skte, max_windows=4": subject.skte(max_windows=4),
        "skte, foreground, cover": subject.skte(windows="cover", overlap=0.25, n_case_samples=1),
    }
    seconds = in_turn(sides, subject.setting.rounds)
    ratios = {
        "skte (overlap 0) / bare": ratio(seconds, "skte, overlap 0", "bare grid, no overlap"),
        "skte (overlap 0) / MONAI": ratio(
            seconds, "skte, overlap 0", "MONAI sliding window, overlap 0.5"
        ),
        **{
            f"published / {name}": ratio(seconds, "published", name)
            for name in sides
            if name.startswith("skte")
        },
    }
    return {
        "network": subject.name,
        "seconds": {k: [round(s, 3) for s in v] for k, v in seconds.items()},
        "last case": subject.infos,
        "ratios": ratios,
    }


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="small volumes, no result file")
    parser.add_argument("--only", nargs="+", help="measure these parts again, keep the others")
    args = parser.parse_args()
    setting = Setting.of(args.smoke)
    path = RESULTS / "extraction.json"
    content: dict[str, Any] = json.loads(path.read_text()) if args.only else {"networks": []}
    name, window, shape = setting.networks[0], setting.window, setting.shape
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    small = (window[0] // 2, window[1] // 2, window[2] // 2)
    if not args.only:
        for each in setting.networks:
            content["networks"].append(compare(Subject(setting, each)))
            print(json.dumps(content["networks"][-1], indent=1), flush=True)
    for title, measure in {
        "volume": lambda: _costs.growth(name, small, half, setting.rounds),
        "memory": lambda: _costs.peak_memory(name, window, shape),
        "all voxels": lambda: _costs.all_voxels(name, window, shape, setting.rounds),
        "second estimator": lambda: _costs.second_estimator(name, window, half, 6),
    }.items():
        if not args.only or title in args.only:
            content[title] = {**measure(), "commit": provenance()["commit"]}
            print(title, json.dumps(content[title], indent=1), flush=True)
    if not args.only:
        # Larger networks on smaller windows, so that the whole takes minutes.
        fewer = replace(setting, shape=half, window=small)
        for other in setting.few:
            content["networks"].append(compare_few(Subject(fewer, other)))
            print(json.dumps(content["networks"][-1], indent=1), flush=True)
    if not args.smoke:
        write_json(path, content if args.only else {**provenance(seed=0), **content})


if __name__ == "__main__":
    main()
