"""Window and device of an extraction: what users give, checked and brought to one form."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import torch

from skte.exceptions import ExtractionError

__all__ = ["cell_edges", "resolve_device", "window_edges"]

_MOST_VOXELS = 2**31


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device to run on, having tried that it can be used.

    Parameters
    ----------
    device : str, torch.device or None
        None: CUDA where there is one, else the CPU.

    Returns
    -------
    torch.device
        A device that holds tensors.

    Raises
    ------
    ExtractionError
        If torch knows no such device, or cannot use it here.

    Examples
    --------
    >>> from skte.extraction import resolve_device
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()  # the meta device holds nothing to copy
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExtractionError(
            f"device={str(device)!r} cannot be used here: {reason.rstrip('.')}. Give 'cpu', or "
            "leave device out to take a GPU if there is one."
        ) from error
    return chosen


def window_edges(size: Any, n_axes: int) -> tuple[int, ...] | None:
    """Bring a window to three edges, the last one 1 for a 2-D network.

    Parameters
    ----------
    size : int, sequence of int or None
        As the user or the entry gives it.
    n_axes : {2, 3}
        Spatial axes of the network.

    Returns
    -------
    tuple of int or None
        None where no size is given.

    Raises
    ------
    ExtractionError
        If there are not as many whole edges as axes, or no memory holds such a window.
    """
    if size is None:
        return None
    edges = (size,) * n_axes if isinstance(size, Integral) else tuple(size)
    if n_axes == 2 and len(edges) == 3 and edges[2] == 1:
        edges = edges[:2]
    # Not int(edge): it would cut 8.7 to 8 in silence.
    if len(edges) != n_axes or not all(isinstance(e, Integral) and int(e) >= 1 for e in edges):
        raise ExtractionError(
            f"window_size={size!r} must be a positive integer or {n_axes} of them: the "
            f"network is {n_axes}-D"
        )
    whole = tuple(map(int, edges))
    if math.prod(whole) > _MOST_VOXELS:
        raise ExtractionError(
            f"window_size={size!r} makes windows of {math.prod(whole):.3g} voxels, more than "
            "memory holds; its edges are in voxels, 96 for instance"
        )
    return (*whole, 1)[:3]


def cell_edges(size: Any, name: str) -> tuple[int, ...] | None:
    """Bring the size of a cell of the label map to three edges.

    Parameters
    ----------
    size : int, sequence of int or None
        As the user gives it; two edges are those of a slice.
    name : str
        What messages call it.

    Returns
    -------
    tuple of int or None
        None where no size is given.

    Raises
    ------
    ExtractionError
        If it is no size of a cell.
    """
    if size is None:
        return None
    edges = (size,) * 3 if isinstance(size, Integral) else tuple(size)
    if len(edges) == 2:
        edges = (*edges, 1)
    whole = len(edges) == 3 and all(isinstance(e, Integral) and int(e) >= 1 for e in edges)
    if not whole or math.prod(map(int, edges)) > _MOST_VOXELS:
        raise ExtractionError(
            f"{name}={size!r} must be a positive integer, or three of them, or two for slices: "
            "max_windows divides the label map into cells of about that size, in voxels."
        )
    return int(edges[0]), int(edges[1]), int(edges[2])
