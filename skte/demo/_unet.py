"""A small U-Net, enough for phantoms and for the benchmarks' small banks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from skte._digests import versioned

__all__ = ["SmallUNet", "small_unet"]

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@versioned("small U-Net", 1)
class SmallUNet(nn.Module):
    """A small U-Net for images of any size, in 2-D or 3-D.

    Modules are named as they are spoken of: ``encoder.0`` is the finest encoder
    stage, ``decoder.0`` the coarsest decoder stage, ``head`` the final convolution.

    Parameters
    ----------
    in_channels : int, default=1
        Channels of the input.
    n_classes : int, default=2
        Channels of the output, background included.
    widths : sequence of int, default=(8, 16, 32)
        Channels of the stages, fine to coarse; every stage halves the resolution.
    spatial_dims : {2, 3}, default=3
        Dimensions of the images.

    Examples
    --------
    >>> import torch
    >>> from skte.demo import SmallUNet
    >>> network = SmallUNet(widths=(4, 8))
    >>> network(torch.zeros(1, 1, 9, 8, 7)).shape
    torch.Size([1, 2, 9, 8, 7])
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 2,
        widths: Sequence[int] = (8, 16, 32),
        spatial_dims: int = 3,
    ) -> None:
        super().__init__()
        inputs = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            _stage(a, b, spatial_dims, stride=1 if i == 0 else 2)
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        coarse_to_fine = list(widths[::-1])
        self.decoder = nn.ModuleList(
            _stage(a + b, b, spatial_dims) for a, b in itertools.pairwise(coarse_to_fine)
        )
        self.head = _CONV[spatial_dims](widths[0], n_classes, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of an image.

        Parameters
        ----------
        x : torch.Tensor of shape (n_images, in_channels, x, y[, z])
            Images of any size.

        Returns
        -------
        torch.Tensor of shape (n_images, n_classes, x, y[, z])
            Logits.
        """
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        for stage, skip in zip(self.decoder, skips[-2::-1], strict=True):
            # To the skip's own size, so that odd sizes need no padding.
            x = functional.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = stage(torch.cat([x, skip], dim=1))
        logits: torch.Tensor = self.head(x)
        return logits


@versioned("small U-Net by arguments", 1)
def small_unet(
    in_channels: int = 1,
    n_classes: int = 2,
    widths: Sequence[int] = (8, 16, 32),
    spatial_dims: int = 3,
) -> SmallUNet:
    """Build a `SmallUNet`; the factory that manifests name ``skte.demo:small_unet``.

    Parameters
    ----------
    in_channels : int, default=1
        Channels of the input.
    n_classes : int, default=2
        Channels of the output, background included.
    widths : sequence of int, default=(8, 16, 32)
        Channels of the stages, fine to coarse.
    spatial_dims : {2, 3}, default=3
        Dimensions of the images.

    Returns
    -------
    SmallUNet
        With fresh random weights.

    Examples
    --------
    >>> from skte.demo import small_unet
    >>> [name for name, _ in small_unet().decoder.named_children()]
    ['0', '1']
    """
    return SmallUNet(in_channels, n_classes, widths, spatial_dims)


def _stage(in_channels: int, out_channels: int, dims: int, stride: int = 1) -> nn.Sequential:
    conv, norm = _CONV[dims], _NORM[dims]
    return nn.Sequential(
        conv(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        norm(out_channels, affine=True),
        nn.LeakyReLU(0.01),
        conv(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        norm(out_channels, affine=True),
        nn.LeakyReLU(0.01),
    )
