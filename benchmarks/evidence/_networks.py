"""The study's two architectures, in sizes that two cores can train."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from skte.demo import small_unet

__all__ = ["ARCHITECTURES", "HEADS", "RATES", "build", "fresh"]

_WIDTHS = {"unet_w4": (4, 8, 16, 32), "unet_w8": (8, 16, 32, 64)}
#: Module that holds the last convolution, by architecture.
HEADS = {"unet_w4": "head", "unet_w8": "head", "unetr": "out"}
#: Rate of pre-training, by architecture: what each one learns at.
RATES = {"unet_w4": 4e-3, "unet_w8": 4e-3, "unetr": 1e-3}
ARCHITECTURES = tuple(HEADS)


def build(architecture: str, n_classes: int, patch: tuple[int, int, int]) -> nn.Module:
    """Build a network with random weights; the factory that the bank's manifest names."""
    if architecture in _WIDTHS:
        return small_unet(n_classes=n_classes, widths=_WIDTHS[architecture])
    from monai.networks.nets import UNETR  # imported here: slow, and needed for one in three

    network: Any = UNETR(
        in_channels=1,
        out_channels=n_classes,
        img_size=tuple(patch),
        feature_size=4,
        hidden_size=48,
        mlp_dim=96,
        num_heads=4,
    )
    return network  # type: ignore[no-any-return]


def fresh(architecture: str, n_classes: int, patch: tuple[int, int, int], seed: int) -> nn.Module:
    """Build a network whose random weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(architecture, n_classes, patch)
