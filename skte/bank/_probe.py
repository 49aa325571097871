"""Is a layer's output a map of the image? One spot of the image is changed to see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from skte.bank._flow import FIRST, LAST
from skte.bank._trace import run_quietly
from skte.exceptions import BankError

__all__ = ["LayerInfo", "as_map", "probe_layers"]

#: Correlation of places from which on a layer counts as checked; misread layers stay below
#: half of it, and those read right are above 0.8 (see docs/how-to/layers.md).
ENOUGH = 0.7


@dataclass(frozen=True)
class LayerInfo:
    """A layer whose output is read, and how its output lies in the input's grid.

    Parameters
    ----------
    name : str
        As in ``network.named_modules()``.
    stride : tuple of float
        Input voxels per voxel of the layer's output, one per axis. Not whole where
        sizes do not divide.
    channels : int
        Channels of the layer's output.
    form : {"map", "channels last", "tokens"}, default="map"
        Order of its axes; tokens are rows of channels, one for each place.
    n_extra : int, default=0
        Tokens before the first that has a place, such as class and register tokens.
    start : tuple of float, optional
        For networks without padding: place in the window, in voxels, of the centre of the
        output's first voxel. None: the output covers the window.
    certainty : {"known", "checked", "guess"}, default="known"
        "known": the network's class, or the network itself, says that this is a stage.
        "checked": found, or named by the user, and changes where the image changes.
        "guess": neither.
    locality : tuple of float, optional
        Correlation, on each axis, between the place of a change in the image and in the
        output; None where it was not measured, NaN on an axis of one voxel.
    """

    name: str
    stride: tuple[float, ...]
    channels: int
    form: str = field(default=FIRST, repr=False)
    n_extra: int = field(default=0, repr=False)
    start: tuple[float, ...] | None = field(default=None, repr=False)
    certainty: str = field(default="known", repr=False, compare=False)
    locality: tuple[float, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """What the probe says of it: "checked" or "guess"."""
        seen = [r for r in self.locality or () if not math.isnan(r)]
        return "checked" if seen and min(seen) >= ENOUGH else "guess"


def as_map(output: torch.Tensor, layer: LayerInfo, window_size: Sequence[int]) -> torch.Tensor:
    """Bring a layer's output to the shape (n_images, n_channels, x, y[, z])."""
    if layer.form == FIRST:
        return output
    if layer.form == LAST:
        return output.movedim(-1, 1)
    grid = [round(a / s) for a, s in zip(window_size, layer.stride, strict=True)]
    return output[:, layer.n_extra :].transpose(1, 2).unflatten(2, grid)


_SPOTS = 6
_SHARE = 8  # a spot takes this part of an edge
_STRENGTH = 4.0  # standard deviations
_FEWEST = 4  # voxels along each axis of the coarsest map of a smaller example


def probe_layers(
    module: nn.Module, layers: Sequence[LayerInfo], example: torch.Tensor
) -> list[LayerInfo]:
    """Measure whether the outputs of layers change where the image does.

    Seven forward passes, on a window as small as layers allow.
    """
    coarsest = [max(layer.stride[i] for layer in layers) for i in range(example.ndim - 2)]
    size = tuple(example.shape[2:])
    for window in (_smaller(size, coarsest), size):
        try:
            changes = _changes(module, layers, example.new_zeros(*example.shape[:2], *window))
        except (BankError, RuntimeError, ValueError):  # a network of one size only
            continue
        return [_judged(layer, *found) for layer, found in zip(layers, changes, strict=True)]
    return list(layers)


def _smaller(size: tuple[int, ...], coarsest: Sequence[float]) -> tuple[int, ...]:
    while all(n % 2 == 0 and n / 2 / s >= _FEWEST for n, s in zip(size, coarsest, strict=True)):
        size = tuple(n // 2 for n in size)
    return size


def _changes(
    module: nn.Module, layers: Sequence[LayerInfo], example: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]]:
    """Places of the spots and of the changes, both (n_spots, n_axes), and each map's size."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(example.shape[2:])
    image = torch.randn(example.shape, generator=generator)
    spots = _places(len(size), generator) * size
    before = _outputs(module, layers, image.to(example.device))
    places: list[list[torch.Tensor]] = [[] for _ in layers]
    for spot in spots:
        edges = (size // _SHARE).clamp_min(1)
        start = (spot - edges / 2).round().long().clamp_min(0)
        inside = [slice(int(a), int(a + n)) for a, n in zip(start, edges, strict=True)]
        changed = image.clone()
        changed[:, :, *inside] += _STRENGTH
        after = _outputs(module, layers, changed.to(example.device))
        for found, a, b in zip(places, before, after, strict=True):
            found.append(_centre((b - a).abs().sum(1)[0]))
    return [
        (spots, torch.stack(found), tuple(a.shape[2:]))
        for found, a in zip(places, before, strict=True)
    ]


def _places(n_axes: int, generator: torch.Generator) -> torch.Tensor:
    """Six random places that differ on every axis, as shares of the edges."""
    orders = [torch.randperm(_SPOTS, generator=generator) for _ in range(n_axes)]
    jitter = torch.rand(_SPOTS, n_axes, generator=generator)
    return 0.1 + 0.8 * (torch.stack(orders, 1) + jitter) / _SPOTS


def _outputs(
    module: nn.Module, layers: Sequence[LayerInfo], image: torch.Tensor
) -> list[torch.Tensor]:
    taken: dict[str, torch.Tensor] = {}
    handles = []
    try:
        for layer in layers:

            def keep(_module: nn.Module, _args: Any, output: Any, layer: Any = layer) -> None:
                shown = as_map(output, layer, image.shape[2:])
                taken[layer.name] = shown.float().cpu()

            handles.append(module.get_submodule(layer.name).register_forward_hook(keep))
        run_quietly(module, image)
    finally:
        for handle in handles:
            handle.remove()
    return [taken[layer.name] for layer in layers]


def _centre(change: torch.Tensor) -> torch.Tensor:
    """Centre of the strongest changes of a map, in its voxels."""
    weights = (change - change.median()).clamp_min(0).double() ** 2
    total = weights.sum()
    axes = [torch.arange(n, dtype=torch.float64) for n in change.shape]
    centre = [
        (weights.sum([j for j in range(change.ndim) if j != i]) * axis).sum() / total
        for i, axis in enumerate(axes)
    ] if change.ndim > 1 else [(weights * axes[0]).sum() / total]  # fmt: skip
    return torch.stack(centre)


def _judged(
    layer: LayerInfo, spots: torch.Tensor, places: torch.Tensor, grid: tuple[int, ...]
) -> LayerInfo:
    spots = spots.double()
    a, b = spots - spots.mean(0), places - places.mean(0)
    r = (a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()
    found = tuple(float(x) if n > 1 else math.nan for x, n in zip(r, grid, strict=True))
    return replace(layer, locality=found)
