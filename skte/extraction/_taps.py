"""Reading a network's layers at single points, without full-size feature maps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skte.exceptions import ExtractionError

__all__ = ["Taps", "first_tensor", "gather_points", "inference_ready"]


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
    """What the layers of a network give, in each forward pass.

    Parameters
    ----------
    network : nn.Module
        The network.
    names : sequence of str
        Modules to read, as in ``named_modules()``.
    take : callable
        ``take(name, output)`` is what is kept of an output. It is called while the
        module returns: an operation in place further on (``ReLU(inplace=True)``,
        ``x += skip``) would change a kept output. Where a module runs twice, the last
        call counts.
    stop : bool, default=False
        End passes after the last layer; the first pass tells which that is.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        take: Callable[[str, Any], Any],
        *,
        stop: bool = False,
    ) -> None:
        self.network, self.names, self.take, self.stop = network, names, take, stop
        self.taken: dict[str, Any] = {}
        self.seconds = 0.0  # spent reading layers
        self._calls = 0
        self._last: int | None = None

    def run(self, batch: torch.Tensor) -> Any:
        """Run the network; ``taken`` then holds what `take` kept of each layer.

        Returns
        -------
        object
            The network's output; None where the pass was ended before.
        """
        self.taken.clear()
        self._calls = 0
        try:
            with self._hooked():
                output = self.network(batch)
        except _AllTaken:
            return None
        if self.stop and self._last is None:
            self._last = self._calls
        return output

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        modules = dict(self.network.named_modules(remove_duplicate=False))  # may have two names
        handles = []
        try:
            for name in self.names:
                handles.append(modules[name].register_forward_hook(self._hook(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def store(module: nn.Module, args: Any, output: Any) -> None:
            begun = time.perf_counter()
            self.taken[name] = self.take(name, output)
            self.seconds += time.perf_counter() - begun
            self._calls += 1
            if self._calls == self._last:
                raise _AllTaken

        return store


def first_tensor(output: Any) -> torch.Tensor | None:
    """Return the main output of a network: deep supervision puts it first."""
    while isinstance(output, (list, tuple)) and output:
        output = output[0]
    if isinstance(output, dict):
        output = output.get("out", output.get("logits"))
    return output if isinstance(output, torch.Tensor) else None


def gather_points(
    feature: torch.Tensor, points: NDArray[np.float64], window_size: Sequence[int]
) -> torch.Tensor:
    """Interpolate one window's feature map linearly at points of the window.

    Equal to ``interpolate(feature, window_size, mode="trilinear",
    align_corners=False)`` followed by indexing, without the full-size map.

    Parameters
    ----------
    feature : Tensor of shape (n_channels, *feature_size)
        Feature map of one window, at its native resolution.
    points : ndarray of shape (n_points, n_axes)
        Positions in voxels of the window, 0 the centre of its first voxel.
    window_size : sequence of int
        Edges of the window in voxels.

    Returns
    -------
    Tensor of shape (n_points, n_channels)
        Features, on the device of `feature`, in float32 at least.
    """
    sizes = np.array(feature.shape[1:])
    if len(sizes) != len(window_size):
        raise ExtractionError(
            f"expected features with {len(window_size)} spatial axes, "
            f"got shape {tuple(feature.shape)}"
        )
    at = (points + 0.5) * (sizes / np.array(window_size)) - 0.5
    at = np.clip(at, 0, sizes - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, sizes - 1)
    upper = at - low
    flat = feature.reshape(feature.shape[0], -1)
    dtype = torch.promote_types(feature.dtype, torch.float32)
    result = torch.zeros(feature.shape[0], len(points), dtype=dtype, device=feature.device)
    for corner in itertools.product((False, True), repeat=len(sizes)):
        weight = np.where(corner, upper, 1.0 - upper).prod(axis=1)
        used = np.flatnonzero(weight)  # whole positions touch a single voxel
        if len(used) == 0:
            continue
        index = np.ravel_multi_index(np.where(corner, high, low)[used].T, tuple(sizes))
        values = flat[:, torch.from_numpy(index).to(flat.device)].to(dtype)
        share = torch.from_numpy(weight[used]).to(flat.device, dtype)
        columns = torch.from_numpy(used).to(flat.device)
        result.index_add_(1, columns, values * share)
    return result.T
