"""CC-FV's extraction as its paper describes it, written anew and plainly.

A window slides with half overlap; every decoder layer is upsampled to the window's
size, all channels of it; sampled voxels are then taken one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Starts along one axis, the last flush with the end."""
    step = max(1, round(window * (1 - overlap)))
    starts = list(range(0, max(size - window, 0) + 1, step))
    if starts[-1] + window < size:
        starts.append(size - window)
    return starts


def windows(shape: Sequence[int], window: Sequence[int], overlap: float) -> list[tuple[slice, ...]]:
    """All windows of a grid."""
    axes = [window_starts(n, w, overlap) for n, w in zip(shape, window, strict=True)]
    return [
        tuple(slice(a, a + w) for a, w in zip(start, window, strict=True))
        for start in itertools.product(*axes)
    ]


def extract(
    network: nn.Module,
    layers: Sequence[str],
    image: torch.Tensor,
    voxels: NDArray[np.intp],
    window: Sequence[int],
    overlap: float = 0.5,
) -> dict[str, dict[tuple[int, ...], NDArray[np.float32]]]:
    """Features of each layer at each voxel: those of the first window that holds it."""
    found: dict[str, dict[tuple[int, ...], Any]] = {name: {} for name in layers}
    outputs: dict[str, torch.Tensor] = {}
    modules = dict(network.named_modules())

    def keep(name: str) -> Any:
        return lambda module, args, output: outputs.__setitem__(name, output)

    hooks = [modules[name].register_forward_hook(keep(name)) for name in layers]
    with torch.no_grad():
        for place in windows(image.shape[1:], window, overlap):
            network(image[(slice(None), *place)][None])
            full = {
                name: functional.interpolate(
                    outputs[name], size=tuple(window), mode="trilinear", align_corners=False
                )[0]
                for name in layers
            }
            for voxel in voxels:
                at = tuple(int(v) for v in voxel)
                inside = [v - p.start for v, p in zip(at, place, strict=True)]
                if all(0 <= i < w for i, w in zip(inside, window, strict=True)):
                    for name in layers:
                        if at not in found[name]:
                            x, y, z = inside
                            found[name][at] = full[name][:, x, y, z].numpy()
    for hook in hooks:
        hook.remove()
    return found
