"""The same comparisons on a GPU, and its scores beside those of the CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from benchmarks.cost import _published
from benchmarks.cost._networks import NETWORKS
from benchmarks.cost._switches import outputs
from benchmarks.cost._timing import in_turn, ratio, rounded
from skte import BankEntry, SegmentationFeatureExtractor
from skte.bank import find_layers
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.estimators import __all__ as estimator_names
from skte.extraction._runner import whole_float32

Shape = tuple[int, int, int]
_CUDA = torch.device("cuda")
_BASE = "inference_mode, whole float32 (as skte runs)"


def gpu(names: Sequence[str], window: Shape, shape: Shape, rounds: int) -> dict[str, Any]:
    """All of it; a line that says why where there is no GPU."""
    if not torch.cuda.is_available():
        return {"left out": "no GPU here"}
    return {
        "device": torch.cuda.get_device_name(),
        "cores": torch.get_num_threads(),
        "networks": {name: _compare(name, window, shape, rounds) for name in names},
        "switches": {name: _switches(name, window, rounds) for name in names},
        "scores": _scores(),
    }


def _compare(name: str, window: Shape, shape: Shape, rounds: int) -> dict[str, Any]:
    network = NETWORKS[name](window).eval().to(_CUDA)
    entry = BankEntry.from_module(name, network, window_size=window)
    cases = make_phantoms(1, size=shape)
    image = cases[0]["image"].data.float()
    infos: dict[str, Any] = {}

    def bare() -> None:
        with torch.inference_mode(), whole_float32(_CUDA):
            for place in _published.windows(shape, window, 0.0):
                network(image[(slice(None), *place)][None].to(_CUDA))
            torch.cuda.synchronize()

    def monai() -> None:
        with torch.inference_mode(), whole_float32(_CUDA):
            sliding_window_inference(image[None].to(_CUDA), window, 1, network, overlap=0.5)
            torch.cuda.synchronize()

    def skte(**params: Any) -> Callable[[], None]:
        extractor = SegmentationFeatureExtractor(entry, device="cuda", **params).fit(cases)

        def run() -> None:
            info = extractor.transform(cases)[0].info
            infos[str(params)] = {k: round(v, 3) for k, v in info.items()}

        return run

    sides = {
        "bare grid, no overlap": bare,
        "MONAI sliding window, overlap 0.5": monai,
        "skte, overlap 0": skte(overlap=0.0),
        "skte, region of interest": skte(samples="roi"),
    }
    in_turn(sides, 1, time.perf_counter)  # kernels are chosen and loaded in the first pass
    torch.cuda.reset_peak_memory_stats()
    seconds = in_turn(sides, rounds, time.perf_counter)
    return {
        "seconds": rounded(seconds),
        "over bare": {k: ratio(seconds, k, "bare grid, no overlap") for k in sides},
        "skte (overlap 0) / MONAI": ratio(
            seconds, "skte, overlap 0", "MONAI sliding window, overlap 0.5"
        ),
        "last case": infos,
    }


def _switches(name: str, window: Shape, rounds: int) -> dict[str, Any]:
    """Milliseconds a window, and features beside those of the plain pass."""
    network = NETWORKS[name](window).eval().to(_CUDA)
    torch.manual_seed(0)
    batch = torch.randn(4, 1, *window, device=_CUDA)
    layers = [layer.name for layer in find_layers(network, "auto", batch[:1])]
    sides: dict[str, tuple[list[Callable[[], AbstractContextManager[Any]]], int]] = {
        _BASE: ([lambda: whole_float32(_CUDA)], 1),
        "TF32 in convolutions (torch's default)": ([], 1),
        "autocast to bfloat16": ([lambda: torch.autocast("cuda", torch.bfloat16)], 1),
        "autocast to float16": ([lambda: torch.autocast("cuda", torch.float16)], 1),
        "2 windows a pass": ([lambda: whole_float32(_CUDA)], 2),
        "4 windows a pass": ([lambda: whole_float32(_CUDA)], 4),
    }
    found: dict[str, list[torch.Tensor]] = {}
    milliseconds: dict[str, float] = {}
    for title, (managers, n) in sides.items():
        with ExitStack() as stack:
            for manager in (torch.inference_mode, *managers):
                stack.enter_context(manager())
            found[title] = outputs(network, layers, batch[:n])
            times = [_milliseconds(network, batch[:n]) / n for _ in range(max(5, rounds))]
            milliseconds[title] = round(statistics.median(times), 3)
    return {
        "milliseconds a window": milliseconds,
        "over the first": {k: round(v / milliseconds[_BASE], 3) for k, v in milliseconds.items()},
        "largest difference of features, relative": {
            title: max(
                float((a[:1].float() - b).abs().max() / b.abs().max())
                for a, b in zip(outputs, found[_BASE], strict=True)
            )
            for title, outputs in found.items()
            if title != _BASE
        },
    }


def _milliseconds(network: torch.nn.Module, batch: torch.Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()  # type: ignore[no-untyped-call]
    network(batch)
    end.record()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def _scores() -> dict[str, Any]:
    """Every estimator over a bank of ten, on the CPU and on the GPU."""
    import skte

    cases = make_phantoms(4, size=(40, 40, 40), random_state=0)
    on: dict[str, dict[str, list[float]]] = {"cpu": {}, "cuda": {}}
    largest = 0.0
    for seed in range(10):
        torch.manual_seed(seed)
        entry = BankEntry.from_module(f"unet {seed}", small_unet(), window_size=(24, 24, 24))
        features = {}
        for device in on:
            extractor = SegmentationFeatureExtractor(entry, device=device, random_state=0)
            features[device] = extractor.fit_transform(cases)
        for a, b in zip(features["cpu"], features["cuda"], strict=True):
            for layer in a.layers:
                x, y = a.layers[layer].X, b.layers[layer].X
                largest = max(largest, float(np.abs(x - y).max() / np.abs(x).max()))
        for name in estimator_names:
            estimator = getattr(skte.estimators, name)
            if name in ("Ensemble", "TransferabilityEstimator"):
                continue
            for device, scores in on.items():
                scores.setdefault(name, []).append(estimator().fit(features[device]).score())
    return {
        "largest difference of features, relative": largest,
        "estimators": {
            name: {
                "largest difference of scores, relative": float(
                    np.max(np.abs(np.subtract(cpu, on["cuda"][name])) / np.ptp(cpu))
                ),
                "same order": bool(np.array_equal(np.argsort(cpu), np.argsort(on["cuda"][name]))),
            }
            for name, cpu in on["cpu"].items()
        },
    }
