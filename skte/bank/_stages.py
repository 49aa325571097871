"""Stages of a network: by its architecture where it is known, else found in one traced pass."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from skte.bank._trace import FIRST, Call, FeatureFlow, reached


def traced_decoder_stages(flow: FeatureFlow) -> list[str]:
    """Names of the modules at whose end the decoder stages end, coarse to fine."""
    # The decoder is what lies between the lowest resolution and the final convolution. A
    # stage ends where its map is about to be raised to a higher resolution, and the last one
    # at the final convolution. Of the modules that return that map the outermost is named
    # that holds no other stage.
    features = {n for n in flow.sources[flow.head] if n > 0} if flow.head is not None else set()
    if flow.head is None or not features:
        return []
    return _Decoder(flow, max(features, key=lambda n: (flow.size[n], n)), flow.head).stage_names()


class _Decoder:
    """The maps between the lowest resolution and the final convolution."""

    def __init__(self, flow: FeatureFlow, feature: int, head: int) -> None:
        self.flow, self.feature, self.head = flow, feature, head
        self.named = {call.output for call in flow.calls}
        maps = sorted((reached(flow.sources, feature) | {feature}) - _side_branches(flow))
        # What is smaller than all that the encoder returns is a side branch, such as pooling.
        sizes = {flow.size[n] for n in returned_together(flow)}
        self.lowest = min(flow.size[n] for n in maps) if len(sizes) < 2 else min(sizes)
        self.fused = self._fused(set(maps))
        self.maps: set[int] = set()
        self.work: dict[int, int] = {}  # convolutions since the resolution last rose
        self.learned: set[int] = set()  # the same, the raising convolution included
        for n in maps:
            sources = flow.sources[n] & self.maps
            starts = flow.size[n] == self.lowest or n in self.fused
            if n > 0 and (starts or (flow.size[n] > self.lowest and sources)):
                self._add(n, sources)

    def _fused(self, maps: set[int]) -> set[int]:
        """Collect what is joined for the head in several resolutions, and what that was made of."""
        # Logits that are joined are no features.
        flow, found, waiting = self.flow, set(), [self.feature]
        while waiting:
            n = waiting.pop()
            if flow.trace.nodes[n].op.lstrip("_").startswith(("cat", "upsample")):
                waiting.extend(flow.sources[n])
            elif n in maps and n > 0 and flow.channels(n) != flow.channels(self.head):
                found |= {m for m in reached(flow.sources, n) | {n} if flow.size[m] == flow.size[n]}
        return found if len({flow.size[n] for n in found}) > 1 else set()

    def _add(self, n: int, sources: set[int]) -> None:
        same = [s for s in sources if not self.flow.raises(s, n)]
        convolution = self.flow.is_convolution(n)
        self.maps.add(n)
        self.work[n] = max((self.work[s] for s in same), default=0)
        self.work[n] += convolution and len(same) == len(sources)
        if convolution or any(s in self.learned for s in same):
            self.learned.add(n)

    def stage_names(self) -> list[str]:
        ends = self._ends()
        names: dict[str, None] = {}
        coarser: list[int] = []
        for size in sorted(ends):
            name = self._name(ends[size], coarser)
            coarser.append(ends[size])
            is_stage = size > self.lowest or len(ends) == 1 or ends[size] in self.fused
            if name is not None and is_stage:
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
        size = self.flow.size
        for call in self.flow.calls:
            if not (call.contains(end) and call.contains(following)):
                continue
            inside = range(call.start + 1, end + 1)
            if any(size.get(n, size[end]) != size[end] for n in inside):
                continue
            for entry in call.inputs:
                is_stage = entry in self.named & self.maps and self.work[entry]
                if is_stage and size[entry] == size[end]:
                    return entry
        return end

    def _name(self, end: int, coarser: Sequence[int]) -> str | None:
        """Name the outermost module that returns the map, or the nearest before it."""
        size = self.flow.size
        current: int | None = end
        while current is not None:
            name = _outermost(self.flow, current, coarser)
            if name is not None:
                return name
            sources = self.flow.sources[current] & self.maps & self.learned
            before = [s for s in sources if size[s] == size[end]]
            current = max(before, key=lambda n: (self.work[n], n), default=None)
        return None


def _outermost(
    flow: FeatureFlow, n: int, coarser: Sequence[int], *, made_it: bool = False
) -> str | None:
    """Name the outermost module that returns a map and made none of the coarser ones."""
    for call in flow.calls:
        is_own = call.contains(n) or not made_it
        if call.output == n and is_own and not any(map(call.contains, coarser)):
            return call.name
    return None


def traced_encoder_stages(flow: FeatureFlow) -> list[str]:
    """Name the modules at whose end the encoder's stages end, coarse to fine."""
    # Maps of several resolutions that a module on the way down returns together are what the
    # network takes for its stages. Where there are none, the encoder is all that the first
    # map of the lowest resolution was made from, and what follows it at that resolution; a
    # stage ends with the last map of its resolution.
    together = returned_together(flow)
    latest = {flow.size[n]: n for n in sorted(together)}
    if len(latest) > 1:
        stages: set[int] = set()
        for size, n in latest.items():
            stages |= {m for m in reached(flow.sources, n) | {n} if m and flow.size[m] == size}
        return _named_ends(flow, stages)
    maps = [n for n in flow.size if n > 0 and n not in _logits(flow)]
    if not maps:
        return []
    lowest = min(flow.size[n] for n in together or maps)
    low = [n for n in maps if flow.size[n] == lowest]
    last = max(together, default=_bottleneck_end(flow, low[0]))
    return _named_ends(
        flow, {n for n in reached(flow.sources, low[0]) if n > 0} | {n for n in low if n <= last}
    )


def _named_ends(flow: FeatureFlow, maps: set[int]) -> list[str]:
    """Name the modules that return the last map of each resolution, coarse to fine."""
    names: dict[str, None] = {}
    ends: list[int] = []
    for size in sorted({flow.size[n] for n in maps}):
        # A map that was padded is not a stage of its own.
        if ends and size < 1.5 * flow.size[ends[-1]]:
            continue
        for n in sorted((n for n in maps if flow.size[n] == size), reverse=True):
            name = _outermost(flow, n, ends, made_it=True)  # and did not hand it on
            if name is not None:
                names[name] = None
                ends.append(n)
                break
    return list(names)


def is_traced_encoder(flow: FeatureFlow) -> bool:
    """Whether a network returns the maps of its encoder and nothing else."""
    whole = (set(call.outputs) for call in flow.trace.calls if not call.name)
    found = [n for outputs in whole for n in outputs if flow.form(n)]
    return len(found) > 1 and not flow.raised & set(found)


def _logits(flow: FeatureFlow) -> set[int]:
    """Collect the final convolution and all that was made from it."""
    if flow.head is None or flow.head not in flow.size or is_traced_encoder(flow):
        return set()
    found = {flow.head}
    for n in range(flow.head + 1, len(flow.trace.nodes)):
        if found.intersection(flow.trace.nodes[n].parents):
            found.add(n)
    return found


def _side_branches(flow: FeatureFlow) -> set[int]:
    """Collect what comes only from raised maps that were lowered once more, as in a pyramid."""
    # Lowered twice they are the way down of a second U-Net.
    side: set[int] = set()
    for n in sorted(flow.size):
        lowered = {s for s in flow.sources[n] if flow.size[s] >= 1.5 * flow.size[n]}
        if lowered & side:
            return set()
        if flow.sources[n] and flow.sources[n] <= side | (lowered & flow.raised):
            side.add(n)
    return side


def returned_together(flow: FeatureFlow) -> list[int]:
    """Return the maps of the most resolutions that one module on the way down returned."""
    # Of one resolution only where that module takes the image: attention returns pairs too,
    # and a block its output before and after pooling.
    found: list[int] = []
    n_found = 0
    lowest = min((flow.size[n] for n in flow.size if n not in flow.raised), default=0)
    for call in _outermost_first(flow):
        own = [n for n in call.outputs if call.contains(n) and flow.form(n)]
        sizes = {flow.size[n] for n in own}
        if not call.is_collection or not own or flow.raised & set(own):
            continue
        are_tokens = flow.form(own[0]) != (FIRST, 0)  # a neck may pool them further
        if len(sizes) < 3 and min(sizes) > lowest and not are_tokens:
            continue
        if len(sizes) > n_found and (len(sizes) > 1 or 0 in call.inputs):
            found, n_found = own, len(sizes)
    return found


def _outermost_first(flow: FeatureFlow) -> list[Call]:
    return sorted(flow.trace.calls, key=lambda call: (call.start, -call.end))


def _bottleneck_end(flow: FeatureFlow, first: int) -> int:
    """Return the last map of the lowest resolution that no part of the way up made."""
    # The way up often begins with a convolution that narrows the map: the outermost call that
    # raises the resolution, and did not make the first map of the lowest one, got the
    # bottleneck as its input.
    low = [n for n in flow.size if flow.size[n] == flow.size[first]]
    raised = [n for n in flow.size if any(s in low and flow.raises(s, n) for s in flow.sources[n])]
    if not raised:
        return max(low)
    for call in _outermost_first(flow):
        inputs = [n for n in call.inputs if n in low]
        if call.contains(raised[0]) and not call.contains(first) and inputs:
            return max(inputs)
    return max(n for n in flow.sources[raised[0]] if n in low)


#: Patterns of the names of modules, each of which has to be found, or a function that lists them.
Stages = Sequence[str] | Callable[[nn.Module], list[str]]


@dataclass(frozen=True)
class Architecture:
    """Names of the stages of one class of networks."""

    decoder: Stages = ()  # coarse to fine
    encoder: Stages = ()  # in the order they run, the bottleneck last
    around: tuple[str, ...] = ()  # modules of the encoder beside its stages

    @property
    def is_encoder(self) -> bool:
        """Whether it is an encoder and nothing else: its output is a feature map."""
        return bool(self.encoder and not self.decoder)

    def decoder_stages(self, module: nn.Module) -> list[str]:
        """Name the decoder stages, coarse to fine; empty where a subclass renamed any."""
        return _matching(module, self.decoder)

    def encoder_stages(self, module: nn.Module) -> list[str]:
        """Name the encoder stages, coarse to fine; empty where a subclass renamed any."""
        return _matching(module, self.encoder)[::-1]

    def encoder_roots(self, module: nn.Module) -> list[str]:
        """Name the modules that hold the encoder; empty if that is the whole network."""
        stages = [] if self.is_encoder else self.encoder_stages(module)
        return [*stages, *self.around] if stages else []


def _matching(module: nn.Module, stages: Stages) -> list[str]:
    if callable(stages):
        return stages(module)
    known = dict(module.named_modules(remove_duplicate=False))
    found = [[name for name in known if re.fullmatch(one, name)] for one in stages]
    # Of levels that are nested the deepest is the coarsest.
    nested = [sorted(names, key=lambda name: -name.count(".")) for names in found]
    return [name for names in nested for name in names] if all(found) else []


def _unet_encoder(module: nn.Module) -> list[str]:
    """Follow MONAI's nested levels down: Sequential(down, SkipConnection(next level), up)."""
    known = dict(module.named_modules(remove_duplicate=False))
    names, level = [], "model"
    while f"{level}.1.submodule" in known:
        names.append(f"{level}.0")
        level = f"{level}.1.submodule"
    return [*names[:-1], level]  # the bottom has the resolution of the level above


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
        if name and (known := architecture_of(part)).decoder
    ]
    outer = [one for one in inside if not any(one[0].startswith(o[0]) and one != o for o in inside)]
    return outer[0] if len(outer) == 1 else ("", module, found)


_DNA = "dynamic_network_architectures"
_MONAI = "monai.networks.nets"
_NNUNET = Architecture([r"decoder\.stages\.\d+"], [r"encoder\.stages\.\d+"], ("encoder",))
_DNA_ENCODER = Architecture(encoder=[r"stages\.\d+"])
_SWIN = ["patch_embed", "layers1.0", "layers2.0", "layers3.0", "layers4.0"]

#: By full name of the class. Without `decoder` a class is taken for an encoder alone.
ARCHITECTURES = {
    f"{_DNA}.architectures.unet.PlainConvUNet": _NNUNET,
    f"{_DNA}.architectures.unet.ResidualEncoderUNet": _NNUNET,
    f"{_DNA}.architectures.unet.ResidualUNet": _NNUNET,
    f"{_DNA}.building_blocks.plain_conv_encoder.PlainConvEncoder": _DNA_ENCODER,
    f"{_DNA}.building_blocks.residual_encoders.ResidualEncoder": _DNA_ENCODER,
    f"{_MONAI}.attentionunet.AttentionUnet": Architecture([r"model\.1(\.submodule\.1)*\.merge"]),
    f"{_MONAI}.basic_unet.BasicUNet": Architecture(
        ["upcat_4", "upcat_3", "upcat_2", "upcat_1"],
        ["conv_0", "down_1", "down_2", "down_3", "down_4"],
    ),
    f"{_MONAI}.dynunet.DynUNet": Architecture(
        [r"upsamples\.\d+"], ["input_block", r"downsamples\.\d+", "bottleneck"]
    ),
    f"{_MONAI}.flexible_unet.FlexibleUNet": Architecture([r"decoder\.blocks\.\d+"]),
    f"{_MONAI}.mednext.MedNeXt": Architecture(
        [r"dec_stages\.\d+"], [r"enc_stages\.\d+", "bottleneck"], ("stem", "down_blocks")
    ),
    f"{_MONAI}.resnet.ResNet": Architecture(encoder=["layer1", "layer2", "layer3", "layer4"]),
    f"{_MONAI}.segresnet.SegResNet": Architecture(
        [r"up_layers\.\d+"], [r"down_layers\.\d+"], ("convInit",)
    ),
    f"{_MONAI}.segresnet_ds.SegResNetDS": Architecture(
        [r"up_layers\.\d+\.blocks"], [r"encoder\.layers\.\d+\.blocks"], ("encoder",)
    ),
    # VISTA3D's image encoder has a second way up, for prompts that name a class.
    f"{_MONAI}.segresnet_ds.SegResNetDS2": Architecture(
        [r"up_layers_auto\.\d+\.blocks"], [r"encoder\.layers\.\d+\.blocks"], ("encoder",)
    ),
    f"{_MONAI}.swin_unetr.SwinTransformer": Architecture(encoder=_SWIN),
    f"{_MONAI}.swin_unetr.SwinUNETR": Architecture(
        ["decoder5", "decoder4", "decoder3", "decoder2", "decoder1"],
        [f"swinViT.{name}" for name in _SWIN],
        ("swinViT",),
    ),
    # The outermost "up" already returns classes, so it is the head.
    f"{_MONAI}.unet.UNet": Architecture([r"model(\.1\.submodule)+\.2"], _unet_encoder),
    f"{_MONAI}.unetr.UNETR": Architecture(["decoder5", "decoder4", "decoder3", "decoder2"]),
    f"{_MONAI}.vnet.VNet": Architecture(
        ["up_tr256", "up_tr128", "up_tr64", "up_tr32"],
        ["in_tr", "down_tr32", "down_tr64", "down_tr128", "down_tr256"],
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
