"""Networks with random weights, small where their classes allow it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn


class Spec(NamedTuple):
    """One network: how it is built, and the example it is run on."""

    library: str  # the package that has to be installed
    build: Callable[[], nn.Module]
    edge: int  # of the example, on every axis
    n_axes: int
    channels: int = 1


def specs() -> dict[str, Spec]:
    """Every network of the table."""
    found = {
        **_monai(), **_nnunet(), **_smp(), **_transformers(), **_torchvision(), **_timm(),
        "like STU-Net": Spec("torch", _Residual, 32, 3),
        "like U-Mamba": Spec("transformers", lambda: _Residual(_Mamba(16)), 32, 3),
    }  # fmt: skip
    return {**{k: v for k, v in found.items() if k not in _SLOW}, **{k: found[k] for k in _SLOW}}


#: Looked at last: minutes each.
_SLOW = (
    "nnU-Net Primus-S", "nnU-Net PrimusV2-S", "nnU-Net PrimusV3-S", "MONAI DAF3D", "MONAI HoVerNet",
)  # fmt: skip


def _from(module: str, name: str, *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        network: nn.Module = getattr(importlib.import_module(module), name)(*args, **kwargs)
        return network

    return build


_NETS = "monai.networks.nets"
_WIDTHS = (4, 4, 8, 8, 16, 6)


def _monai() -> dict[str, Spec]:
    def net(edge: int, n_axes: int, name: str, *args: Any, channels: int = 1, **kw: Any) -> Spec:
        return Spec("monai", _from(_NETS, name, *args, **kw), edge, n_axes, channels)

    dyn: dict[str, Any] = {"filters": [4, 8, 8, 16]}
    swin: dict[str, Any] = {"feature_size": 12, "depths": (1,) * 4, "num_heads": (1, 1, 2, 2)}
    hidden = {"hidden_size": 24, "mlp_dim": 24, "num_heads": 2}
    return {
        "MONAI AHNet": net(128, 2, "AHNet", layers=(1, 1, 1, 1), spatial_dims=2),
        "MONAI AttentionUnet": net(64, 3, "AttentionUnet", 3, 1, 2, (4, 8, 16), (2, 2)),
        "MONAI BasicUNet": net(64, 3, "BasicUNet", 3, features=_WIDTHS),
        "MONAI BasicUNet++": net(128, 2, "BasicUNetPlusPlus", 2, features=_WIDTHS),
        "MONAI BasicUNet++ (deep supervision)": net(
            128, 2, "BasicUNetPlusPlus", 2, features=_WIDTHS, deep_supervision=True
        ),
        "MONAI DAF3D": net(
            64, 3, "DAF3D", 1, 2, visual_output=False,
        ),
        "MONAI DynUNet": net(
            64, 3, "DynUNet", 3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, **dyn
        ),
        "MONAI DynUNet (deep supervision)": net(
            64, 3, "DynUNet", 3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, deep_supervision=True, **dyn
        ),
        "MONAI FlexibleUNet (resnet10)": net(
            64, 3, "FlexibleUNet", 1, 2, "resnet10", spatial_dims=3
        ),
        "MONAI HighResNet": net(24, 3, "HighResNet", 3),
        "MONAI HoVerNet": net(256, 2, "HoVerNet", "fast", channels=3),
        "MONAI MedNeXt": net(64, 3, "MedNeXt", spatial_dims=3, init_filters=8),
        "MONAI QuickNAT": net(128, 2, "Quicknat", num_classes=2, num_channels=1, num_filters=8),
        "MONAI ResNet-18 (encoder alone)": net(
            64, 3, "resnet18", spatial_dims=3, n_input_channels=1
        ),
        "MONAI SegResNet": net(64, 3, "SegResNet", 3, 8, 1, 2),
        "MONAI SegResNetDS": net(64, 3, "SegResNetDS", 3, 8, 1, 2),
        "MONAI SegResNetVAE": net(32, 3, "SegResNetVAE", (32, 32, 32), init_filters=8),
        "MONAI SwinTransformer (encoder alone)": Spec(
            "monai",
            _from(
                f"{_NETS}.swin_unetr", "SwinTransformer", 1, 12, (7,) * 3, (2,) * 3, (1,) * 4,
                (1, 1, 2, 2), spatial_dims=3,
            ), 64, 3,
        ),
        "MONAI SwinUNETR": net(64, 3, "SwinUNETR", 1, 2, spatial_dims=3, **swin),
        "MONAI SwinUNETR (v2)": net(64, 3, "SwinUNETR", 1, 2, spatial_dims=3, use_v2=True, **swin),
        "MONAI UNet 2-D": net(64, 2, "UNet", 2, 1, 2, (4, 8, 16, 32), (2, 2, 2)),
        "MONAI UNet 3-D": net(64, 3, "UNet", 3, 1, 2, (4, 8, 16, 32), (2, 2, 2), num_res_units=2),
        "MONAI UNETR": net(96, 3, "UNETR", 1, 2, (96,) * 3, 4, spatial_dims=3, **hidden),
        "MONAI ViT (encoder alone)": net(
            64, 3, "ViT", 1, (64,) * 3, (8,) * 3, num_layers=2, hidden_size=48, mlp_dim=48,
            num_heads=2,
        ),
        "MONAI VISTA3D": net(32, 3, "vista3d132", 8, 1),
        "MONAI VISTA3D (in a wrapper)": Spec("monai", _vista_wrapped, 32, 3),
        "MONAI VNet": net(64, 3, "VNet", 3),
    }  # fmt: skip


class _WithPrompt(nn.Module):
    """A promptable network with its class prompt fixed, as the how-to page has it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> Any:
        return self.network(image, class_vector=torch.tensor([[1]], device=image.device))


def _vista_wrapped() -> nn.Module:
    return _WithPrompt(_from(_NETS, "vista3d132", 8, 1)())


class _Residual(nn.Module):
    """A residual U-Net after the description of STU-Net, every one of its outputs returned.

    With a mixer of tokens at its bottleneck it is like U-Mamba.
    """

    def __init__(self, mixer: nn.Module | None = None) -> None:
        super().__init__()
        widths = (4, 8, 16)
        self.context = nn.ModuleList(
            _Block(a, b, stride) for a, b, stride in ((1, 4, 1), (4, 8, 2), (8, 16, 2))
        )
        self.mixer = nn.Identity() if mixer is None else mixer
        self.upsample = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in ((8, 16), (4, 8)))
        self.localization = nn.ModuleList(_Block(2 * n, n, 1) for n in (8, 4))
        self.heads = nn.ModuleList(nn.Conv3d(n, 2, 1) for n in widths[1::-1])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        skips = []
        for block in self.context:
            x = block(x)
            skips.append(x)
        x, found = self.mixer(skips.pop()), []
        for up, block, head in zip(self.upsample, self.localization, self.heads, strict=True):
            raised = up(nn.functional.interpolate(x, scale_factor=2.0))
            x = block(torch.cat([raised, skips.pop()], 1))
            found.append(head(x))
        return found[::-1]


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(before, after, 3, stride, 1)
        self.conv2 = nn.Conv3d(after, after, 3, 1, 1)
        self.conv3 = nn.Conv3d(before, after, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(nn.functional.leaky_relu(self.conv1(x)))
        return nn.functional.leaky_relu(y + self.conv3(x))


class _Mamba(nn.Module):
    """The places of a map as a sequence, for the Mamba of transformers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        library = importlib.import_module("transformers")
        config = library.MambaConfig(hidden_size=width, num_hidden_layers=1, vocab_size=2)
        self.mamba = library.MambaModel(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed: torch.Tensor = self.mamba(inputs_embeds=tokens).last_hidden_state
        return mixed.transpose(1, 2).unflatten(2, x.shape[2:])


_UNETS = "dynamic_network_architectures.architectures.unet"
_PRIMUS = "dynamic_network_architectures.architectures.primus"


def _nnunet() -> dict[str, Spec]:
    def net(name: str, per_stage: str) -> Spec:
        build = _from(
            _UNETS, name, input_channels=1, n_stages=4, features_per_stage=[8, 16, 32, 32],
            conv_op=nn.Conv3d, kernel_sizes=[[3] * 3] * 4, strides=[[1] * 3, *[[2] * 3] * 3],
            num_classes=2, n_conv_per_stage_decoder=[1] * 3, conv_bias=True,
            norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, **{per_stage: [1] * 4},
        )  # fmt: skip
        return Spec("dynamic_network_architectures", build, 32, 3)

    def primus(name: str, edge: int = 32, **kwargs: Any) -> Spec:
        build = _from(
            _PRIMUS, name, input_channels=1, output_channels=2, patch_embed_size=(8, 8, 8),
            input_shape=(edge,) * 3, **kwargs,
        )  # fmt: skip
        return Spec("dynamic_network_architectures", build, edge, 3)

    return {
        "nnU-Net PlainConvUNet": net("PlainConvUNet", "n_conv_per_stage"),
        "nnU-Net ResidualEncoderUNet": net("ResidualEncoderUNet", "n_blocks_per_stage"),
        "nnU-Net ResidualUNet": Spec(
            "dynamic_network_architectures",
            _from(
                _UNETS, "ResidualUNet", 1, 4, [8, 16, 32, 32], nn.Conv3d, 3, [1, 2, 2, 2],
                [1] * 4, 2, [1] * 3, norm_op=nn.InstanceNorm3d, nonlin=nn.LeakyReLU,
            ), 32, 3,
        ),
        "nnU-Net Primus-S": primus("PrimusS", 64),
        "nnU-Net PrimusV2-S": primus("PrimusV2S"),
        "nnU-Net PrimusV3-S": primus("PrimusV3S"),
    }  # fmt: skip


def _smp() -> dict[str, Spec]:
    def net(name: str, encoder: str, edge: int = 128, **kwargs: Any) -> Spec:
        build = _from(
            "segmentation_models_pytorch", name, encoder, encoder_weights=None, in_channels=3,
            classes=2, **kwargs,
        )  # fmt: skip
        return Spec("segmentation_models_pytorch", build, edge, 2, 3)

    return {
        "smp Unet (resnet18)": net("Unet", "resnet18"),
        "smp Unet (efficientnet-b0)": net("Unet", "efficientnet-b0"),
        "smp Unet (mobilenet_v2)": net("Unet", "mobilenet_v2"),
        "smp Unet (mit_b0)": net("Unet", "mit_b0"),
        "smp Unet (timm convnext)": net(
            "Unet", "tu-convnext_atto", encoder_depth=4, decoder_channels=(64, 32, 16, 16)
        ),
        "smp Unet++ (resnet18)": net("UnetPlusPlus", "resnet18"),
        "smp MAnet (resnet18)": net("MAnet", "resnet18"),
        "smp Linknet (resnet18)": net("Linknet", "resnet18"),
        "smp FPN (resnet18)": net("FPN", "resnet18"),
        "smp PAN (resnet18)": net("PAN", "resnet18"),
        "smp PSPNet (resnet18)": net("PSPNet", "resnet18"),
        "smp DeepLabV3 (resnet18)": net("DeepLabV3", "resnet18"),
        "smp DeepLabV3+ (resnet18)": net("DeepLabV3Plus", "resnet18"),
        "smp Segformer (mit_b0)": net("Segformer", "mit_b0"),
        "smp UPerNet (resnet18)": net("UPerNet", "resnet18"),
        "smp DPT (vit)": net(
            "DPT", "tu-vit_tiny_patch16_224", 224, dynamic_img_size=True
        ),
    }  # fmt: skip


def _hf(model: str, config: str, edge: int, channels: int = 3, **kwargs: Any) -> Spec:
    def build() -> nn.Module:
        library = importlib.import_module("transformers")
        made = {k: v() if callable(v) else v for k, v in kwargs.items()}
        network: nn.Module = getattr(library, model)(getattr(library, config)(**made))
        return network

    return Spec("transformers", build, edge, 2, channels)


def _config(name: str, **kwargs: Any) -> Callable[[], Any]:
    return lambda: getattr(importlib.import_module("transformers"), name)(**kwargs)


def _transformers() -> dict[str, Spec]:
    swin: dict[str, Any] = {
        "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 7,
        "image_size": 224, "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }  # fmt: skip
    convnext: dict[str, Any] = {
        "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }  # fmt: skip
    vit: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
        "intermediate_size": 32, "image_size": 224, "patch_size": 16,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "mlp_dim": 32,
        "image_size": 256, "patch_size": 16, "global_attn_indexes": [1, 3], "output_channels": 16,
        "num_pos_feats": 8,
    }  # fmt: skip
    upernet: dict[str, Any] = {"hidden_size": 32, "auxiliary_channels": 16}
    mask: dict[str, Any] = {
        "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_layers": 1,
        "decoder_layers": 2, "num_queries": 4, "dim_feedforward": 32, "num_attention_heads": 2,
        "encoder_feedforward_dim": 32,
    }  # fmt: skip
    return {
        "HF SegFormer": _hf(
            "SegformerForSemanticSegmentation", "SegformerConfig", 128,
            hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, decoder_hidden_size=16,
        ),
        "HF UPerNet (Swin)": _hf(
            "UperNetForSemanticSegmentation", "UperNetConfig", 224,
            backbone_config=_config("SwinConfig", **swin), **upernet,
        ),
        "HF UPerNet (ConvNeXt)": _hf(
            "UperNetForSemanticSegmentation", "UperNetConfig", 128,
            backbone_config=_config("ConvNextConfig", **convnext), **upernet,
        ),
        "HF BEiT": _hf(
            "BeitForSemanticSegmentation", "BeitConfig", 224, **vit, out_indices=[1, 2, 3, 4],
            pool_scales=[1, 2, 3, 6], auxiliary_channels=16, use_auxiliary_head=True,
        ),
        "HF DPT": _hf(
            "DPTForSemanticSegmentation", "DPTConfig", 224, **vit,
            backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 16, 24, 32],
            fusion_hidden_size=16,
        ),
        "HF MobileViT": _hf("MobileViTForSemanticSegmentation", "MobileViTConfig", 256),
        "HF Mask2Former (Swin)": _hf(
            "Mask2FormerForUniversalSegmentation", "Mask2FormerConfig", 224,
            backbone_config=_config("SwinConfig", **swin), **mask,
        ),
        "HF SAM": _hf(
            "SamModel", "SamConfig", 256, vision_config=_config("SamVisionConfig", **vision),
            prompt_encoder_config=_config(
                "SamPromptEncoderConfig", hidden_size=16, image_size=256, patch_size=16
            ),
            mask_decoder_config=_config(
                "SamMaskDecoderConfig", hidden_size=16, mlp_dim=16, num_attention_heads=2
            ),
        ),
        "HF SAM image encoder": _hf("SamVisionModel", "SamVisionConfig", 256, **vision),
        "HF SAM2 image encoder": _hf(
            "Sam2VisionModel", "Sam2VisionConfig", 256, fpn_hidden_size=16,
            backbone_channel_list=[64, 32, 16, 8],
            backbone_config=_config(
                "Sam2HieraDetConfig", hidden_size=8, blocks_per_stage=[1, 2, 3, 2],
                embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 2, 2],
                global_attention_blocks=[5], image_size=[256, 256],
            ),
        ),
        "HF Swin backbone": _hf("SwinBackbone", "SwinConfig", 224, **swin),
        "HF ConvNeXt backbone": _hf("ConvNextBackbone", "ConvNextConfig", 128, **convnext),
        "HF DINOv2 backbone": _hf(
            "Dinov2Backbone", "Dinov2Config", 224, out_indices=[1, 2, 3, 4],
            **{key: value for key, value in vit.items() if key != "intermediate_size"},
        ),
    }  # fmt: skip


def _torchvision() -> dict[str, Spec]:
    def net(name: str, edge: int = 128, where: str = "segmentation", **kwargs: Any) -> Spec:
        build = _from(f"torchvision.models.{where}".rstrip("."), name, weights=None, **kwargs)
        return Spec("torchvision", build, edge, 2, 3)

    return {
        "torchvision FCN": net("fcn_resnet50", weights_backbone=None, num_classes=3),
        "torchvision FCN (auxiliary)": net(
            "fcn_resnet50", weights_backbone=None, num_classes=3, aux_loss=True
        ),
        "torchvision DeepLabV3": net("deeplabv3_resnet50", weights_backbone=None, num_classes=3),
        "torchvision LRASPP": net(
            "lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=3
        ),
        "torchvision Swin-T": net("swin_t", 224, ""),
        "torchvision ConvNeXt-T": net("convnext_tiny", 256, ""),
    }


def _timm() -> dict[str, Spec]:
    def net(name: str, edge: int = 128, **kwargs: Any) -> Spec:
        build = _from("timm", "create_model", name, features_only=True, **kwargs)
        return Spec("timm", build, edge, 2, 3)

    return {
        "timm resnet18 (features)": net("resnet18"),
        "timm convnext_atto (features)": net("convnext_atto"),
        "timm swin_tiny (features)": net("swin_tiny_patch4_window7_224", 224),
        "timm vit_tiny (features)": net("vit_tiny_patch16_224", 224),
        "timm vit_tiny (classifier)": Spec(
            "timm", _from("timm", "create_model", "vit_tiny_patch16_224"), 224, 2, 3
        ),
    }
