"""The layers features are read from, found."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from skte.bank._describe import LayerInfo, describe_layers, shown_names
from skte.bank._encoder import encoder_stages, is_encoder
from skte.bank._registry import registered_decoder_stages
from skte.bank._stages import traced_decoder_stages
from skte.bank._trace import trace_forward
from skte.exceptions import BankError

__all__ = ["LAYER_SETS", "find_decoder_layers", "find_encoder_layers", "find_layers"]

#: Names that stand for stages of a network, in place of a list of modules.
LAYER_SETS = ("decoder", "encoder", "all", "bottleneck+decoder")


def find_layers(
    module: nn.Module, layers: str | Sequence[str], example: torch.Tensor
) -> list[LayerInfo]:
    """Find or describe the layers that an entry's ``layers`` stands for.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Mode and parameters are untouched.
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
    ``ResidualEncoderUNet``, MONAI's ``AttentionUnet``, ``BasicUNet``, ``DynUNet``,
    ``FlexibleUNet``, ``SegResNet``, ``SwinUNETR``, ``UNet``, ``UNETR`` and ``VNet``. Any
    other network is run once, and the stages are found in the flow of its tensors: a
    stage ends where its map is about to be raised to a higher resolution, the last
    one before the final convolution. The bottleneck is no stage, the head neither.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Mode and parameters are untouched.
    example : Tensor of shape (1, n_channels, x, y[, z])
        An input it takes; the values do not matter.

    Returns
    -------
    list of LayerInfo
        Coarse to fine. A single layer for a network that never raises resolution. Of
        classes that are encoders and nothing else (``PlainConvEncoder``,
        ``ResidualEncoder``, MONAI's ``ResNet`` and ``SwinTransformer``) the encoder's
        stages.

    Raises
    ------
    BankError
        If the network fails or nothing but a head is found.

    See Also
    --------
    describe_layers : The same for layers of your own choice.
    find_encoder_layers : The stages of the encoder.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skte.bank import find_decoder_layers
    >>> network = nn.Sequential(
    ...     nn.Conv3d(1, 4, 3, padding=1),
    ...     nn.Conv3d(4, 8, 2, stride=2),
    ...     nn.ConvTranspose3d(8, 4, 2, stride=2),
    ...     nn.Conv3d(4, 2, 1),
    ... )
    >>> find_decoder_layers(network, torch.zeros(1, 1, 8, 8, 8))
    [LayerInfo(name='2', stride=(1.0, 1.0, 1.0), channels=4)]
    """
    if is_encoder(module):
        return find_encoder_layers(module, example)
    registered = registered_decoder_stages(module)
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
            "convolution leads to its output. Name the layers to read with layers=(...), "
            f"from {shown_names(list(dict(module.named_modules()))[1:])}."
        )
    return describe_layers(module, names, example)


def find_encoder_layers(module: nn.Module, example: torch.Tensor) -> list[LayerInfo]:
    """Find the encoder stages of a network, for checkpoints that hold no decoder.

    Well-known classes are looked up; of any other network one forward pass is traced, and
    a stage ends with the last map of its resolution on the way down.

    Parameters
    ----------
    module : nn.Module
        The network, on the device of `example`. Mode and parameters are untouched.
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

    See Also
    --------
    find_decoder_layers : The stages of the decoder.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skte.bank import find_encoder_layers
    >>> network = nn.Sequential(
    ...     nn.Conv3d(1, 4, 3, padding=1),
    ...     nn.Conv3d(4, 8, 2, stride=2),
    ...     nn.ConvTranspose3d(8, 2, 2, stride=2),
    ... )
    >>> for layer in find_encoder_layers(network, torch.zeros(1, 1, 8, 8, 8)):
    ...     print(layer)
    LayerInfo(name='1', stride=(2.0, 2.0, 2.0), channels=8)
    LayerInfo(name='0', stride=(1.0, 1.0, 1.0), channels=4)
    """
    names = encoder_stages(module, example[:1])
    if not names:
        raise BankError(
            f"No encoder stage found in {type(module).__name__}: no module returns a feature "
            "map on the way to its lowest resolution. Name the layers to read with "
            f"layers=(...), from {shown_names(list(dict(module.named_modules()))[1:])}."
        )
    return describe_layers(module, names, example)
