"""Networks of the study: U-Nets of four stages with instance norm, and three relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["BOTTLENECK", "DECODER", "ENCODER", "UNet", "build", "fresh"]

ENCODER = ("encoder.0", "encoder.1", "encoder.2")
BOTTLENECK = ("encoder.3",)
DECODER = ("decoder.0", "decoder.1", "decoder.2")


class UNet(nn.Module):
    """U-Net of four stages; `head` is its last convolution.

    ``kind``: "unet" and "volume" are plain, "residual" adds each stage's input to its output,
    "noskip" has no connections from encoder to decoder, and "attention" has a block
    of self-attention in its two deepest stages.
    """

    def __init__(self, n_outputs: int = 2, width: int = 8, kind: str = "unet") -> None:
        super().__init__()
        n_dims = 3 if kind == "volume" else 2
        widths: Sequence[int] = [width << i for i in range(4)]
        self.skips = kind != "noskip"
        self.encoder = nn.ModuleList(
            _stage(n_in, n_out, n_dims, kind, deep=i > 1)
            for i, (n_in, n_out) in enumerate(zip([1, *widths], widths, strict=False))
        )
        transposed: Any = nn.ConvTranspose3d if n_dims == 3 else nn.ConvTranspose2d
        self.up = nn.ModuleList(transposed(widths[i + 1], widths[i], 2, 2) for i in (2, 1, 0))
        self.decoder = nn.ModuleList(
            _stage(widths[i] * (1 + self.skips), widths[i], n_dims, kind) for i in (2, 1, 0)
        )
        self.pool = nn.MaxPool3d(2) if n_dims == 3 else nn.MaxPool2d(2)
        self.head = _conv(n_dims)(width, n_outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images ``(b, 1, *spatial)`` to outputs ``(b, n_outputs, *spatial)``."""
        skips = []
        for i, stage in enumerate(self.encoder):
            x = stage(self.pool(x) if i else x)
            skips.append(x)
        for up, stage, skip in zip(self.up, self.decoder, skips[2::-1], strict=True):
            x = up(x)
            x = stage(torch.cat([x, skip], dim=1) if self.skips else x)
        out: torch.Tensor = self.head(x)
        return out

    def body_parameters(self) -> list[nn.Parameter]:
        """All weights but those of the head, which fine-tuning replaces."""
        return [p for name, p in self.named_parameters() if not name.startswith("head.")]


def build(network: str, n_outputs: int = 2) -> UNet:
    """Build a network by architecture and width, such as ``residual-8``."""
    kind, width = network.split("-")
    return UNet(n_outputs, int(width), kind)


def fresh(network: str, seed: int, n_outputs: int = 2) -> UNet:
    """Build a network whose random weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(network, n_outputs)


def _conv(n_dims: int) -> Any:
    return nn.Conv3d if n_dims == 3 else nn.Conv2d


def _stage(n_in: int, n_out: int, n_dims: int, kind: str, deep: bool = False) -> nn.Module:
    norm: Any = nn.InstanceNorm3d if n_dims == 3 else nn.InstanceNorm2d
    layers: list[nn.Module] = []
    for n in (n_in, n_out):
        layers += [
            _conv(n_dims)(n, n_out, 3, padding=1, bias=False),
            norm(n_out, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    if kind == "attention" and deep:
        layers.append(_Attention(n_out))
    if kind == "residual":
        return _Residual(nn.Sequential(*layers[:-1]), nn.Conv2d(n_in, n_out, 1, bias=False))
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    def __init__(self, body: nn.Module, short: nn.Module) -> None:
        super().__init__()
        self.body, self.short = body, short
        self.last = nn.LeakyReLU(0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.body(x) + self.short(x))
        return out


class _Attention(nn.Module):
    """A transformer block over all places of a map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        seen = self.norm(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        tokens = tokens + self.mlp(self.mlp_norm(tokens))
        out: torch.Tensor = tokens.transpose(1, 2).reshape(x.shape)
        return out
