"""What layers are like: run a network once, see what they return."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from skte.bank._trace import run_quietly
from skte.exceptions import BankError

__all__ = ["LayerInfo", "describe_layers", "shown_names"]


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
    """

    name: str
    stride: tuple[float, ...]
    channels: int


def describe_layers(
    module: nn.Module, names: Sequence[str], example: torch.Tensor
) -> list[LayerInfo]:
    """Run a network once and report stride and channels of named layers.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Mode and parameters are untouched.
    names : sequence of str
        Modules, as in ``module.named_modules()``.
    example : Tensor of shape (n_images, n_channels, x, y[, z])
        An input it takes; the values do not matter.

    Returns
    -------
    list of LayerInfo
        In the order of `names`.

    Raises
    ------
    BankError
        If the network fails, or for layers that do not exist, never run, or do not
        return a feature map. All unusable layers are named at once.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skte.bank import describe_layers
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 2, stride=2), nn.ReLU())
    >>> describe_layers(network, ["1"], torch.zeros(1, 1, 8, 8))
    [LayerInfo(name='1', stride=(2.0, 2.0), channels=4)]
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    problems = _name_problems(names, modules)
    if problems:
        raise BankError(" ".join(problems))
    outputs: dict[str, Any] = {}
    handles = []
    try:
        for name in names:
            handles.append(modules[name].register_forward_hook(_shape_keeper(outputs, name)))
        run_quietly(module, example)
    finally:
        for handle in handles:
            handle.remove()
    problems = [
        problem
        for name in names
        if (problem := _output_problem(name, outputs.get(name, _NEVER_RAN), example))
    ]
    if problems:
        raise BankError(" ".join(problems))
    size = tuple(example.shape[2:])
    return [
        LayerInfo(
            name,
            tuple(a / b for a, b in zip(size, outputs[name][2:], strict=True)),
            outputs[name][1],
        )
        for name in names
    ]


_NEVER_RAN = "never ran"


def _shape_keeper(outputs: dict[str, Any], name: str) -> Any:
    def keep(module: nn.Module, args: Any, output: Any) -> None:
        is_tensor = isinstance(output, torch.Tensor)
        outputs[name] = tuple(output.shape) if is_tensor else type(output).__name__

    return keep


def _name_problems(names: Sequence[str], modules: dict[str, nn.Module]) -> list[str]:
    known = [name for name in modules if name]
    problems = [] if len(names) else ["layers is empty: name at least one layer."]
    problems += [
        f"layers names {name!r} twice." for i, name in enumerate(names) if name in names[:i]
    ]
    for name in names:
        if name in modules and name:
            continue
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        hint = f"did you mean {_listed(near)}?" if near else f"It has {shown_names(known)}."
        problems.append(f"The model has no layer {name!r}: {hint}")
    return problems


def _output_problem(name: str, output: Any, example: torch.Tensor) -> str | None:
    if output is _NEVER_RAN:
        return (
            f"Layer {name!r} never runs in a forward pass (in eval mode); choose a layer that does."
        )
    if isinstance(output, str):
        return (
            f"Layer {name!r} returns a {output}, not a tensor; choose a module inside it, or "
            "the one after it."
        )
    if len(output) != example.ndim or output[0] != len(example) or 0 in output:
        return (
            f"Layer {name!r} returns shape {output}, not a feature map (n_images, n_channels, "
            f"{', '.join('xyz'[: example.ndim - 2])}) like the input's {tuple(example.shape)}; "
            "choose a convolutional layer."
        )
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def shown_names(names: Sequence[str], most: int = 12) -> str:
    """List the first names for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (_listed(names[:most]) or "no named modules") + more
