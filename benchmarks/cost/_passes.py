"""One network over two volumes: the published way, MONAI's, scikit-learn's and skte's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torchio as tio
from monai.inferers import sliding_window_inference
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch.nn import functional

from benchmarks.cost import _published
from benchmarks.cost._networks import NETWORKS
from benchmarks.cost._timing import cost
from skte import BankEntry, LogME
from skte.bank import LayerInfo
from skte.datasets import load_dataset, make_phantoms
from skte.estimators import recommended_estimators
from skte.selection import extractor_for

Shape = tuple[int, int, int]
BARE = "bare passes, grid without overlap"
_COLUMNS = ("seconds", "forward passes", "peak MiB")


#: Hearts: whole images of three structures, and images cropped to the left atrium.
KINDS = {"the whole field of view": "Heart_ACDC", "cropped to the structure": "LeftAtrium"}


def volumes(folder: Path | None, shape: Shape, n: int) -> list[Any]:
    """Cases resampled to the size of a whole scan; phantoms without a folder."""
    if folder is None:
        return list(make_phantoms(n, size=shape))
    resized = tio.Resize(shape)
    return [
        tio.Subject(
            image=resized(tio.ScalarImage(case["image"].path)),
            label=resized(tio.LabelMap(case["label"].path)),
            case_id=case["case_id"],
        )
        for case in load_dataset(folder)[:n]
    ]


def passes(
    network_name: str, window: Shape, shape: Shape, data: Path | None, n: int
) -> dict[str, Any]:
    """Processor time, passes and memory of each side, volume by volume, and medians."""
    network = NETWORKS[network_name](window).eval()
    entry = BankEntry.from_module(network_name, network, window_size=window)
    places = {k: data / name for k, name in KINDS.items()} if data else {"phantoms": None}
    with TemporaryDirectory() as cache:
        sides = _sides(network, entry, window, Path(cache))
        kinds = {k: _measure(sides, volumes(place, shape, n)) for k, place in places.items()}
    return {
        "network": network_name, "window": window, "shape": shape, "volumes": n, "kinds": kinds
    }  # fmt: skip


def _measure(sides: dict[str, Any], cases: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, list[tuple[float, int, float]]] = {name: [] for name in sides}
    for case in cases:
        for name, make in sides.items():
            run = make(case)
            taken = cost(run)
            row = (round(taken.seconds, 3), int(taken.result), round(taken.peak_mib))
            found[name].append(row)
            print(f"  {name}: {row}", flush=True)
    rows = {
        name: dict(zip(_COLUMNS, map(float, np.median(rows, axis=0)), strict=True))
        | {"over bare": _ratio(rows, found[BARE])}
        for name, rows in found.items()
    }
    return {
        "rows": rows,
        "MONAI at equal overlap": _ratio(found[_DEFAULT], found["MONAI, overlap 0.375"]),
        "published over default": _ratio(found["published"], found[_DEFAULT]),
    }


_DEFAULT = "skte, default"


def _ratio(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    return round(float(np.median([a[0] / b[0] for a, b in zip(ours, theirs, strict=True)])), 3)


def _sides(network: Any, entry: BankEntry, window: Shape, folder: Path) -> dict[str, Any]:
    """By name: what prepares a side for a case. Calling it again returns the number of passes."""
    decoder = extractor_for({}, entry=entry)

    def sliding(overlap: float) -> Callable[[Any], Callable[[], int]]:
        def make(case: Any) -> Callable[[], int]:
            calls = []

            def predict(batch: torch.Tensor) -> Any:
                calls.append(1)
                return network(batch)

            def run() -> int:
                with torch.inference_mode():
                    image = _image(case)[None]
                    sliding_window_inference(image, window, 1, predict, overlap=overlap)
                return len(calls)

            return run

        return make

    def bare(case: Any) -> Callable[[], int]:
        places = _published.windows(case.spatial_shape, window, 0.0)

        def run() -> int:
            with torch.inference_mode():
                for place in places:
                    network(_image(case)[(slice(None), *place)][None])
            return len(places)

        return run

    def published(case: Any) -> Callable[[], int]:
        layers = [layer.name for layer in decoder.fit([case]).layers_]
        label = case["label"].data[0].numpy()
        rng = np.random.default_rng(0)
        voxels = [rng.integers(0, label.shape, (500, 3))]
        for value in np.unique(label):
            here = np.argwhere(label == value)
            voxels.append(here[rng.permutation(len(here))[:500]])
        sample = np.concatenate(voxels)

        def run() -> int:
            _published.extract(network, layers, _image(case), sample, window)
            return len(_published.windows(label.shape, window, 0.5))

        return run

    def full(case: Any) -> Callable[[], int]:
        return lambda: _full_features(network, decoder.fit([case]).layers_, case, window)

    def skte(**settings: Any) -> Callable[[Any], Callable[[], int]]:
        extractor = extractor_for(recommended_estimators(), entry=entry, **settings)

        def make(case: Any) -> Callable[[], int]:
            extractor.fit([case])
            return lambda: int(extractor.transform([case])[0].info["n_windows"])

        return make

    def cached(case: Any) -> Callable[[], int]:
        extractor = kept.fit([case])

        def run() -> int:
            LogME().fit(extractor.transform([case]))
            return 0

        return run

    kept = extractor_for(recommended_estimators(), entry=entry, cache=folder)
    return {
        BARE: bare,
        "MONAI, overlap 0": sliding(0.0),
        "MONAI, overlap 0.375": sliding(0.375),
        "MONAI, overlap 0.5": sliding(0.5),
        "published": published,
        "full features, scikit-learn": full,
        _DEFAULT: skte(cache=folder),
        "skte, overlap 0": skte(overlap=0.0),
        "skte, overlap 0.25": skte(overlap=0.25),
        "skte, overlap 0.5": skte(overlap=0.5),
        "skte, whole volume": skte(samples="all"),
        "skte, whole volume, overlap 0.5": skte(samples="all", overlap=0.5),
        "skte, second estimator from the cache": cached,
    }


def _image(case: Any) -> torch.Tensor:
    image: torch.Tensor = case["image"].data.float()
    return image


def _full_features(network: Any, layers: Sequence[LayerInfo], case: Any, window: Shape) -> int:
    """Decoder features at every second voxel of each axis, and a ridge across four blocks.

    Features of every voxel would take four GiB.
    """
    image, half = _image(case), [n // 2 for n in window]
    label = case["label"].data[0, ::2, ::2, ::2].numpy()
    X = np.empty((*label.shape, sum(layer.channels for layer in layers)), dtype=np.float32)
    outputs: dict[str, torch.Tensor] = {}
    modules = dict(network.named_modules())
    hooks = [
        modules[one.name].register_forward_hook(
            lambda module, args, output, name=one.name: outputs.__setitem__(name, output)
        )
        for one in layers
    ]
    places = _published.windows(image.shape[1:], window, 0.0)
    with torch.inference_mode():
        for place in places:
            network(image[(slice(None), *place)][None])
            at = tuple(
                slice(p.start // 2, p.start // 2 + n) for p, n in zip(place, half, strict=True)
            )
            X[at] = np.concatenate(
                [
                    functional.interpolate(outputs[one.name], size=half, mode="trilinear")[0]
                    .permute(1, 2, 3, 0)
                    .numpy()
                    for one in layers
                ],
                axis=-1,
            )
    for hook in hooks:
        hook.remove()
    rows = X.reshape(-1, X.shape[-1])
    targets = np.eye(int(label.max()) + 1, dtype=np.float32)[label.reshape(-1)]
    blocks = np.arange(len(rows)) * 4 // len(rows)
    cross_val_predict(Ridge(), rows, targets, groups=blocks, cv=GroupKFold(4))
    return len(places)
