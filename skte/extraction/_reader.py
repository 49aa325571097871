"""Running a network over the windows of one case and reading its layers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from skte._isolation import check_interrupt
from skte.bank import LayerInfo, as_map, main_output
from skte.exceptions import ExtractionError
from skte.extraction._windows import WindowPlan

#: Key of the network's own output beside its layers.
OUTPUT = ""


class Reading(NamedTuple):
    """What was read of one case, by layer."""

    features: dict[str, NDArray[np.float32]]  # rows in the order of the points
    seconds: float  # spent reading layers, within the forward passes


@dataclass(frozen=True, eq=False)
class WindowReader:
    """Reads layers of a network at the points of a window plan."""

    plan: WindowPlan
    network: nn.Module  # ready for inference, on `device`
    layers: Sequence[LayerInfo]
    n_axes: int  # spatial axes of the network. A 2-D network gets windows of depth one
    device: torch.device  # where the network is
    batch_size: int  # windows in one forward pass
    output: str | int | None = None  # names another output than the main one

    def read(self, image: torch.Tensor, n_output: int | None) -> Reading:
        """Features at every point of the plan; of the output, at the first `n_output`."""
        pads = [edge for pair in reversed(self.plan.padding) for edge in pair]
        if any(pads):
            image = functional.pad(image, pads)
        n_points = len(self.plan.positions)
        results: dict[str, NDArray[np.float32]] = {}
        batch = range(0)
        known = {layer.name: layer for layer in self.layers}

        def take(name: str, output: Any) -> list[torch.Tensor] | str:
            return self._take(output, batch, n_points, known[name])

        taps = Taps(self.network, list(known), take, stop=n_output is None)
        for batch in self.plan.batches(self.batch_size):
            check_interrupt()
            output = None
            with taps.one_pass():
                output = self.network(self._windows(image, batch))
            for name in known:
                problem = "did not run in the forward pass; choose another layer"
                values = taps.taken.get(name, problem)
                if isinstance(values, str):
                    raise ExtractionError(f"layer {name!r} {values}")
                self._store(results, name, values, batch, n_points)
            if n_output is not None:
                head = self._head(main_output(output, self.output), batch, n_output)
                if isinstance(head, str):  # no map over the windows: no class map
                    n_output = None
                    results.pop(OUTPUT, None)
                else:
                    self._store(results, OUTPUT, head, batch, n_output)
        return Reading(results, taps.seconds)

    def _windows(self, image: torch.Tensor, batch: range) -> torch.Tensor:
        crops = []
        for start in self.plan.starts[batch.start : batch.stop]:
            x, y, z = (slice(a, a + w) for a, w in zip(start, self.plan.window_size, strict=True))
            crop = image[:, x, y, z]
            crops.append(crop[..., 0] if self.n_axes == 2 else crop)
        return torch.stack(crops).to(self.device)

    def _head(
        self, output: torch.Tensor | None, batch: range, n_points: int
    ) -> list[torch.Tensor] | str:
        """Read the output, which without padding lies as the layer of its size does."""
        placed = [layer for layer in self.layers if layer.start is not None]
        if not placed or output is None:
            return self._take(output, batch, n_points)
        size = self.plan.window_size[: self.n_axes]
        same = [layer for layer in placed if layer.grid(size) == tuple(output.shape[2:])]
        if not same:
            return "has another size than all layers of this network without padding"
        place = replace(same[0], form="map", n_extra=0)
        return self._take(output, batch, n_points, place)

    def _take(
        self, output: object, batch: range, n_points: int, layer: LayerInfo | None = None
    ) -> list[torch.Tensor] | str:
        """Features at the points of each window, or why there are none."""
        if not isinstance(output, torch.Tensor):
            return (
                f"returns a {type(output).__name__}, not a tensor; choose a module inside it, or "
                "the one after it"
            )
        size = self.plan.window_size[: self.n_axes]
        if layer is not None and layer.form != "map":
            try:
                output = as_map(output, layer, size)
            except (RuntimeError, IndexError):  # its message is about axes that nobody named
                return (
                    f"returns shape {tuple(output.shape)}, not {layer.form} of a window of {size}"
                )
        if output.ndim != self.n_axes + 2:
            return (
                f"returns shape {tuple(output.shape)}, not a feature map of {self.n_axes} "
                "spatial axes; choose a convolutional layer"
            )
        if len(output) != len(batch):
            return (
                f"returns shape {tuple(output.shape)} for a batch of {len(batch)} windows; "
                "choose a layer that keeps them apart, or batch_size=1"
            )
        values = []
        for window, one in zip(batch, output, strict=True):
            points = self._owned(window, n_points)
            at = (self.plan.positions[points] - self.plan.starts[window])[:, : self.n_axes]
            values.append(gather_points(one, at, size, layer))
        return values

    def _store(
        self,
        results: dict[str, NDArray[np.float32]],
        name: str,
        values: Sequence[torch.Tensor],
        batch: range,
        n_points: int,
    ) -> None:
        for window, one in zip(batch, values, strict=True):
            n_channels = one.shape[1]
            if name not in results:
                results[name] = np.empty((n_points, n_channels), dtype=np.float32)
            rows = results[name]
            if n_channels != rows.shape[1]:
                raise ExtractionError(
                    f"{f'layer {name!r}' if name else 'the output'} has {n_channels} channels in "
                    f"one window and {rows.shape[1]} in another; choose another layer"
                )
            rows[self._owned(window, n_points)] = one.float().cpu().numpy()

    def _owned(self, window: int, n_points: int) -> NDArray[np.intp]:
        points = self.plan.owned[window]
        return points[points < n_points]


@contextmanager
def inference_ready(network: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Put a network into eval mode on a device, and everything back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    parameter = next(itertools.chain(network.parameters(), network.buffers()), None)
    home = parameter.device if parameter is not None else device
    try:
        network.eval()
        if home != device:
            network.to(device)
        with torch.inference_mode():
            yield network
    finally:
        for module, mode in modes:
            module.training = mode
        if home != device:
            network.to(home)


class _AllTaken(Exception):  # noqa: N818 (no error: nothing is left to compute)
    """Ends a forward pass after the last layer that is read."""


class Taps:
    """What the layers of a network give, in one forward pass after the other."""

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        take: Callable[[str, Any], Any],
        *,
        stop: bool = False,
    ) -> None:
        self.network, self.names, self.take, self.stop = network, names, take, stop
        self.taken: dict[str, Any] = {}  # what `take` kept of each layer in the last pass
        self.seconds = 0.0  # spent reading layers
        self._calls = 0
        self._last: int | None = None

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Read the layers in the pass that runs within; it ends after the last of them."""
        self.taken.clear()
        self._calls = 0
        modules = dict(self.network.named_modules(remove_duplicate=False))  # may have two names
        with ExitStack() as hooks:
            for name in self.names:
                hooks.callback(modules[name].register_forward_hook(self._hook(name)).remove)
            with suppress(_AllTaken):
                yield
                if self.stop and self._last is None:
                    self._last = self._calls

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def store(module: nn.Module, args: Any, output: Any) -> None:
            begun = time.perf_counter()
            self.taken[name] = self.take(name, output)
            self.seconds += time.perf_counter() - begun
            self._calls += 1
            if self._calls == self._last:
                raise _AllTaken

        return store


def gather_points(
    feature: torch.Tensor,
    points: NDArray[np.float64],
    window_size: Sequence[int],
    layer: LayerInfo | None = None,
) -> torch.Tensor:
    """Interpolate one window's feature map linearly at points of the window."""
    sizes = np.array(feature.shape[1:])
    if len(sizes) != len(window_size):
        raise ExtractionError(
            f"expected features with {len(window_size)} spatial axes, "
            f"got shape {tuple(feature.shape)}"
        )
    if layer is None or layer.start is None:
        at = (points + 0.5) * (sizes / np.array(window_size)) - 0.5
    else:  # a network without padding: the map is smaller than the window
        at = (points - np.array(layer.start)) / np.array(layer.stride)
    at = np.clip(at, 0, sizes - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, sizes - 1)
    upper = at - low
    corners = np.array(list(itertools.product((False, True), repeat=len(sizes))))[:, None]
    weights = np.where(corners, upper, 1.0 - upper).prod(axis=2)  # (n_corners, n_points)
    used = weights.any(axis=1)  # whole positions touch a single voxel
    used[0] = True  # also where a window owns no points
    weights = weights[used]
    # A corner without weight is not read: it may hold Inf.
    places = np.where(corners[used] & (weights > 0)[:, :, None], high, low)
    index = torch.from_numpy(np.ravel_multi_index(tuple(np.moveaxis(places, 2, 0)), tuple(sizes)))
    dtype = torch.promote_types(feature.dtype, torch.float32)
    flat, index = feature.reshape(feature.shape[0], -1), index.to(feature.device)
    values = flat.index_select(1, index.reshape(-1)).reshape(len(flat), *index.shape).to(dtype)
    result = torch.zeros(feature.shape[0], len(points), dtype=dtype, device=feature.device)
    for part in (values * torch.from_numpy(weights).to(feature.device, dtype)).unbind(1):
        result += part
    return result.T
