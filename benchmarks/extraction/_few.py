"""Few windows: a bounded number, and those of the foreground."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torchio as tio

from benchmarks.extraction import _published
from benchmarks.extraction._networks import NETWORKS
from benchmarks.extraction._timing import in_turn, ratio, rounded
from skte import BankEntry, SegmentationFeatureExtractor
from skte.datasets import make_phantoms

Shape = tuple[int, int, int]

# An organ in the field of view of its scan (an atrium, a spleen, a prostate) takes a fifth
# to a half of each edge: this one 0.40, 0.36 and 0.44. The phantom's own label takes 0.68,
# 0.58 and 0.75, as a liver does.
_CENTRE, _HALF_AXES = (0.45, 0.55, 0.5), (0.20, 0.18, 0.22)


def with_organ(subject: Any) -> Any:
    """Return the case with a compact organ of two parts for its label."""
    shape = subject["label"].spatial_shape
    at = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij"), axis=-1)
    radius = np.linalg.norm((at - _CENTRE) / _HALF_AXES, axis=-1)
    label = (radius <= 1).astype(np.int32) + (radius <= 0.6)
    return tio.Subject(
        image=subject["image"],
        label=tio.LabelMap(tensor=torch.from_numpy(label)[None], affine=subject["label"].affine),
        case_id="organ",
    )


def few_windows(name: str, window: Shape, shape: Shape, rounds: int) -> dict[str, Any]:
    """The published extraction over plans of few windows.

    No side reads the head, as in a ranking by CC-FV.
    """
    network = NETWORKS[name](window).eval()
    entry = BankEntry.from_module(name, network, window_size=window)
    phantoms = make_phantoms(1, size=shape)
    plans: dict[str, tuple[dict[str, Any], list[Any]]] = {
        "max_windows=4": ({"max_windows": 4}, phantoms[:1]),
        "foreground, compact organ": (
            {"samples": "foreground", "windows": "cover", "overlap": 0.25},
            [with_organ(phantoms[0])],
        ),
        "foreground, large organ": (
            {"samples": "foreground", "windows": "cover", "overlap": 0.25},
            phantoms[:1],
        ),
    }
    windows: dict[str, float] = {}
    sides: dict[str, Callable[[], Any]] = {
        "published": _published_side(network, entry, phantoms[0], window)
    }
    for title, (params, cases) in plans.items():
        sides[title] = _side(entry, params, cases, windows, title)
    seconds = in_turn(sides, rounds)
    over = {title: ratio(seconds, "published", title) for title in sides if title != "published"}
    return {
        "network": name,
        "shape": shape,
        "window": window,
        "seconds": rounded(seconds),
        "windows": windows,
        "published / skte": over,
    }


def _published_side(
    network: Any, entry: BankEntry, case: Any, window: Sequence[int]
) -> Callable[[], Any]:
    extractor = SegmentationFeatureExtractor(entry).fit([case])
    layers = [layer.name for layer in extractor.layers_]
    image, label = case["image"].data.float(), case["label"].data[0].numpy()
    rng = np.random.default_rng(0)
    voxels = [rng.integers(0, label.shape, (500, 3))]
    for value in np.unique(label):
        here = np.argwhere(label == value)
        voxels.append(here[rng.permutation(len(here))[:500]])
    sample = np.concatenate(voxels)
    return lambda: _published.extract(network, layers, image, sample, window)


def _side(
    entry: BankEntry,
    params: dict[str, Any],
    cases: list[Any],
    windows: dict[str, float],
    title: str,
) -> Callable[[], Any]:
    extractor = SegmentationFeatureExtractor(entry, source_head=False, **params).fit(cases)

    def run() -> None:
        windows[title] = extractor.transform(cases)[0].info["n_windows"]

    return run


def scaling(name: str, window: Shape, shape: Shape, rounds: int) -> dict[str, Any]:
    """Seconds for 1, 2 and 4 cases, and with several windows in a pass."""
    network = NETWORKS[name](window).eval()
    entry = BankEntry.from_module(name, network, window_size=window)
    cases = make_phantoms(4, size=shape)
    sides: dict[str, Callable[[], Any]] = {}
    for n in (1, 2, 4):
        sides[f"{n} case(s)"] = _timed(
            SegmentationFeatureExtractor(entry, max_windows=4), cases[:n]
        )
    for n in (2, 4):
        extractor = SegmentationFeatureExtractor(entry, max_windows=4, batch_size=n)
        sides[f"1 case(s), {n} windows a pass"] = _timed(extractor, cases[:1])
    seconds = in_turn(sides, rounds)
    return {
        "network": name,
        "shape": shape,
        "window": window,
        "seconds": rounded(seconds),
        "over 1 case": {title: ratio(seconds, title, "1 case(s)") for title in sides},
    }


def _timed(extractor: SegmentationFeatureExtractor, cases: list[Any]) -> Callable[[], Any]:
    extractor.fit(cases)
    return lambda: extractor.transform(cases)
