"""Stages of a network: by its architecture where it is known, else found in one traced pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from skte.bank._flow import FIRST, FeatureFlow

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "architecture_of",
    "is_traced_encoder",
    "known_part",
    "traced_decoder_stages",
    "traced_encoder_stages",
]


def traced_decoder_stages(flow: FeatureFlow) -> list[str]:
    """Names of the modules at whose end the decoder stages end, coarse to fine.

    The decoder is what lies between the lowest resolution and the final
    convolution. A stage ends where its map is about to be raised to a higher
    resolution, and the last one at the final convolution. Of the modules that return
    that map the outermost is named that holds no other stage.
    """
    head = flow.head()
    features = {n for n in flow.sources[head] if n > 0} if head is not None else set()
    if head is None or not features:
        return []
    feature = max(features, key=lambda n: (flow.size[n], n))
    return _Decoder(flow, feature, head).stage_names()


class _Decoder:
    """The maps between the lowest resolution and the final convolution."""

    def __init__(self, flow: FeatureFlow, feature: int, head: int) -> None:
        self.flow, self.feature, self.head = flow, feature, head
        self.calls = flow.calls()
        self.named = {call.output for call in self.calls}
        maps = sorted((flow.ancestors(feature) | {feature}) - _side_branches(flow))
        # What is smaller than all that the encoder returns is a side branch, such as pooling.
        sizes = {flow.size[n] for n in returned_together(flow)}
        self.lowest = min(flow.size[n] for n in maps) if len(sizes) < 2 else min(sizes)
        maps = [n for n in maps if flow.size[n] >= self.lowest]
        self.maps: set[int] = set()
        self.work: dict[int, int] = {}  # convolutions since the resolution last rose
        self.learned: set[int] = set()  # the same, the raising convolution included
        for n in maps:
            if n > 0 and (flow.size[n] == self.lowest or flow.sources[n] & self.maps):
                self._add(n)

    def _add(self, n: int) -> None:
        flow = self.flow
        same = [s for s in flow.sources[n] & self.maps if not flow.raises(s, n)]
        convolution = flow.is_convolution(n)
        raised = any(flow.raises(s, n) for s in flow.sources[n] & self.maps)
        self.maps.add(n)
        self.work[n] = max((self.work[s] for s in same), default=0)
        self.work[n] += convolution and not raised
        if convolution or any(s in self.learned for s in same):
            self.learned.add(n)

    def stage_names(self) -> list[str]:
        ends = self._ends()
        names: dict[str, None] = {}
        coarser: set[int] = set()
        for size in sorted(ends):
            name = self._name(ends[size], coarser)
            coarser.add(ends[size])
            if name is not None and (size > self.lowest or len(ends) == 1):
                names[name] = None
        return list(names)

    def _ends(self) -> dict[int, int]:
        """Find the map at which the stage of each resolution ends."""
        flow = self.flow
        candidates: dict[int, set[int]] = defaultdict(set)
        for n in self.maps:
            for source in flow.sources[n] & self.maps & self.learned:
                if flow.raises(source, n):
                    candidates[flow.size[source]].add(self._before_exit(source, n))
        ends = {
            size: max(found, key=lambda n: (flow.channels(n), n))
            for size, found in candidates.items()
        }
        # Nothing but an upsampled copy of the stage before is not a stage of its own.
        if self.feature in self.learned or not ends:
            ends[flow.size[self.feature]] = self._before_exit(self.feature, self.head)
        return ends

    def _before_exit(self, end: int, following: int) -> int:
        """Step back over what belongs to the way up (or the head), not to the stage."""
        flow = self.flow
        for call in self.calls:
            if not (call.contains(end) and call.contains(following)):
                continue
            inside = range(call.start + 1, end + 1)
            if any(flow.size.get(n, flow.size[end]) != flow.size[end] for n in inside):
                continue
            for entry in call.inputs:
                if (
                    entry in self.maps
                    and flow.size[entry] == flow.size[end]
                    and self.work[entry]
                    and entry in self.named
                ):
                    return entry
        return end

    def _name(self, end: int, coarser: set[int]) -> str | None:
        """Name the outermost module that returns the map, or the nearest before it."""
        flow = self.flow
        current: int | None = end
        while current is not None:
            for call in self.calls:
                if call.output == current and not any(map(call.contains, coarser)):
                    return call.name
            before = [
                s
                for s in flow.sources[current] & self.maps & self.learned
                if flow.size[s] == flow.size[end]
            ]
            current = max(before, key=lambda n: (self.work[n], n), default=None)
        return None


def traced_encoder_stages(flow: FeatureFlow) -> list[str]:
    """Name the modules at whose end the encoder's stages end, coarse to fine.

    Maps of several resolutions that a module on the way down returns together are what the
    network takes for its stages. Where there are none, the encoder is all that the first map
    of the lowest resolution was made from, and what follows it at that resolution; a stage
    ends with the last map of its resolution.
    """
    together = returned_together(flow)
    if len({flow.size[n] for n in together}) > 1:
        latest = {flow.size[n]: n for n in sorted(together)}
        below = {size: flow.ancestors(n) | {n} for size, n in latest.items()}
        return _named_ends(
            flow, {m for size in latest for m in below[size] if m and flow.size[m] == size}
        )
    maps = [n for n in flow.size if n > 0 and n not in _logits(flow)]
    if not maps:
        return []
    lowest = min(flow.size[n] for n in together or maps)
    first = min(n for n in maps if flow.size[n] == lowest)
    last = max(together, default=_bottleneck_end(flow, first))
    trunk = {n for n in flow.ancestors(first) if n > 0}
    trunk |= {n for n in maps if flow.size[n] == lowest and n <= last}
    return _named_ends(flow, trunk)


def is_traced_encoder(flow: FeatureFlow) -> bool:
    """Whether a network returns the maps of its encoder and nothing else."""
    raised = _raised(flow)
    whole = (set(call.outputs) for call in flow.trace.calls if not call.name)
    found = [n for outputs in whole for n in outputs if flow.form(n)]
    return len(found) > 1 and not raised & set(found)


def _logits(flow: FeatureFlow) -> set[int]:
    """Collect the final convolution and all that was made from it."""
    head = flow.head()
    if head is None or head not in flow.size or is_traced_encoder(flow):
        return set()
    found = {head}
    for n in range(head + 1, len(flow.trace.nodes)):
        if any(parent in found for parent in flow.trace.nodes[n].parents):
            found.add(n)
    return found


def _raised(flow: FeatureFlow) -> set[int]:
    """Collect the maps that were made from one of a lower resolution."""
    raised: set[int] = set()
    for n in sorted(flow.size):
        if any(flow.raises(s, n) or s in raised for s in flow.sources[n]):
            raised.add(n)
    return raised


def _side_branches(flow: FeatureFlow) -> set[int]:
    """Collect what comes only from raised maps that were lowered once more, as in a pyramid.

    Lowered twice they are the way down of a second U-Net.
    """
    raised, side = _raised(flow), set[int]()
    for n in sorted(flow.size):
        lowered = {s for s in flow.sources[n] if flow.size[s] >= 1.5 * flow.size[n]}
        if lowered & side:
            return set()
        if flow.sources[n] and flow.sources[n] <= side | (lowered & raised):
            side.add(n)
    return side


def returned_together(flow: FeatureFlow) -> list[int]:
    """Return the maps of the most resolutions that one module on the way down returned.

    Of one resolution only where that module takes the image: attention returns pairs too, and
    a block its output before and after pooling.
    """
    raised = _raised(flow)
    found: list[int] = []
    lowest = min((flow.size[n] for n in flow.size if n not in raised), default=0)
    for call in sorted(flow.trace.calls, key=lambda c: (c.start, -c.end)):
        own = [n for n in call.outputs if call.contains(n) and flow.form(n)]
        sizes = {flow.size[n] for n in own}
        if not call.is_collection or not own or raised & set(own):
            continue
        are_tokens = flow.form(own[0]) != (FIRST, 0)  # a neck may pool them further
        if len(sizes) < 3 and min(sizes) > lowest and not are_tokens:
            continue
        if len(sizes) > len({flow.size[n] for n in found}) and (len(sizes) > 1 or 0 in call.inputs):
            found = own
    return found


def _named_ends(flow: FeatureFlow, maps: set[int]) -> list[str]:
    """Name the modules that return the last map of each resolution, coarse to fine."""
    names: dict[str, None] = {}
    ends: list[int] = []
    for size in sorted({flow.size[n] for n in maps}):
        # A map that was padded is not a stage of its own.
        if ends and size < 1.5 * flow.size[ends[-1]]:
            continue
        found = _named_end(flow, [n for n in maps if flow.size[n] == size], ends)
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
    calls = flow.calls()
    for n in sorted(maps, reverse=True):
        for call in calls:
            if call.output == n and call.contains(n) and not any(map(call.contains, coarser)):
                return call.name, n
    return None


Finder = Callable[[nn.Module], list[str]]


@dataclass(frozen=True)
class Architecture:
    """Names of the stages of one class of networks, as functions of the network."""

    decoder: Finder | None = None  # coarse to fine
    encoder: Finder | None = None  # in the order they run, the bottleneck last
    around: tuple[str, ...] = ()  # modules of the encoder beside its stages

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


def known_part(module: nn.Module) -> tuple[str, nn.Module, Architecture]:
    """Find the one segmentation network of a known class: itself, or what a wrapper holds."""
    found = architecture_of(module)
    if found != Architecture():
        return "", module, found
    inside = [
        (f"{name}.", part, known)
        for name, part in module.named_modules()
        if name and (known := architecture_of(part)).decoder is not None
    ]
    outer = [one for one in inside if not any(one[0].startswith(o[0]) and one != o for o in inside)]
    return outer[0] if len(outer) == 1 else ("", module, found)


def _children(
    path: str, first: Sequence[str] = (), last: Sequence[str] = (), inside: str = ""
) -> Finder:
    def find(module: nn.Module) -> list[str]:
        try:
            parts = module.get_submodule(path)
        except AttributeError:  # a subclass that renamed it
            return []
        return [*first, *(f"{path}.{name}{inside}" for name, _ in parts.named_children()), *last]

    return find


def _named(template: str, values: Sequence[int], first: Sequence[str] = ()) -> Finder:
    return lambda module: [*first, *(template.format(value) for value in values)]


def _segresnet_ds_decoder(module: nn.Module) -> list[str]:
    # VISTA3D's image encoder has a second way up, for prompts that name a class.
    path = "up_layers_auto" if hasattr(module, "up_layers_auto") else "up_layers"
    return _children(path, inside=".blocks")(module)


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
    f"{_MONAI}.mednext.MedNeXt": Architecture(
        _children("dec_stages"),
        _children("enc_stages", last=["bottleneck"]),
        ("stem", "down_blocks"),
    ),
    f"{_MONAI}.resnet.ResNet": Architecture(encoder=_named("layer{}", (1, 2, 3, 4))),
    f"{_MONAI}.segresnet.SegResNet": Architecture(
        _children("up_layers"), _children("down_layers"), ("convInit",)
    ),
    f"{_MONAI}.segresnet_ds.SegResNetDS": Architecture(
        _segresnet_ds_decoder, _children("encoder.layers", inside=".blocks"), ("encoder",)
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
    f"{_MONAI}.unetr.UNETR": Architecture(_named("decoder{}", (5, 4, 3, 2))),
    f"{_MONAI}.vnet.VNet": Architecture(
        _named("up_tr{}", (256, 128, 64, 32)), _named("down_tr{}", (32, 64, 128, 256), ["in_tr"])
    ),
}


def asked_encoder(module: nn.Module) -> list[str]:
    """Name the encoder's stages as a network of nnU-Net's does, coarse to fine."""
    for name, part in module.named_modules():
        key = getattr(part, "key_to_encoder", None)
        if not isinstance(key, str):
            continue
        path = f"{name}.{key}" if name else key
        known = dict(module.named_modules())
        if path not in known:
            return []
        stages = known[path]
        if isinstance(stages, (nn.ModuleList, nn.Sequential)):
            return [f"{path}.{child}" for child, _ in stages.named_children()][::-1]
        return [path]
    return []


def declared_channels(module: nn.Module) -> list[Sequence[int]]:
    """Collect the channels that encoders inside a network declare, as most libraries do."""
    found: list[Sequence[int]] = []
    for part in module.modules():
        for value in (getattr(part, "out_channels", None), getattr(part, "channels", None)):
            if isinstance(value, (list, tuple)) and all(isinstance(c, int) for c in value):
                found.append(value)
        channels = getattr(getattr(part, "feature_info", None), "channels", None)
        if callable(channels):  # timm
            found.append(list(channels()))
    return found
