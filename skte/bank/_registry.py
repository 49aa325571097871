"""Where well-known architectures keep their decoder stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

__all__ = ["class_lookup", "registered_decoder_stages"]

Finder = Callable[[nn.Module], list[str]]
Value = TypeVar("Value")


def class_lookup(module: nn.Module, known: Mapping[str, Value]) -> Value | None:
    """Return what is known of a network's class, or else of the nearest of its bases."""
    for cls in type(module).__mro__:
        found = known.get(f"{cls.__module__}.{cls.__qualname__}")
        if found is not None:
            return found
    return None


def registered_decoder_stages(module: nn.Module) -> list[str] | None:
    """Name the decoder stages of a known class or of a subclass of one, coarse to fine.

    Parameters
    ----------
    module : nn.Module
        A network. Classes are told by their full names, so nothing is imported.

    Returns
    -------
    list of str or None
        Module names; None where the class is unknown.
    """
    finder = class_lookup(module, _FINDERS)
    return None if finder is None else finder(module)


def _children(path: str) -> Finder:
    def find(module: nn.Module) -> list[str]:
        try:
            parts = module.get_submodule(path)
        except AttributeError:  # a subclass that renamed it
            return []
        return [f"{path}.{name}" for name, _ in parts.named_children()]

    return find


def _named(*names: str) -> Finder:
    return lambda module: list(names)


def _monai_unet(module: nn.Module) -> list[str]:
    # Nested: every level is Sequential(down, SkipConnection(next level), up). The
    # outermost "up" already returns classes, so it is the head.
    return [name for name in _nested(module, "2") if name != "model.2"]


def _monai_attention_unet(module: nn.Module) -> list[str]:
    return _nested(module, "merge")


def _nested(module: nn.Module, child: str) -> list[str]:
    parents = [
        name
        for name, part in module.named_modules()
        if name and {"2": _is_unet_level, "merge": _is_attention_layer}[child](part)
    ]
    return [f"{name}.{child}" for name in sorted(parents, key=lambda n: -n.count("."))]


def _is_unet_level(part: nn.Module) -> bool:
    return (
        isinstance(part, nn.Sequential)
        and len(part) == 3
        and type(part[1]).__name__ == "SkipConnection"
    )


def _is_attention_layer(part: nn.Module) -> bool:
    return type(part).__name__ == "AttentionLayer"


_DNA = "dynamic_network_architectures.architectures.unet"
_MONAI = "monai.networks.nets"

_FINDERS: dict[str, Finder] = {
    f"{_DNA}.PlainConvUNet": _children("decoder.stages"),
    f"{_DNA}.ResidualEncoderUNet": _children("decoder.stages"),
    f"{_DNA}.ResidualUNet": _children("decoder.stages"),
    f"{_MONAI}.attentionunet.AttentionUnet": _monai_attention_unet,
    f"{_MONAI}.basic_unet.BasicUNet": _named(*(f"upcat_{i}" for i in (4, 3, 2, 1))),
    f"{_MONAI}.dynunet.DynUNet": _children("upsamples"),
    f"{_MONAI}.flexible_unet.FlexibleUNet": _children("decoder.blocks"),
    f"{_MONAI}.segresnet.SegResNet": _children("up_layers"),
    f"{_MONAI}.swin_unetr.SwinUNETR": _named(*(f"decoder{i}" for i in (5, 4, 3, 2, 1))),
    f"{_MONAI}.unet.UNet": _monai_unet,
    f"{_MONAI}.unetr.UNETR": _named(*(f"decoder{i}" for i in (5, 4, 3, 2))),
    f"{_MONAI}.vnet.VNet": _named(*(f"up_tr{i}" for i in (256, 128, 64, 32))),
}
