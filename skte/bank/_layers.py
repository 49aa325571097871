"""The layers features are read from, found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from skte._text import did_you_mean
from skte.bank._probe import LayerInfo, probe_layers
from skte.bank._stages import (
    asked_encoder,
    declared_channels,
    is_traced_encoder,
    known_part,
    returned_together,
    traced_decoder_stages,
    traced_encoder_stages,
)
from skte.bank._trace import FIRST, FeatureFlow, further_inputs, trace_forward
from skte.exceptions import BankError


def find_layers(
    module: nn.Module,
    layers: str | Sequence[str],
    example: torch.Tensor,
    *,
    output: str | int | None = None,
) -> list[LayerInfo]:
    """Find the stages of a network, or describe layers by name.

    Well-known classes and their subclasses are looked up: ``PlainConvUNet``, ``ResidualUNet``,
    ``ResidualEncoderUNet``, ``PlainConvEncoder``, ``ResidualEncoder``, and MONAI's
    ``AttentionUnet``, ``BasicUNet``, ``DynUNet``, ``FlexibleUNet``, ``MedNeXt``, ``ResNet``,
    ``SegResNet``, ``SegResNetDS``, ``SegResNetDS2``, ``SwinTransformer``, ``SwinUNETR``, ``UNet``,
    ``UNETR`` and ``VNet``; of encoders alone always the encoder's stages. Any other network is run
    once: a stage of the decoder ends where its map is about to be raised to a higher resolution,
    the last one before the final convolution, which may also join maps of several resolutions,
    and a stage of the encoder with the last map of its resolution on the way down.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Its mode and parameters are untouched.
    layers : "auto", "decoder", "encoder", "all", "bottleneck+decoder" or sequence of str
        "auto" and "decoder" are the decoder's stages, "all" the encoder's (the bottleneck is the
        first of them) and then those of the decoder that are not among them.
    example : Tensor of shape (1, n_channels, x, y[, z])
        An input it takes; the values do not matter.
    output : str or int, optional
        Which of several outputs is the main one, as for `BankEntry`.

    Returns
    -------
    list of LayerInfo
        Coarse to fine; named layers in the order they are named in. Their ``certainty`` says
        how far they can be trusted.

    Raises
    ------
    BankError
        If the network fails, or layers are not found or cannot be used.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skte.bank import find_layers
    >>> find_layers(nn.Sequential(nn.Conv2d(1, 4, 1)), ["0"], torch.zeros(1, 1, 8, 8))
    [LayerInfo(name='0', stride=(1.0, 1.0), channels=4)]
    """
    return examine_layers(module, layers, example, output)[0]


def examine_layers(
    module: nn.Module,
    layers: str | Sequence[str],
    example: torch.Tensor,
    output: str | int | None = None,
) -> tuple[list[LayerInfo], str | int | None]:
    """Find layers, and say which of several outputs is the main one."""
    network = _Network(module, example, output)
    place = network.flow.trace.place
    return network.checked(_chosen(network, layers)), place


def _chosen(network: _Network, layers: str | Sequence[str]) -> Sequence[_Named]:
    """Layers to check, coarse to fine."""
    if not isinstance(layers, str):
        return [(name, False) for name in layers]
    if layers == "encoder":
        return network.encoder()
    decoder = network.decoder()
    if layers in ("auto", "decoder"):
        return decoder
    encoder = network.encoder()
    found = network.describe(list(dict([*encoder, *decoder])))
    if len({layer.stride for layer in found}) == 1:  # one resolution: there is no way down
        return decoder
    before = encoder if layers == "all" else encoder[:1]
    known = {name for name, _ in before}  # a decoder may be no more than stages of the encoder
    return [*before, *(one for one in decoder if one[0] not in known)]


def describe_layers(
    module: nn.Module, names: Sequence[str], example: torch.Tensor
) -> list[LayerInfo]:
    """Run a network once and report stride and channels of named layers."""
    return _Network(module, example).describe(names)


_NEVER_RAN = "never ran"
_Named = tuple[str, bool]  # a layer, and whether the network itself says that it is one


@dataclass(frozen=True)
class _Network:
    """A network with an example, which it is run on once."""

    module: nn.Module
    example: torch.Tensor
    output: str | int | None = None

    @cached_property
    def flow(self) -> FeatureFlow:
        return FeatureFlow(trace_forward(self.module, self.example[:1], self.output))

    def decoder(self) -> list[_Named]:
        """Name the decoder's stages; of an encoder alone those of the encoder."""
        prefix, part, known = known_part(self.module)
        if known.is_encoder:
            return self.encoder()
        registered = [f"{prefix}{name}" for name in known.decoder_stages(part)]
        # A subclass may have changed its decoder: look for it as in any other network.
        if registered and not self.problems(registered):
            return [(name, True) for name in registered]
        if is_traced_encoder(self.flow):
            return self.encoder()
        names = traced_decoder_stages(self.flow)
        if names:
            return [(name, False) for name in names]
        raise self._nothing(
            "decoder layer", "nothing but a head, or no convolution leads to its output"
        )

    def encoder(self) -> list[_Named]:
        """Name the encoder's stages."""
        prefix, part, known = known_part(self.module)
        registered = [f"{prefix}{name}" for name in known.encoder_stages(part)]
        if registered and not self.problems(registered):
            return [(name, True) for name in registered]
        asked = asked_encoder(self.module)
        if asked and not self.problems(asked):
            return [(name, True) for name in asked]
        names = traced_encoder_stages(self.flow)
        if not names:
            raise self._nothing(
                "encoder stage",
                "no module returns a feature map on the way to its lowest resolution",
            )
        # Most libraries say how many channels each stage has: the finder must agree.
        found = [layer.channels for layer in self.describe(names)]
        agrees = any(_is_part(found, said[::-1]) for said in declared_channels(self.module))
        agrees = agrees and len(returned_together(self.flow)) > 1
        return [(name, agrees) for name in names]

    def _nothing(self, what: str, why: str) -> BankError:
        """Say why a network has no stages; that it wants a prompt, where it ignores the image."""
        remedy = further_inputs(self.module)[0] if self.flow.trace.output is None else ""
        if remedy:
            why = "what it returns does not depend on the image"
        remedy = remedy or _remedy(self.module)
        return BankError(f"No {what} found in {type(self.module).__name__}: {why}. {remedy}")

    def checked(self, named: Sequence[_Named]) -> list[LayerInfo]:
        """Describe layers, and check those that the network does not vouch for."""
        layers = self.describe([name for name, _ in named])
        if all(known for _, known in named):
            return layers
        probed = probe_layers(self.module, layers, self.example[:1])
        # Maps too coarse for the probe are as certain as the others that it was found with.
        verdicts = [found.verdict for found in probed]
        others = "checked" if "checked" in verdicts and "guess" not in verdicts else "guess"
        return [
            layer if known else replace(found, certainty=found.verdict or others)
            for layer, found, (_, known) in zip(layers, probed, named, strict=True)
        ]

    def problems(self, names: Sequence[str]) -> list[str]:
        """List all that is wrong with layers."""
        modules = dict(self.module.named_modules(remove_duplicate=False))
        problems = _name_problems(names, modules)
        return problems or [p for name in names if (p := self._problem(name, modules[name]))]

    def describe(self, names: Sequence[str]) -> list[LayerInfo]:
        """Say how the outputs of layers lie in the image."""
        problems = self.problems(names)
        if problems:
            raise BankError(" ".join(problems))
        return [self._described(name) for name in names]

    @cached_property
    def _first_names(self) -> dict[int, str]:
        return {id(part): name for name, part in self.module.named_modules()}

    def _returned(self, name: str) -> Any:
        part = self.module.get_submodule(name)
        return self.flow.trace.returned.get(self._first_names[id(part)], _NEVER_RAN)

    def _form(self, name: str) -> tuple[int, str, int] | None:
        first = self._first_names[id(self.module.get_submodule(name))]
        number = next((c.output for c in self.flow.calls if c.name == first), None)
        form = None if number is None else self.flow.form(number)
        return None if number is None or form is None else (number, *form)

    def _problem(self, name: str, part: nn.Module) -> str | None:
        found = self._returned(name)
        if not isinstance(found, str) and self._form(name) is not None:
            return None
        return _output_problem(name, found, self.example[:1])

    def _described(self, name: str) -> LayerInfo:
        shape, form = self._returned(name), self._form(name)
        size = tuple(self.example.shape[2:])
        if form is None:  # no map of the image as far as is known, but it looks like one
            grid, channels, order, n_extra = shape[2:], shape[1], FIRST, 0
        else:
            number, order, n_extra = form
            layout = self.flow.layouts[number]
            grid = size if layout is None else layout.grid
            channels = self.flow.channels(number)
        stride = tuple(a / b for a, b in zip(size, grid, strict=True))
        return LayerInfo(name, stride, channels, order, n_extra)


def _is_part(found: Sequence[int], said: Sequence[int]) -> bool:
    """Whether some of the numbers, in their order, are those that were found."""
    rest = iter(said)
    return all(number in rest for number in found)


def _name_problems(names: Sequence[str], modules: dict[str, nn.Module]) -> list[str]:
    known = [name for name in modules if name]
    problems = [] if len(names) else ["layers is empty: name at least one layer."]
    problems += [
        f"layers names {name!r} twice." for i, name in enumerate(names) if name in names[:i]
    ]
    for name in names:
        if name in modules and name:
            continue
        hint = did_you_mean(name, known, listed=False) or f"It has {_shown(known)}."
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


def _remedy(module: nn.Module) -> str:
    names = list(dict(module.named_modules()))[1:]
    if not names:
        return "It has no modules inside, so there is no layer to name either."
    return f"Name the layers to read with layers=(...), from {_shown(names)}."


def _shown(names: Sequence[str], most: int = 12) -> str:
    """List the first names for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(repr, names[:most])) or "no named modules") + more


def model_spatial_dims(module: nn.Module) -> int | None:
    """Return whether a network takes 2-D or 3-D images, as its convolutions say."""
    found = {len(part.kernel_size) for part in module.modules() if isinstance(part, _ConvNd)}
    return max(found & {2, 3}, default=None)


def model_in_channels(module: nn.Module) -> int | None:
    """Return how many channels a network takes, as its first convolution says."""
    convolutions = [part for part in module.modules() if isinstance(part, _ConvNd)]
    if not convolutions:
        return None
    first: int = convolutions[0].in_channels
    if first == 0 or any(0 < c.in_channels < first for c in convolutions):
        return None
    return first
