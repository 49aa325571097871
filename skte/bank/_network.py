"""What a network's own convolutions say about the images it takes."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["model_in_channels", "model_spatial_dims"]

_AXES: dict[type[nn.Module], int] = {
    nn.Conv2d: 2,
    nn.Conv3d: 3,
    nn.ConvTranspose2d: 2,
    nn.ConvTranspose3d: 3,
}


def model_spatial_dims(module: nn.Module) -> int | None:
    """Tell from its convolutions whether a network takes 2-D or 3-D images.

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
    """Tell from its first convolution how many channels a network takes.

    Parameters
    ----------
    module : nn.Module
        The network; it is not run.

    Returns
    -------
    int or None
        None where there is no convolution or the first one registered need not be
        the first one run (another takes fewer channels). ``BankEntry.in_channels``
        settles it then.

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
