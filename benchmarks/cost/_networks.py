"""Networks that the timings run, with random weights: time does not depend on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.networks.nets import UNETR, SwinUNETR
from torch import nn

from skte.demo import small_unet


def _unet(width: int) -> Callable[[Sequence[int]], nn.Module]:
    def build(window: Sequence[int]) -> nn.Module:
        torch.manual_seed(0)
        return small_unet(widths=tuple(width * 2**i for i in range(4)))

    return build


def _unetr(window: Sequence[int]) -> nn.Module:
    torch.manual_seed(0)
    return UNETR(
        in_channels=1,
        out_channels=2,
        img_size=tuple(window),
        feature_size=8,
        hidden_size=192,
        mlp_dim=768,
        num_heads=6,
    )


def _swin_unetr(window: Sequence[int]) -> nn.Module:
    torch.manual_seed(0)
    return SwinUNETR(in_channels=1, out_channels=2, feature_size=12)


NETWORKS: dict[str, Callable[[Sequence[int]], nn.Module]] = {
    "unet-8": _unet(8),
    "unet-16": _unet(16),
    "unet-32": _unet(32),
    "unetr": _unetr,
    "swin-unetr": _swin_unetr,
}
