"""The study's one architecture: a 2-D U-Net of four stages with instance norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["BOTTLENECK", "DECODER", "ENCODER", "WIDTH", "UNet", "fresh"]

#: Features of the first stage. The pilots had 16; 8 let two shared cores finish in time.
WIDTH = 8
ENCODER = ("encoder.0", "encoder.1", "encoder.2")
BOTTLENECK = ("encoder.3",)
DECODER = ("decoder.0", "decoder.1", "decoder.2")


def _stage(n_in: int, n_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n in (n_in, n_out):
        layers += [
            nn.Conv2d(n, n_out, 3, padding=1, bias=False),
            nn.InstanceNorm2d(n_out, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net of four stages; `head` is its last convolution."""

    def __init__(self, n_outputs: int = 2, width: int = WIDTH) -> None:
        super().__init__()
        widths: Sequence[int] = [width << i for i in range(4)]
        self.encoder = nn.ModuleList(
            _stage(n_in, n_out) for n_in, n_out in zip([1, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[i + 1], widths[i], 2, 2) for i in (2, 1, 0)
        )
        self.decoder = nn.ModuleList(_stage(2 * widths[i], widths[i]) for i in (2, 1, 0))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(width, n_outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(b, 1, h, w)`` to outputs ``(b, n_outputs, h, w)``."""
        skips = []
        for i, stage in enumerate(self.encoder):
            x = stage(self.pool(x) if i else x)
            skips.append(x)
        for up, stage, skip in zip(self.up, self.decoder, skips[2::-1], strict=True):
            x = stage(torch.cat([up(x), skip], dim=1))
        out: torch.Tensor = self.head(x)
        return out


def fresh(seed: int, n_outputs: int = 2) -> UNet:
    """Build a network whose random weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(n_outputs)
