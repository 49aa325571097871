"""What remains of a case's time when the network costs nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from skte import BankEntry
from skte.datasets import make_phantoms, read_case
from skte.estimators import recommended_estimators
from skte.extraction import sampled_voxels
from skte.selection import extractor_for

Shape = tuple[int, int, int]
_NORMAL = ", with z-normalisation"
_IN_A_ROW = 6  # cases


class Free(nn.Module):
    """Gives maps of the sizes of a U-Net's stages, which were made before."""

    def __init__(self, window: Shape, widths: tuple[int, ...] = (16, 32, 64, 128)) -> None:
        super().__init__()
        stages = [*range(len(widths)), *range(len(widths) - 2, -1, -1)]
        self.stages = nn.ModuleList(nn.Identity() for _ in stages)
        self.maps = [torch.rand(1, widths[i], *(n >> i for n in window)) for i in stages]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ignore the image."""
        for stage, values in zip(self.stages, self.maps, strict=True):
            x = stage(values)
        return x[:, :2]


def host(window: Shape, shape: Shape, rounds: int) -> dict[str, Any]:
    """Milliseconds of processor time of one case, by what they go to: medians over rounds."""
    network = Free(window).eval()
    cases = make_phantoms(1, size=shape)
    layers = [f"stages.{i}" for i in range(len(network.stages))]
    case = read_case(cases[0])
    found: dict[str, list[float]] = {}
    for title, steps in (("", ()), (_NORMAL, ("ZNormalization",))):
        entry = BankEntry.from_module(
            "free", network, window_size=window, preprocessing=list(steps)
        )
        extractor = extractor_for(
            recommended_estimators(), entry=entry, layers=layers, source_head=False
        ).fit(cases)
        transform = entry.transform()
        sides = {
            "reading and checking": lambda: read_case(cases[0]),
            "preprocessing": lambda t=transform: t and t(case.to_image()),
            "drawing voxels": lambda e=extractor: sampled_voxels(e, case),
            "in all": lambda e=extractor: e.transform(cases),
        }
        for _ in range(rounds):
            of = {name: 1000 * _seconds(run) for name, run in sides.items()}
            of["windows and layers"] = 2 * of["in all"] - sum(of.values())
            for name, value in of.items():
                found.setdefault(f"{name}{title}", []).append(value)
    many = make_phantoms(_IN_A_ROW, size=shape)  # the next one is read while one is in use
    wall = {
        "reading and preprocessing": lambda: [transform(read_case(one).to_image()) for one in many],
        "all of it": lambda: extractor.transform(many),
    }
    seconds = {name: statistics.median(_wall(run) for _ in range(3)) for name, run in wall.items()}
    median = {name: round(statistics.median(values), 1) for name, values in found.items()}
    reading = median[f"reading and checking{_NORMAL}"] + median[f"preprocessing{_NORMAL}"]
    return {
        "shape": shape,
        "window": window,
        "milliseconds": median,
        "after loading": round(median["in all"] - median["reading and checking"], 1),
        "in all over reading and preprocessing": round(median[f"in all{_NORMAL}"] / reading, 2),
        "the same in wall time": round(
            seconds["all of it"] / seconds["reading and preprocessing"], 2
        ),
    }


def _wall(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _seconds(run: Callable[[], Any]) -> float:
    """Processor time, with the memory that the process has: the next case finds it, too."""
    begun = time.process_time()
    run()
    return time.process_time() - begun
