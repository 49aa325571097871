"""Where networks of well-known classes keep their stages: one registry by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

__all__ = ["ARCHITECTURES", "Architecture", "architecture_of"]

Finder = Callable[[nn.Module], list[str]]


@dataclass(frozen=True)
class Architecture:
    """Names of the stages of one class of networks, as functions of the network."""

    decoder: Finder | None = None  # coarse to fine
    encoder: Finder | None = None  # in the order they run, the bottleneck last
    around: tuple[str, ...] = ()  # modules of the encoder beside its stages
    gives_tokens: bool = False  # its encoder returns tokens, which are not feature maps

    @property
    def is_encoder(self) -> bool:
        """Whether it is an encoder and nothing else: its output is a feature map."""
        return self.encoder is not None and self.decoder is None

    def decoder_stages(self, module: nn.Module) -> list[str]:
        """Name the decoder stages, coarse to fine; empty where they are not known."""
        return [] if self.decoder is None else self.decoder(module)

    def encoder_stages(self, module: nn.Module) -> list[str]:
        """Name the encoder stages, coarse to fine; empty where a subclass renamed any."""
        names = [] if self.encoder is None else self.encoder(module)
        known = dict(module.named_modules(remove_duplicate=False))
        return names[::-1] if all(name in known for name in names) else []

    def encoder_roots(self, module: nn.Module) -> list[str]:
        """Name the modules that hold the encoder; empty if that is the whole network."""
        stages = [] if self.is_encoder else self.encoder_stages(module)
        return [*stages, *self.around] if stages else []


def architecture_of(module: nn.Module) -> Architecture:
    """Return what is known of a network's class, or else of the nearest of its bases."""
    # Classes are compared by their full names, so nothing is imported.
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__)
    return next((ARCHITECTURES[name] for name in names if name in ARCHITECTURES), Architecture())


def _children(path: str, first: Sequence[str] = (), last: Sequence[str] = ()) -> Finder:
    def find(module: nn.Module) -> list[str]:
        try:
            parts = module.get_submodule(path)
        except AttributeError:  # a subclass that renamed it
            return []
        return [*first, *(f"{path}.{name}" for name, _ in parts.named_children()), *last]

    return find


def _named(template: str, values: Sequence[int], first: Sequence[str] = ()) -> Finder:
    return lambda module: [*first, *(template.format(value) for value in values)]


def _unet_encoder(module: nn.Module) -> list[str]:
    """Follow MONAI's nested levels down: Sequential(down, SkipConnection(next level), up)."""
    names, level = [], "model"
    while True:
        names.append(f"{level}.0")
        level = f"{level}.1.submodule"
        try:
            module.get_submodule(f"{level}.1.submodule")
        except AttributeError:  # the bottom, at the resolution of the level above
            return [*names[:-1], level]


def _unet_decoder(module: nn.Module) -> list[str]:
    # The outermost "up" already returns classes, so it is the head.
    return [name for name in _nested(module, "2", _is_unet_level) if name != "model.2"]


def _attention_unet_decoder(module: nn.Module) -> list[str]:
    return _nested(module, "merge", lambda part: type(part).__name__ == "AttentionLayer")


def _nested(module: nn.Module, child: str, is_level: Callable[[nn.Module], bool]) -> list[str]:
    parents = [name for name, part in module.named_modules() if name and is_level(part)]
    return [f"{name}.{child}" for name in sorted(parents, key=lambda n: -n.count("."))]


def _is_unet_level(part: nn.Module) -> bool:
    if not isinstance(part, nn.Sequential) or len(part) != 3:
        return False
    return type(part[1]).__name__ == "SkipConnection"


_DNA = "dynamic_network_architectures"
_MONAI = "monai.networks.nets"
_NNUNET = Architecture(_children("decoder.stages"), _children("encoder.stages"), ("encoder",))
_DNA_ENCODER = Architecture(encoder=_children("stages"))

#: By full name of the class. Without `decoder` a class is taken for an encoder alone.
ARCHITECTURES = {
    f"{_DNA}.architectures.unet.PlainConvUNet": _NNUNET,
    f"{_DNA}.architectures.unet.ResidualEncoderUNet": _NNUNET,
    f"{_DNA}.architectures.unet.ResidualUNet": _NNUNET,
    f"{_DNA}.building_blocks.plain_conv_encoder.PlainConvEncoder": _DNA_ENCODER,
    f"{_DNA}.building_blocks.residual_encoders.ResidualEncoder": _DNA_ENCODER,
    f"{_MONAI}.attentionunet.AttentionUnet": Architecture(_attention_unet_decoder),
    f"{_MONAI}.basic_unet.BasicUNet": Architecture(
        _named("upcat_{}", (4, 3, 2, 1)), _named("down_{}", (1, 2, 3, 4), ["conv_0"])
    ),
    f"{_MONAI}.dynunet.DynUNet": Architecture(
        _children("upsamples"), _children("downsamples", ["input_block"], ["bottleneck"])
    ),
    f"{_MONAI}.flexible_unet.FlexibleUNet": Architecture(_children("decoder.blocks")),
    f"{_MONAI}.resnet.ResNet": Architecture(encoder=_named("layer{}", (1, 2, 3, 4))),
    f"{_MONAI}.segresnet.SegResNet": Architecture(
        _children("up_layers"), _children("down_layers"), ("convInit",)
    ),
    f"{_MONAI}.swin_unetr.SwinTransformer": Architecture(
        encoder=_named("layers{}.0", (1, 2, 3, 4), ["patch_embed"])
    ),
    f"{_MONAI}.swin_unetr.SwinUNETR": Architecture(
        _named("decoder{}", (5, 4, 3, 2, 1)),
        _named("swinViT.layers{}.0", (1, 2, 3, 4), ["swinViT.patch_embed"]),
        ("swinViT",),
    ),
    f"{_MONAI}.unet.UNet": Architecture(_unet_decoder, _unet_encoder),
    f"{_MONAI}.unetr.UNETR": Architecture(_named("decoder{}", (5, 4, 3, 2)), gives_tokens=True),
    f"{_MONAI}.vit.ViT": Architecture(gives_tokens=True),
    f"{_MONAI}.vnet.VNet": Architecture(
        _named("up_tr{}", (256, 128, 64, 32)), _named("down_tr{}", (32, 64, 128, 256), ["in_tr"])
    ),
}
