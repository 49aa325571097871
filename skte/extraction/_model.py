"""What must be known of a model before it runs over cases: its layers and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import nn

from skte.bank import BankEntry, LayerInfo, examine_layers, model_spatial_dims
from skte.exceptions import BankError, ExtractionError
from skte.extraction._prepare import PreparedCase
from skte.extraction._reader import inference_ready
from skte.extraction._runner import check_channels
from skte.extraction._windows import default_window_size


class ModelFacts(NamedTuple):
    """What running a model once on an example found."""

    layers: list[LayerInfo]  # name, stride and channels of each layer, coarse to fine
    n_axes: int  # spatial axes of the network
    n_parameters: int
    on_slice: bool  # whether a 3-D network saw a single slice
    output: str | int | None  # which of several outputs is read, as for `main_output`


def examine_model(
    entry: BankEntry,
    network: nn.Module,
    case: PreparedCase,
    layers: str | Sequence[str],
    window_size: Any,
    device: torch.device,
) -> ModelFacts:
    """Run a model once, on an example of the size of its windows."""
    n_axes = entry.spatial_dims or model_spatial_dims(network) or 3
    size = entry_window(entry, window_size, n_axes)
    image = case.image
    check_channels(entry, network, image, case.case_id)
    window = (size or default_window_size(tuple(image.shape[1:])))[:n_axes]
    on_slice = n_axes == 3 and image.shape[-1] == 1
    # Layers that an entry names, or the encoder where only that was pre-trained, are its own.
    own = isinstance(layers, str) and (layers == "auto" or entry.layers != "auto")
    names = entry.layers if own else layers
    with inference_ready(network, device):
        example = torch.zeros(1, image.shape[0], *window, device=device)
        try:
            found, output = examine_layers(network, names, example, entry.output)
        except BankError as error:
            problem = "a 3-D network cannot run on 2-D images of one slice" if on_slice else error
            raise BankError(f"Entry {entry.name!r}: {problem}") from error
    n_parameters = sum(p.numel() for p in network.parameters())
    return ModelFacts(found, n_axes, n_parameters, on_slice, output)


def entry_window(entry: BankEntry, window_size: Any, n_axes: int) -> tuple[int, ...] | None:
    """Return the edges of a model's window: the user's, or the entry's own."""
    try:
        return window_edges(entry.window_size if window_size is None else window_size, n_axes)
    except ExtractionError as error:
        raise ExtractionError(f"Entry {entry.name!r}: {error}.") from error


_MOST_VOXELS = 2**31


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device to run on, having tried that it can be used."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()  # the meta device holds nothing to copy
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExtractionError(
            f"device={str(device)!r} cannot be used here: {reason.rstrip('.')}. Give 'cpu', or "
            "leave device out to use a GPU if there is one."
        ) from error
    return chosen


def window_edges(size: Any, n_axes: int) -> tuple[int, ...] | None:
    """Bring a window to three edges, the last one 1 for a 2-D network."""
    if size is None:
        return None
    edges = (size,) * n_axes if isinstance(size, Integral) else tuple(size)
    if n_axes == 2 and len(edges) == 3 and edges[2] == 1:
        edges = edges[:2]
    whole = _positive(edges)
    if len(whole) != n_axes:
        raise ExtractionError(
            f"window_size={size!r} must be a positive integer or {n_axes} of them: the "
            f"network is {n_axes}-D"
        )
    if math.prod(whole) > _MOST_VOXELS:
        raise ExtractionError(
            f"window_size={size!r} makes windows of {math.prod(whole):.3g} voxels, more than "
            "memory holds; its edges are in voxels, 96 for instance"
        )
    return (*whole, 1)[:3]


def cell_edges(size: Any, name: str) -> tuple[int, ...] | None:
    """Bring the size of a cell of the label map to three edges."""
    if size is None:
        return None
    edges = (size,) * 3 if isinstance(size, Integral) else tuple(size)
    whole = _positive((*edges, 1) if len(edges) == 2 else edges)
    if len(whole) != 3 or math.prod(whole) > _MOST_VOXELS:
        raise ExtractionError(
            f"{name}={size!r} must be a positive integer, or three of them, or two for slices: "
            "max_windows divides the label map into cells of about that size, in voxels."
        )
    return whole


def _positive(edges: Sequence[Any]) -> tuple[int, ...]:
    """Edges as integers, none at all where one is not a positive integer."""
    # Not int(edge) alone: it would cut 8.7 to 8 in silence.
    whole = all(isinstance(edge, Integral) and int(edge) >= 1 for edge in edges)
    return tuple(map(int, edges)) if whole else ()
