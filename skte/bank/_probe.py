"""Is a layer's output a map of the image? One spot of the image is changed to see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from skte.bank._trace import FIRST, LAST, run_quietly
from skte.exceptions import BankError

#: Correlation of places from which on a layer counts as checked. It was chosen, not fitted:
#: most layers that are read right are above 0.9 (see docs/how-to/layers.md).
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
        output; None where it was not measured, NaN on an axis of too few voxels.
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
    def verdict(self) -> str | None:
        """What the probe says of it: "checked", "guess" or, of a map too coarse for it, None."""
        if self.locality is None:
            return "guess"
        seen = [r for r in self.locality if not math.isnan(r)]
        if not seen:
            return None
        return "checked" if min(seen) >= ENOUGH else "guess"

    def grid(self, window_size: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the output for a window.

        Parameters
        ----------
        window_size : sequence of int
            Edges of the window, in voxels.

        Returns
        -------
        tuple of int
            Voxels of the output, on each axis.
        """
        start = self.start or tuple((s - 1) / 2 for s in self.stride)
        pairs = zip(window_size, self.stride, start, strict=True)
        return tuple(round((n - 1 - 2 * a) / s) + 1 for n, s, a in pairs)

    @property
    def margin(self) -> tuple[int, ...]:
        """Voxels at each face of a window that the output does not cover."""
        if self.start is None:
            return (0,) * len(self.stride)
        pairs = zip(self.start, self.stride, strict=True)
        return tuple(max(0, math.ceil(a - (s - 1) / 2)) for a, s in pairs)


def as_map(output: torch.Tensor, layer: LayerInfo, window_size: Sequence[int]) -> torch.Tensor:
    """Bring a layer's output to the order of axes that maps have."""
    if layer.form == FIRST:
        return output
    if layer.form == LAST:
        return output.movedim(-1, 1)
    rows = output[:, layer.n_extra :].transpose(1, 2)
    return rows.reshape(*rows.shape[:2], *layer.grid(window_size))


_SPOTS = 6
_SHARE = 8  # a spot takes this part of an edge
_STRENGTH = 4.0  # standard deviations
_FEWEST = 6  # voxels along each axis of the coarsest map of a smaller example
_SEEN = 5  # voxels along an axis; on coarser maps borders blur what is seen
_OFF = 0.25  # of a stride: from here on voxels lie elsewhere than their number says
_STEP = 32  # voxels that a window is enlarged by: a multiple of most strides
# What a network that is of one size only, or differs from pass to pass, ends a probe with.
_NOT_PROBED = (BankError, LookupError, RuntimeError, ValueError)


def probe_layers(
    module: nn.Module, layers: Sequence[LayerInfo], example: torch.Tensor
) -> list[LayerInfo]:
    """Measure whether the outputs of layers change where the image does."""
    # Seven forward passes, on a window as small as layers allow, and again on a whole one if
    # the borders of the small one blur what is seen.
    coarsest = [max(layer.stride[i] for layer in layers) for i in range(example.ndim - 2)]
    size = tuple(example.shape[2:])
    found = list(layers)
    for window in dict.fromkeys((_smaller(size, coarsest), size)):
        try:
            seen = _changes(module, layers, example.new_zeros(*example.shape[:2], *window))
            found = [replace(a, locality=_locality(b)) for a, b in zip(layers, seen, strict=True)]
        except _NOT_PROBED:
            continue
        if all(layer.verdict != "guess" for layer in found):
            break
    return [_placed(module, layer, example) for layer in found]


def _smaller(size: tuple[int, ...], coarsest: Sequence[float]) -> tuple[int, ...]:
    while all(n % 2 == 0 and n / 2 / s >= _FEWEST for n, s in zip(size, coarsest, strict=True)):
        size = tuple(n // 2 for n in size)
    return size


class _Seen(NamedTuple):
    """Where the image was changed, and where a layer changed."""

    spots: torch.Tensor  # (n_spots, n_axes), in voxels of the window
    places: torch.Tensor  # the same, in voxels of the map
    grid: tuple[int, ...]  # size of the map


def _changes(
    module: nn.Module,
    layers: Sequence[LayerInfo],
    example: torch.Tensor,
    region: Sequence[float] | None = None,
) -> list[_Seen]:
    """Change spots of an image, in a central region of these edges only if it is given."""
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor(example.shape[2:])
    edges = size if region is None else torch.tensor(region)
    image = torch.randn(example.shape, generator=generator)
    spots = (size - edges) / 2 + _places(len(size), generator) * edges
    half = (edges / _SHARE / 2).clamp_min(0.5)
    places: list[list[torch.Tensor]] = [[] for _ in layers]
    with _taps(module, layers, example.shape[2:]) as taken:
        run_quietly(module, image.to(example.device))
        before = [taken.pop(layer.name) for layer in layers]
        for spot in spots:
            first, last = (spot - half).round().long().clamp_min(0), (spot + half).round().long()
            inside = [slice(int(a), int(b)) for a, b in zip(first, last, strict=True)]
            changed = image.clone()
            part = changed[:, :, *inside]
            part += _STRENGTH * torch.randn(part.shape, generator=generator)
            run_quietly(module, changed.to(example.device))
            after = [taken.pop(layer.name) for layer in layers]
            for found, a, b in zip(places, before, after, strict=True):
                found.append(_centre((b - a).abs().sum(1)[0]))
    return [
        _Seen(spots.double() - 0.5, torch.stack(found), tuple(a.shape[2:]))
        for found, a in zip(places, before, strict=True)
    ]


def _places(n_axes: int, generator: torch.Generator) -> torch.Tensor:
    """Six random places that differ on every axis, as shares of the edges."""
    orders = [torch.randperm(_SPOTS, generator=generator) for _ in range(n_axes)]
    jitter = torch.rand(_SPOTS, n_axes, generator=generator)
    return 0.1 + 0.8 * (torch.stack(orders, 1) + jitter) / _SPOTS


@contextmanager
def _taps(
    module: nn.Module, layers: Sequence[LayerInfo], size: Sequence[int]
) -> Iterator[dict[str, torch.Tensor]]:
    """Keep the map of each layer in every pass."""
    taken: dict[str, torch.Tensor] = {}
    handles = []
    try:
        for layer in layers:

            def keep(_module: nn.Module, _args: Any, output: Any, layer: Any = layer) -> None:
                taken[layer.name] = as_map(output, layer, size).float().cpu()

            handles.append(module.get_submodule(layer.name).register_forward_hook(keep))
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def _centre(change: torch.Tensor) -> torch.Tensor:
    """Centre of the strongest changes of a map, in its voxels."""
    weights = (change - change.median()).clamp_min(0).double() ** 2
    grids = torch.meshgrid(*(torch.arange(n) for n in change.shape), indexing="ij")
    return torch.stack([(weights * at).sum() / weights.sum() for at in grids])


def _locality(seen: _Seen) -> tuple[float, ...]:
    """Correlate places on each axis; NaN on an axis of too few voxels."""
    a, b = (part - part.mean(0) for part in (seen.spots, seen.places))
    r = (a * b).sum(0) / (a.square().sum(0) * b.square().sum(0)).sqrt()
    r = r.nan_to_num(0.0)  # the layer does not depend on the image
    return tuple(float(x) if n >= _SEEN else math.nan for x, n in zip(r, seen.grid, strict=True))


def _placed(module: nn.Module, layer: LayerInfo, example: torch.Tensor) -> LayerInfo:
    """Find where the voxels of an output lie that the layers before did not pad."""
    size = tuple(example.shape[2:])
    grid = layer.grid(size)
    fits = all(n % m == 0 for n, m in zip(size, grid, strict=True))
    if fits or min(grid) < _SEEN:
        return layer
    apart = _spacing(module, layer, example, grid)  # voxels from one to the next
    if apart and _is_even(apart, layer):
        return layer
    inner = [min(n, m) for n, m in zip(size, grid, strict=True)]
    try:
        (seen,) = _changes(module, [layer], example, inner)
    except _NOT_PROBED:
        return layer
    locality = _locality(seen)
    if not apart:  # the network takes no other size: measured, which noise may spoil
        a, b = (part - part.mean(0) for part in (seen.spots, seen.places))
        apart = (a.square().sum(0) / (a * b).sum(0)).tolist()
        if _is_even(apart, layer):
            return layer
    if min(locality) < ENOUGH:
        return layer
    stride = [max(1, round(x)) for x in apart]
    start = [(n - 1 - (m - 1) * s) / 2 for n, m, s in zip(size, grid, stride, strict=True)]
    off = seen.spots - (torch.tensor(start) + torch.tensor(stride) * seen.places)
    is_off = off.mean(0).abs() > torch.tensor(stride) + off.std(0)
    if is_off.any():
        raise BankError(
            f"Layer {layer.name!r} has {' x '.join(map(str, grid))} voxels for a window of "
            f"{' x '.join(map(str, size))}, and they lie elsewhere than evenly over it or around "
            "its centre, as those of a network without padding do: name other layers with "
            "layers=(...)."
        )
    return replace(layer, stride=tuple(map(float, stride)), start=tuple(start), locality=locality)


def _is_even(apart: Sequence[float], layer: LayerInfo) -> bool:
    """Whether voxels that far apart are spread over the whole window."""
    return all(abs(x / s - 1) < _OFF for x, s in zip(apart, layer.stride, strict=True))


def _spacing(
    module: nn.Module, layer: LayerInfo, example: torch.Tensor, grid: Sequence[int]
) -> list[float]:
    """Tell the distance of voxels from the size of the map of a larger window, if it has one."""
    # Large enough for the map to grow by several voxels: the last one may be cut off.
    step = _STEP * math.ceil(max(layer.stride) / 4)
    size = [n + step for n in example.shape[2:]]
    try:
        with _taps(module, [layer], size) as taken:
            run_quietly(module, example.new_zeros(*example.shape[:2], *size))
        return [step / (b - a) for a, b in zip(grid, taken[layer.name].shape[2:], strict=True)]
    except (*_NOT_PROBED, ZeroDivisionError):  # it makes maps of one size only
        return []
