"""Whether a network can be run and its layers be read at all."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

__all__ = ["unusable", "weightless"]


def unusable(module: nn.Module) -> str | None:
    """Say why a network cannot be looked at, and what to give instead; None if it can."""
    # By name: importing torch.jit's class for isinstance warns on recent versions.
    if any(cls.__name__ == "ScriptModule" for cls in type(module).__mro__):
        return (
            "a TorchScript module, whose layers cannot be hooked, so no features can be read; "
            "give the original nn.Module"
        )
    if any(is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
        return (
            "lazy modules that no input has given a shape yet, so they hold no weights; run the "
            "network once on an example, or load weights"
        )
    return weightless(module)


def weightless(module: nn.Module) -> str | None:
    """Say so where a network was built on the meta device."""
    if any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()]):
        return "a network on the meta device, which holds no weights; build it on the CPU"
    return None
