"""Which layers are read of every class that skte knows, with strides and channels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from skte.bank import LayerInfo, find_layers
from skte.exceptions import BankError

#: Factory, edge of the example, spatial axes. Widths are the classes' own where they have
#: defaults; nnU-Net's are those of a plan for 128 voxels.
Spec = tuple[Callable[[], nn.Module], int, int]


def specs() -> dict[str, Spec]:
    """Every supported class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.networks import nets
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    widths = (32, 64, 128, 256, 320)
    return {
        "nnU-Net PlainConvUNet": (lambda: _nnunet(PlainConvUNet, "n_conv_per_stage"), 64, 3),
        "nnU-Net ResidualEncoderUNet": (
            lambda: _nnunet(ResidualEncoderUNet, "n_blocks_per_stage"), 64, 3,
        ),
        "MONAI AttentionUnet": (
            lambda: nets.AttentionUnet(3, 1, 2, (16, 32, 64, 128), (2, 2, 2)), 32, 3,
        ),
        "MONAI BasicUNet": (lambda: nets.BasicUNet(3), 32, 3),
        "MONAI DynUNet": (
            lambda: nets.DynUNet(
                3, 1, 2, [3] * 5, [1, 2, 2, 2, 2], [2] * 4, filters=list(widths)
            ), 32, 3,
        ),
        "MONAI FlexibleUNet (resnet18)": (
            lambda: nets.FlexibleUNet(1, 2, "resnet18", spatial_dims=3), 64, 3,
        ),
        "MONAI SegResNet": (lambda: nets.SegResNet(3), 32, 3),
        "MONAI SwinUNETR": (lambda: nets.SwinUNETR(1, 2, feature_size=24, spatial_dims=3), 64, 3),
        "MONAI UNet": (lambda: nets.UNet(3, 1, 2, widths, (2, 2, 2, 2), num_res_units=2), 32, 3),
        "MONAI UNETR": (lambda: nets.UNETR(1, 2, (96, 96, 96), spatial_dims=3), 96, 3),
        "MONAI VNet": (lambda: nets.VNet(3), 32, 3),
    }  # fmt: skip


def _nnunet(kind: Any, per_stage: str) -> nn.Module:
    network: nn.Module = kind(
        input_channels=1,
        n_stages=5,
        features_per_stage=[32, 64, 128, 256, 320],
        conv_op=nn.Conv3d,
        kernel_sizes=[[3] * 3] * 5,
        strides=[[1] * 3, *[[2] * 3] * 4],
        num_classes=2,
        n_conv_per_stage_decoder=[1] * 4,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        **{per_stage: [1] * 5},
    )
    return network


def layer_rows(names: list[str] | None = None) -> list[dict[str, Any]]:
    """Look at classes, all by default."""
    rows = []
    for name, (factory, edge, n_axes) in specs().items():
        if names is not None and name not in names:
            continue
        torch.manual_seed(0)
        network, example = factory().eval(), torch.zeros(1, 1, *[edge] * n_axes)
        try:
            encoder = _plain(find_layers(network, "encoder", example))
        except BankError:
            encoder = []
        decoder = _plain(find_layers(network, "decoder", example))
        rows.append({"network": name, "decoder": decoder, "encoder": encoder})
        print(name, decoder, flush=True)
    return rows


def _plain(layers: list[LayerInfo]) -> list[dict[str, Any]]:
    return [{"name": a.name, "stride": list(a.stride), "channels": a.channels} for a in layers]


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of the documentation."""
    lines = [
        '| network | layers="auto": stride (channels) | layers="encoder": stride (channels) |',
        "|---|---|---|",
    ]
    for row in rows:
        cells = [_cell(row[part]) for part in ("decoder", "encoder")]
        lines.append(f"| {row['network']} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _cell(layers: list[dict[str, Any]]) -> str:
    shown = [f"`{a['name']}` {a['stride'][0]:g} ({a['channels']})" for a in layers]
    return ", ".join(shown) or "none: it gives no maps"
