"""What torch's switches do to one forward pass of which layers are read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

import torch
from torch import nn

from benchmarks.cost._networks import NETWORKS
from benchmarks.cost._timing import in_turn, ratio, rounded
from skte.bank import find_layers

Shape = tuple[int, int, int]
_BASE = "inference_mode (as skte runs)"
_BFLOAT = "autocast to bfloat16"
_PART = 32


def switches(name: str, window: Shape, rounds: int) -> dict[str, Any]:
    """Seconds a window, and features beside those of the plain pass."""
    network = NETWORKS[name](window).eval()
    torch.manual_seed(0)
    batch = torch.randn(4, 1, *window)
    layers = [layer.name for layer in find_layers(network, "auto", batch[:1])]
    first = batch[:1]
    expected = outputs(network, layers, first)
    last = copy.deepcopy(network)
    last.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    turned = batch.to(memory_format=torch.channels_last_3d)
    sides = {
        _BASE: _side(network, first),
        "no switch (gradients kept)": _side(network, first, torch.enable_grad),
        "no_grad": _side(network, first, torch.no_grad),
        "channels_last_3d": _side(last, turned[:1]),
        "2 windows a pass": _side(network, batch[:2]),
        "4 windows a pass": _side(network, batch),
    }
    n_windows = {"2 windows a pass": 2, "4 windows a pass": 4}
    apart = {"channels_last_3d": _apart(outputs(last, layers, turned[:1]), expected)}
    passes = in_turn(sides, rounds)
    seconds = {k: [s / n_windows.get(k, 1) for s in v] for k, v in passes.items()}
    per_window = {k: ratio(seconds, k, _BASE) for k in seconds}
    # Without instructions for it, bfloat16 takes minutes: once, on a part of the window.
    part = first[..., :_PART, :_PART, :_PART]
    half = {_BASE: _side(network, part), _BFLOAT: _side(network, part, _autocast)}
    with suppress(RuntimeError, ValueError):  # position embeddings are made for whole windows
        per_window[_BFLOAT] = ratio(in_turn(half, 1), _BFLOAT, _BASE)
    return {
        "network": name,
        "window": window,
        "seconds a window": rounded(seconds),
        "over inference_mode": per_window,
        "largest difference of features, relative": apart,
    }


def outputs(network: nn.Module, layers: Sequence[str], batch: torch.Tensor) -> list[torch.Tensor]:
    """Outputs of layers, read with hooks."""
    found: dict[str, torch.Tensor] = {}
    modules = dict(network.named_modules())
    handles = [
        modules[n].register_forward_hook(lambda m, a, out, n=n: found.__setitem__(n, out))
        for n in layers
    ]
    with torch.inference_mode():
        network(batch)
    for handle in handles:
        handle.remove()
    return [found[n] for n in layers]


def _side(
    run: Callable[[torch.Tensor], Any],
    batch: torch.Tensor,
    manager: Callable[[], AbstractContextManager[Any]] = torch.inference_mode,
) -> Callable[[], None]:
    def side() -> None:
        with manager():
            run(batch)

    return side


def _autocast() -> AbstractContextManager[Any]:
    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
    return stack


def _apart(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    pairs = zip(found, expected, strict=True)
    worst = max(float((a.float() - b).abs().max() / b.abs().max()) for a, b in pairs)
    return float(f"{worst:.2g}")
