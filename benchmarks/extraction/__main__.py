"""Time extraction beside bare forward passes, MONAI's sliding window and the paper's way.

    python -m benchmarks.extraction            # about fifteen minutes on two cores
    python -m benchmarks.extraction --smoke    # small volumes, seconds, no result file

The same network, weights, volume and voxels on all sides; rounds alternate, and the
ratio is the median over rounds. Wall time: forward passes use all cores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from benchmarks._provenance import provenance, write_json
from benchmarks.extraction import _costs, _few, _gpu, _published
from benchmarks.extraction._networks import NETWORKS
from benchmarks.extraction._switches import switches
from benchmarks.extraction._timing import (
    clock,
    count_cpu_time,
    in_turn,
    ratio,
    rounded,
)
from skte import BankEntry, SegmentationFeatureExtractor
from skte.datasets import make_phantoms

RESULTS = Path(__file__).parent / "results"

Shape = tuple[int, int, int]
_CUBE, _TWO_CUBES = (64, 64, 64), (128, 64, 64)


@dataclass(frozen=True)
class Setting:
    """What is run."""

    shape: Shape
    window: Shape
    rounds: int
    networks: Sequence[str]
    others: Sequence[str] = ()  # networks that go through fewer comparisons

    @classmethod
    def of(cls, smoke: bool) -> Setting:
        if smoke:
            return cls((40, 40, 32), (32, 32, 32), 1, ("unet-8",))
        return cls(
            (160, 160, 128), (96, 96, 96), 2, ("unet-16",), ("unet-32", "unetr", "swin-unetr")
        )


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


def over_bare(name: str, window: Shape, shape: Shape, rounds: int) -> dict[str, Any]:
    """Extraction over bare passes of the same windows, for one of the other networks."""
    subject = Subject(Setting(shape, window, rounds, (name,)), name)
    sides = {
        "bare": subject.bare,
        "skte, overlap 0": subject.skte(overlap=0.0),
        "skte, overlap 0, no head": subject.skte(overlap=0.0, source_head=False),
    }
    seconds = in_turn(sides, rounds)
    return {
        "seconds": rounded(seconds),
        "over bare": {k: ratio(seconds, k, "bare") for k in sides if k != "bare"},
        "last case": subject.infos,
    }


def compare(subject: Subject) -> dict[str, Any]:
    """Every bar of a table, for one network."""
    sides = {
        "bare grid, no overlap": subject.bare,
        "MONAI sliding window, overlap 0.5": subject.monai,
        "published": subject.published(),
        "skte, overlap 0": subject.skte(overlap=0.0),
        "skte, max_windows=4": subject.skte(max_windows=4),
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
        "seconds": rounded(seconds),
        "last case": subject.infos,
        "ratios": ratios,
    }


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="small volumes, no result file")
    parser.add_argument("--only", nargs="+", help="measure these parts again, keep the others")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="of these parts")
    parser.add_argument("--rounds", type=int, help="how often each side runs")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time, on one thread: busy machines"
    )
    args = parser.parse_args()
    if args.cpu_time:
        count_cpu_time()
    setting = Setting.of(args.smoke)
    path = RESULTS / "extraction.json"
    content: dict[str, Any] = json.loads(path.read_text()) if args.only else {}
    name, window, shape = setting.networks[0], setting.window, setting.shape
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    small = (window[0] // 2, window[1] // 2, window[2] // 2)
    others = args.networks or (name, *setting.others)
    more = args.rounds or (1 if args.smoke else 5)
    cube, two_cubes = (window, (2 * window[0], *window[1:])) if args.smoke else (_CUBE, _TWO_CUBES)
    setting = replace(setting, rounds=args.rounds or setting.rounds)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "networks": lambda: {n: compare(Subject(setting, n)) for n in setting.networks},
        "volume": lambda: _costs.growth(name, small, half, setting.rounds),
        "memory": lambda: _costs.peak_memory(name, window, shape, more),
        "second estimator": lambda: _costs.second_estimator(
            name, window, half, 2 if args.smoke else 6
        ),
        "few windows": lambda: _few.few_windows(name, window, shape, setting.rounds),
        # The same windows of half the edges: more rounds in the same time.
        "few windows, half size": lambda: _few.few_windows(name, small, half, more),
        "scaling": lambda: _few.scaling(name, small, half, more),
        # Transformers take multiples of 32.
        "over bare": lambda: {n: over_bare(n, cube, two_cubes, more) for n in others},
        "switches": lambda: {n: switches(n, cube, more) for n in others},
        "gpu": lambda: _gpu.gpu(others, window, shape, more),
    }
    if args.smoke:
        del parts["few windows, half size"]  # the same again
    for title, measure in parts.items():
        if not args.only or title in args.only:
            kept = content.get(title, {}) if args.networks else {}
            content[title] = {**kept, **measure(), **_when()}
            print(title, json.dumps(content[title], indent=1), flush=True)
            if not args.smoke:  # a part that is done stays, whatever happens to the next
                # Other parts may have been measured meanwhile.
                kept = json.loads(path.read_text()) if args.only else provenance(seed=0)
                write_json(
                    path, {**kept, **(content if not args.only else {title: content[title]})}
                )


def _when() -> dict[str, Any]:
    """Commit and load of the machine: processes that ran or waited, over one minute."""
    seen = provenance()
    return {
        "commit": seen["commit"],
        "uncommitted_changes": seen["uncommitted_changes"],
        "clock": clock(),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
