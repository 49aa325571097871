"""The layers features are read from, found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from skte._text import did_you_mean
from skte.bank._stages import architecture_of, traced_decoder_stages, traced_encoder_stages
from skte.bank._trace import run_quietly, trace_forward
from skte.exceptions import BankError

__all__ = [
    "LAYER_SETS",
    "LayerInfo",
    "describe_layers",
    "find_decoder_layers",
    "find_encoder_layers",
    "find_layers",
    "model_in_channels",
    "model_spatial_dims",
]

#: Names that stand for stages of a network, in place of a list of modules.
LAYER_SETS = ("decoder", "encoder", "all", "bottleneck+decoder")


def find_layers(
    module: nn.Module, layers: str | Sequence[str], example: torch.Tensor
) -> list[LayerInfo]:
    """Find or describe the layers that an entry's ``layers`` stands for.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Its mode and parameters are untouched.
    layers : "auto", "decoder", "encoder", "all", "bottleneck+decoder" or sequence of str
        "auto" and "decoder" are the decoder's stages, "all" the encoder's (the bottleneck is the
        first of them) and then the decoder's.
    example : Tensor of shape (1, n_channels, x, y[, z])
        An input it takes; the values do not matter.

    Returns
    -------
    list of LayerInfo
        Coarse to fine; named layers in the order they are named in.

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
    if not isinstance(layers, str):
        return describe_layers(module, list(layers), example)
    if layers == "encoder":
        return find_encoder_layers(module, example)
    decoder = find_decoder_layers(module, example)
    if layers in ("auto", "decoder"):
        return decoder
    encoder = find_encoder_layers(module, example)
    if encoder[0].stride == decoder[-1].stride:  # one resolution: there is no way down
        return decoder
    before = encoder if layers == "all" else encoder[:1]
    known = {layer.name for layer in decoder}  # an encoder alone has no decoder of its own
    return [layer for layer in before if layer.name not in known] + decoder


def find_decoder_layers(module: nn.Module, example: torch.Tensor) -> list[LayerInfo]:
    """Find the decoder stages of a segmentation network.

    Well-known classes (and their subclasses) are looked up: ``PlainConvUNet``,
    ``ResidualEncoderUNet``, ``ResidualUNet``, MONAI's ``AttentionUnet``, ``BasicUNet``,
    ``DynUNet``, ``FlexibleUNet``, ``SegResNet``, ``SwinUNETR``, ``UNet``, ``UNETR`` and
    ``VNet``. Any other network is run once: a stage ends where its map is about to be raised
    to a higher resolution, the last one before the final convolution.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Its mode and parameters are untouched.
    example : Tensor of shape (1, n_channels, x, y[, z])
        An input it takes; the values do not matter.

    Returns
    -------
    list of LayerInfo
        Coarse to fine, without bottleneck and head. A single layer for a network that never
        raises resolution. Of classes that are encoders and nothing else (``PlainConvEncoder``,
        ``ResidualEncoder``, MONAI's ``ResNet`` and ``SwinTransformer``) the encoder's stages.

    Raises
    ------
    BankError
        If the network fails or nothing but a head is found.

    See Also
    --------
    find_encoder_layers : The stages of the encoder.
    describe_layers : The same for layers of your own choice.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skte.bank import find_decoder_layers
    >>> down, up = nn.Conv2d(1, 8, 2, stride=2), nn.ConvTranspose2d(8, 4, 2, stride=2)
    >>> find_decoder_layers(nn.Sequential(down, up, nn.Conv2d(4, 2, 1)), torch.zeros(1, 1, 8, 8))
    [LayerInfo(name='1', stride=(1.0, 1.0), channels=4)]
    """
    known = architecture_of(module)
    if known.is_encoder:
        return find_encoder_layers(module, example)
    registered = known.decoder_stages(module)
    if registered:
        try:
            return describe_layers(module, registered, example)
        except BankError as error:
            if error.__cause__ is not None:  # the model itself failed
                raise
            # A subclass that changed its decoder: look for it as in any other network.
    names = traced_decoder_stages(trace_forward(module, example[:1]))
    if not names:
        raise BankError(
            f"No decoder layer found in {type(module).__name__}: nothing but a head, or no "
            f"convolution leads to its output. {_remedy(module)}"
        )
    return describe_layers(module, names, example)


def find_encoder_layers(module: nn.Module, example: torch.Tensor) -> list[LayerInfo]:
    """Find the encoder stages of a network, for checkpoints that hold no decoder.

    Well-known classes are looked up; of any other network one forward pass is traced, and
    a stage ends with the last map of its resolution on the way down.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Its mode and parameters are untouched.
    example : Tensor of shape (1, n_channels, x, y[, z])
        An input it takes; the values do not matter.

    Returns
    -------
    list of LayerInfo
        Coarse to fine, the bottleneck first.

    Raises
    ------
    BankError
        If the network fails or its encoder gives no feature maps, as a plain vision
        transformer does.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skte.bank import find_encoder_layers
    >>> down, up = nn.Conv2d(1, 8, 2, stride=2), nn.ConvTranspose2d(8, 4, 2, stride=2)
    >>> find_encoder_layers(nn.Sequential(down, up, nn.Conv2d(4, 2, 1)), torch.zeros(1, 1, 8, 8))
    [LayerInfo(name='0', stride=(2.0, 2.0), channels=8)]
    """
    known = architecture_of(module)
    names = known.encoder_stages(module)
    if not names and not known.gives_tokens:
        names = traced_encoder_stages(trace_forward(module, example[:1]))
    if not names:
        raise BankError(
            f"No encoder stage found in {type(module).__name__}: no module returns a feature "
            f"map on the way to its lowest resolution. {_remedy(module)}"
        )
    return describe_layers(module, names, example)


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
        The network, on the device of `example`. Its mode and parameters are untouched.
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


_AXES: dict[type[nn.Module], int] = {
    nn.Conv2d: 2,
    nn.Conv3d: 3,
    nn.ConvTranspose2d: 2,
    nn.ConvTranspose3d: 3,
}


def model_spatial_dims(module: nn.Module) -> int | None:
    """Return whether a network takes 2-D or 3-D images, as its convolutions say.

    Parameters
    ----------
    module : nn.Module
        The network; it is not run.

    Returns
    -------
    {2, 3} or None
        3 where any convolution is 3-D; None where there are no convolutions.

    Examples
    --------
    >>> from torch import nn
    >>> from skte.bank import model_spatial_dims
    >>> model_spatial_dims(nn.Conv2d(1, 4, 3))
    2
    """
    found = {
        axes for part in module.modules() for kind, axes in _AXES.items() if isinstance(part, kind)
    }
    return max(found, default=None)


def model_in_channels(module: nn.Module) -> int | None:
    """Return how many channels a network takes, as its first convolution says.

    Parameters
    ----------
    module : nn.Module
        The network; it is not run.

    Returns
    -------
    int or None
        None where there is no convolution or the first one registered need not be the first
        one run (another takes fewer channels). ``BankEntry.in_channels`` settles it then.

    Examples
    --------
    >>> from torch import nn
    >>> from skte.bank import model_in_channels
    >>> model_in_channels(nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv3d(4, 3, 1)))
    2
    """
    convolutions = [part for part in module.modules() if isinstance(part, _ConvNd)]
    if not convolutions:
        return None
    first: int = convolutions[0].in_channels
    if first == 0 or any(0 < c.in_channels < first for c in convolutions):
        return None
    return first
