"""All scores of one model for one target: every estimator, every set of stages."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.evidence._images import Part, load_task
from benchmarks.evidence._network import BOTTLENECK, DECODER, ENCODER, UNet
from benchmarks.evidence._place import Place, load_network, write
from benchmarks.evidence._tasks import SUPPORT, Model
from benchmarks.evidence._training import dice_across_cases, dice_per_case
from skte import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    NLEEP,
    PARC,
    RCFV,
    SFDA,
    BankEntry,
    CrossCaseProbe,
    FeatureSet,
    HScore,
    LogME,
    RankMe,
    SegmentationFeatureExtractor,
    TransferabilityEstimator,
    TransRate,
)
from skte.estimators._cross_case_probe import cross_case_probe
from skte.features import CaseFeatures

__all__ = ["STAGE_SETS", "load_scores", "score_file", "score_model"]

LAYERS = (*BOTTLENECK, *ENCODER[::-1], *DECODER)  # coarse to fine, the encoder first
STAGE_SETS = {
    "decoder": DECODER,
    "encoder": (*BOTTLENECK, *ENCODER[::-1]),
    "all": LAYERS,
    "bottleneck+decoder": (*BOTTLENECK, *DECODER),
    "last": DECODER[-1:],
}
BY_LAYER: dict[str, TransferabilityEstimator] = {
    "CCFV": CCFV(),
    "CCFV (literal)": CCFV(normalize=None),
    "CCFV without consistency": CCFV(class_consistency=False),
    "CCFV without variety": CCFV(feature_variety=False),
    "CCFV (KL)": CCFV(distance="kl"),
    "CCFV (Bhattacharyya)": CCFV(distance="bhattacharyya"),
    "RCFV": RCFV(),
    "LogME": LogME(),
    "GBC": GBC(),
    "TransRate": TransRate(),
    "HScore": HScore(),
    "SFDA": SFDA(),
    "KNN": KNN(),
    "NLEEP": NLEEP(),
    "PARC": PARC(),
    "RankMe": RankMe(),
}
_WITH_ALL_SUPPORTS = ("CCFV", "LogME", "HScore")
OF_HEAD: dict[str, TransferabilityEstimator] = {"LEEP": LEEP(), "NCE": NCE()}
_SHORT = 20  # steps of the short fine-tuning


def score_file(place: Place, target: str, model: Model, n_cases: int = SUPPORT) -> Path:
    """Scores of a model on the first cases of a target's support."""
    return place.work / "scores" / str(n_cases) / target / f"{model.name}.json"


def score_model(place: Place, target: str, model: Model, n_cases: int = SUPPORT) -> None:
    """Write all scores of one model, and the seconds that each estimator took.

    On supports of another size than the standard one only the probe on the grid is read,
    and a few estimators beside it.
    """
    torch.set_num_threads(1)
    network = load_network(place, model)
    support = load_task(target, "support", place.data, place.work, model.n_dims).first(n_cases)
    has_head = not model.source.endswith("restoration")
    scores = {
        "model size": float(sum(p.numel() for p in network.body_parameters())),
        "width": float(network.head.in_channels),
    }
    seconds: dict[str, float] = {}
    with timed(seconds, "probe on the grid"):
        scores |= _grid_scores(network, support)
    if has_head:
        scores["zero-shot Dice"] = float(np.mean(dice_per_case(network, support)))
    standard = n_cases == SUPPORT
    if standard:
        with timed(seconds, "short fine-tuning"):
            steps = place.steps(_SHORT)
            found = dice_across_cases(network, support, steps)
            scores["short fine-tuning"] = float(np.mean(found))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _estimator_scores(network, support, has_head, standard, scores, seconds)
    facts = {"target": target, "model": model.name, "scores": scores, "seconds": seconds}
    write(score_file(place, target, model, n_cases), facts)


class timed:  # noqa: N801  (a context manager, read as a verb)
    """Note the processor seconds of a block."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.started = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = time.process_time() - self.started


def _grid_scores(network: UNet, support: Part) -> dict[str, float]:
    """The probe on all cells of a grid of half the resolution, targets shares of classes."""
    features = _grid_features(network, support.images)
    labels = support.labels[:, None].double()
    foreground = _pooled(labels, 2).flatten().numpy()
    shares = np.column_stack([1 - foreground, foreground])
    groups = np.repeat(np.arange(len(support)), len(foreground) // len(support))
    found: dict[str, float] = {}
    for stages, names in STAGE_SETS.items():
        X = np.hstack([features[name] for name in names])
        for reading, values in cross_case_probe(X, shares, groups).items():
            found[f"probe, {reading}|{stages}"] = float(np.nanmean(values))
    return found


@torch.no_grad()
def _grid_features(network: UNet, images: torch.Tensor) -> dict[str, NDArray[np.float64]]:
    held: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: torch.Tensor) -> None:
            held[name] = output

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in LAYERS]
    network(images)
    for hook in hooks:
        hook.remove()
    grid = [n // 2 for n in images.shape[2:]]
    resized = {name: _to_grid(output, grid) for name, output in held.items()}
    return {name: X.movedim(1, -1).flatten(0, -2).double().numpy() for name, X in resized.items()}


def _to_grid(output: torch.Tensor, grid: list[int]) -> torch.Tensor:
    if output.shape[-1] > grid[-1]:
        return _pooled(output, output.shape[-1] // grid[-1])
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return functional.interpolate(output, size=grid, mode=mode)


def _pooled(values: torch.Tensor, factor: int) -> torch.Tensor:
    pool = functional.avg_pool2d if values.ndim == 4 else functional.avg_pool3d
    return pool(values, factor)


def _estimator_scores(
    network: UNet,
    support: Part,
    has_head: bool,
    standard: bool,
    scores: dict[str, float],
    seconds: dict[str, float],
) -> None:
    spatial = tuple(support.images.shape[2:])
    entry = BankEntry.from_module(
        "model", network, window_size=spatial, spatial_dims=len(spatial), source_head=has_head
    )
    extractor = SegmentationFeatureExtractor(entry, layers=LAYERS)
    cases = [_subject(support, i) for i in range(len(support))]
    with timed(seconds, "extraction"):
        features = extractor.fit_transform(cases)
    chosen = BY_LAYER if standard else {name: BY_LAYER[name] for name in _WITH_ALL_SUPPORTS}
    for name, estimator in chosen.items():
        with timed(seconds, name):
            by_layer = dict(zip(LAYERS, _layer_scores(estimator, features), strict=True))
        for stages, names in STAGE_SETS.items():
            scores[f"{name}|{stages}"] = float(np.mean([by_layer[layer] for layer in names]))
    for name, estimator in OF_HEAD.items() if has_head else ():
        with timed(seconds, name):
            scores[name] = estimator.score(features)
    if standard:
        _probe_scores(extractor.set_params(taper=False).fit_transform(cases), scores, seconds)


def _probe_scores(
    features: FeatureSet, scores: dict[str, float], seconds: dict[str, float]
) -> None:
    for stages, names in STAGE_SETS.items():
        part = _only(features, names)
        for reading in ("dice", "threshold", "auc"):
            key = f"CrossCaseProbe, {reading}|{stages}"
            with timed(seconds, key):
                scores[key] = CrossCaseProbe(reading=reading).score(part)


def _layer_scores(estimator: TransferabilityEstimator, features: FeatureSet) -> NDArray[np.float64]:
    """Score of each layer; NaN where the estimator refuses it."""
    try:
        return estimator.fit(features).layer_scores_
    except ValueError:
        return np.full(len(LAYERS), np.nan)


def _only(features: FeatureSet, names: tuple[str, ...]) -> FeatureSet:
    return FeatureSet(
        CaseFeatures(case.case_id, {name: case.layers[name] for name in names}) for case in features
    )


def _subject(support: Part, i: int) -> tio.Subject:
    return tio.Subject(
        image=tio.ScalarImage(tensor=_as_volume(support.images[i])),
        label=tio.LabelMap(tensor=_as_volume(support.labels[i][None])),
        case_id=f"{i:02d}",
    )


def _as_volume(values: torch.Tensor) -> torch.Tensor:
    return values if values.ndim == 4 else values[..., None]


def load_scores(file: Path) -> Mapping[str, Any]:
    """Read what `score_model` wrote."""
    found: Mapping[str, Any] = json.loads(file.read_text())
    return found
