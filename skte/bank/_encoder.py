"""The stages of an encoder: looked up by class, or found in one traced forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from skte.bank._flow import FeatureFlow
from skte.bank._registry import class_lookup
from skte.bank._trace import Trace, trace_forward

__all__ = [
    "encoder_roots",
    "encoder_stages",
    "is_encoder",
    "registered_encoder_stages",
    "traced_encoder_stages",
]

Finder = Callable[[nn.Module], list[str]]


def encoder_stages(module: nn.Module, example: torch.Tensor) -> list[str]:
    """Name the encoder stages of any network, coarse to fine; empty where none is found."""
    if class_lookup(module, _TOKENS):
        return []
    return registered_encoder_stages(module) or traced_encoder_stages(
        trace_forward(module, example)
    )


def registered_encoder_stages(module: nn.Module) -> list[str] | None:
    """Name the encoder stages of a known class or of a subclass of one, coarse to fine.

    Parameters
    ----------
    module : nn.Module
        A network. Classes are told by their full names, so nothing is imported.

    Returns
    -------
    list of str or None
        Module names; None where the class is unknown, or has no stages under the names
        it should have.
    """
    finder = class_lookup(module, _FINDERS)
    names = [] if finder is None else finder(module)
    known = dict(module.named_modules(remove_duplicate=False))
    return names[::-1] if names and all(name in known for name in names) else None


def encoder_roots(module: nn.Module) -> list[str]:
    """Name the modules that hold all of a known network's encoder, so that the rest is not needed.

    Parameters
    ----------
    module : nn.Module
        A network.

    Returns
    -------
    list of str
        Empty where the class is unknown or is an encoder as a whole.
    """
    if is_encoder(module):
        return []
    stages = registered_encoder_stages(module) or []
    return [*stages, *(class_lookup(module, _STEMS) or ())] if stages else []


def is_encoder(module: nn.Module) -> bool:
    """Whether the network is of a class known to be an encoder and nothing else."""
    return class_lookup(module, dict.fromkeys(_ENCODERS, True)) is not None


def traced_encoder_stages(trace: Trace) -> list[str]:
    """Name the modules at whose end the encoder's stages end, coarse to fine.

    The encoder is all that the first map of the lowest resolution was made from, and
    what follows it at that resolution. A stage ends with the last map of its resolution.

    Parameters
    ----------
    trace : Trace
        A recorded forward pass.

    Returns
    -------
    list of str
        Empty where no module returns such a map.
    """
    flow = FeatureFlow(trace)
    maps = [n for n in flow.size if n > 0]
    if not maps:
        return []
    lowest = min(flow.size[n] for n in maps)
    first = min(n for n in maps if flow.size[n] == lowest)
    trunk = {n for n in flow.ancestors(first) if n > 0}
    trunk |= {n for n in maps if flow.size[n] == lowest and n <= _bottleneck_end(flow, first)}
    names: dict[str, None] = {}
    ends: list[int] = []
    for size in sorted({flow.size[n] for n in trunk}):
        # A map that was padded is no stage of its own.
        if ends and size < 1.5 * flow.size[ends[-1]]:
            continue
        found = _named_end(flow, [n for n in trunk if flow.size[n] == size], ends)
        if found is not None:
            names[found[0]] = None
            ends.append(found[1])
    return list(names)


def _bottleneck_end(flow: FeatureFlow, first: int) -> int:
    """Return the last map of the lowest resolution that no part of the way up made.

    The way up often begins with a convolution that narrows the map: the outermost call
    that raises the resolution, and did not make the first map of the lowest one, got the
    bottleneck as its input.
    """
    low = [n for n in flow.size if flow.size[n] == flow.size[first]]
    raised = [n for n in flow.size if any(s in low and flow.raises(s, n) for s in flow.sources[n])]
    if not raised:
        return max(low)
    for call in sorted(flow.trace.calls, key=lambda c: (c.start, -c.end)):
        inputs = [n for n in call.inputs if n in low]
        if call.contains(raised[0]) and not call.contains(first) and inputs:
            return max(inputs)
    return max(n for n in flow.sources[raised[0]] if n in low)


def _named_end(
    flow: FeatureFlow, maps: Sequence[int], coarser: Sequence[int]
) -> tuple[str, int] | None:
    """Return the outermost module that returns the last of these maps, and the map."""
    last = {call.name: call for call in flow.trace.calls if call.name}
    calls = sorted(last.values(), key=lambda c: (c.start, -c.end, c.name.count(".")))
    for n in sorted(maps, reverse=True):
        for call in calls:
            if call.output == n and not any(map(call.contains, coarser)):
                return call.name, n
    return None


def _children(path: str, first: Sequence[str] = (), last: Sequence[str] = ()) -> Finder:
    def find(module: nn.Module) -> list[str]:
        try:
            parts = module.get_submodule(path)
        except AttributeError:  # a subclass that renamed it
            return []
        return [*first, *(f"{path}.{name}" for name, _ in parts.named_children()), *last]

    return find


def _named(*names: str) -> Finder:
    return lambda module: list(names)


def _swin(prefix: str) -> Finder:
    names = ["patch_embed", *(f"layers{i}.0" for i in (1, 2, 3, 4))]
    return _named(*(prefix + name for name in names))


def _monai_unet(module: nn.Module) -> list[str]:
    """Follow the nested levels down: Sequential(down, SkipConnection(next level), up)."""
    names, level = [], "model"
    while True:
        names.append(f"{level}.0")
        level = f"{level}.1.submodule"
        try:
            module.get_submodule(f"{level}.1.submodule")
        except AttributeError:  # the bottom, at the resolution of the level above
            return [*names[:-1], level]


_DNA = "dynamic_network_architectures"
_MONAI = "monai.networks.nets"

# Encoders and nothing else: their outputs are feature maps, no classes.
_ENCODERS: dict[str, Finder] = {
    f"{_DNA}.building_blocks.plain_conv_encoder.PlainConvEncoder": _children("stages"),
    f"{_DNA}.building_blocks.residual_encoders.ResidualEncoder": _children("stages"),
    f"{_MONAI}.swin_unetr.SwinTransformer": _swin(""),
    f"{_MONAI}.resnet.ResNet": _named(*(f"layer{i}" for i in (1, 2, 3, 4))),
}
_FINDERS: dict[str, Finder] = {
    **_ENCODERS,
    f"{_DNA}.architectures.unet.PlainConvUNet": _children("encoder.stages"),
    f"{_DNA}.architectures.unet.ResidualEncoderUNet": _children("encoder.stages"),
    f"{_DNA}.architectures.unet.ResidualUNet": _children("encoder.stages"),
    f"{_MONAI}.basic_unet.BasicUNet": _named("conv_0", *(f"down_{i}" for i in (1, 2, 3, 4))),
    f"{_MONAI}.dynunet.DynUNet": _children("downsamples", ["input_block"], ["bottleneck"]),
    f"{_MONAI}.segresnet.SegResNet": _children("down_layers"),
    f"{_MONAI}.swin_unetr.SwinUNETR": _swin("swinViT."),
    f"{_MONAI}.unet.UNet": _monai_unet,
    f"{_MONAI}.vnet.VNet": _named("in_tr", *(f"down_tr{i}" for i in (32, 64, 128, 256))),
}

# What runs before the first stage, or around the stages.
_STEMS: dict[str, tuple[str, ...]] = {
    f"{_DNA}.architectures.unet.PlainConvUNet": ("encoder",),
    f"{_DNA}.architectures.unet.ResidualEncoderUNet": ("encoder",),
    f"{_DNA}.architectures.unet.ResidualUNet": ("encoder",),
    f"{_MONAI}.segresnet.SegResNet": ("convInit",),
    f"{_MONAI}.swin_unetr.SwinUNETR": ("swinViT",),
}
# Their encoder gives tokens, which are no feature maps.
_TOKENS = {f"{_MONAI}.unetr.UNETR": True, f"{_MONAI}.vit.ViT": True}
