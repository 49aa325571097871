"""Folders of trained models, as the tools that train them leave them."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

DNA = "dynamic_network_architectures.architectures.unet"


def require_dna() -> Any:
    return pytest.importorskip(DNA, reason="pip install --no-deps dynamic-network-architectures")


def nnunet_architecture(n_axes: int = 3, kind: str = "PlainConvUNet") -> dict[str, Any]:
    per_stage = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"{DNA}.{kind}",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{n_axes}d",
            "kernel_sizes": [[3] * n_axes] * 3,
            "strides": [[1] * n_axes, [2] * n_axes, [2] * n_axes],
            per_stage: [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n_axes}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def nnunet_plans(n_axes: int = 3, n_channels: int = 1, **changes: Any) -> dict[str, Any]:
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [16] * n_axes,
        "spacing": [1.0] * n_axes,
        "normalization_schemes": ["ZScoreNormalization"] * n_channels,
        "use_mask_for_norm": [False] * n_channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
        },
        "architecture": nnunet_architecture(n_axes),
    }  # fmt: skip
    plans = {
        "dataset_name": "Dataset007_Phantom",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {
            str(c): {"mean": 1.0, "std": 2.0, "percentile_00_5": -3.0, "percentile_99_5": 9.0}
            for c in range(n_channels)
        },
    }
    for key, value in changes.items():
        (plans if key in plans else configuration)[key] = value
    name = "2d" if n_axes == 2 else "3d_fullres"
    return {**plans, "configurations": {name: configuration}}


def nnunet_network(plans: dict[str, Any], n_channels: int = 1, n_classes: int = 3) -> nn.Module:
    """The network that nnU-Net would train, built here by hand."""
    (configuration,) = plans["configurations"].values()
    described = configuration["architecture"]
    arguments = copy.deepcopy(described["arch_kwargs"])
    for key in described["_kw_requires_import"]:
        if arguments[key] is not None:
            arguments[key] = getattr(nn, arguments[key].rpartition(".")[2])
    kind = described["network_class_name"].rpartition(".")[2]
    network: nn.Module = getattr(require_dna(), kind)(
        input_channels=n_channels, num_classes=n_classes, deep_supervision=True, **arguments
    )
    return network


def write_nnunet(
    root: Path,
    plans: dict[str, Any] | None = None,
    *,
    n_channels: int = 1,
    labels: dict[str, Any] | None = None,
    folds: tuple[Any, ...] = (0,),
    checkpoint: str = "checkpoint_final.pth",
    seed: int = 0,
    dataset: str = "Dataset007_Phantom",
    network: nn.Module | None = None,
) -> tuple[Path, nn.Module]:
    """Write a results folder; returns it and the network of the first fold."""
    plans = plans or nnunet_plans(n_channels=n_channels)
    plans = {**plans, "dataset_name": dataset}
    labels = labels or {"background": 0, "organ": 1, "lesion": 2}
    (configuration,) = plans["configurations"]
    folder = root / dataset / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    names = {str(c): f"channel {c}" for c in range(n_channels)}
    description = {"channel_names": names, "labels": labels, "file_ending": ".nii.gz"}
    first = None
    for i, fold in enumerate(folds):
        torch.manual_seed(seed + i)
        trained = network or nnunet_network(plans, n_channels, len(labels))
        first = first or trained
        (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "network_weights": trained.state_dict(),
                "optimizer_state": torch.optim.SGD(trained.parameters(), 0.01).state_dict(),
                "grad_scaler_state": {"scale": 65536.0},
                "logging": {"mean_fg_dice": [np.float32(0.5), np.float64(0.6)]},
                "_best_ema": np.float64(0.6),
                "current_epoch": 1000,
                "init_args": {
                    "plans": plans,
                    "configuration": configuration,
                    "fold": fold,
                    "dataset_json": description,
                    "device": torch.device("cpu"),
                },
                "trainer_name": "nnUNetTrainer",
                "inference_allowed_mirroring_axes": (0, 1, 2),
            },
            folder / f"fold_{fold}" / checkpoint,
        )
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(description))
    assert first is not None
    return folder, first


def require_monai() -> Any:
    with warnings.catch_warnings():  # of arguments that newer releases of torch deprecate
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.networks.nets")


def bundle_config(**changes: Any) -> dict[str, Any]:
    """A configuration like those of MONAI's model zoo."""
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "image_key": "image",
        "device": "$torch.device('cpu')",
        "n_classes": 3,
        "network_def": {
            "_target_": "UNet",
            "_desc_": "small",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": "@n_classes",
            "channels": [4, 8, 8],
            "strides": [2, 2],
            "num_res_units": 1,
            "norm": "instance",
        },
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
                {
                    "_target_": "Spacingd",
                    "keys": "@image_key",
                    "pixdim": [1.0, 1.0, 1.5],
                    "mode": "bilinear",
                },
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "@image_key",
                    "a_min": 0,
                    "a_max": 200,
                    "b_min": 0.0,
                    "b_max": 1.0,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "@image_key"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        **changes,
    }


def bundle_network(config: dict[str, Any] | None = None) -> nn.Module:
    """The network of a configuration, built here by hand."""
    described = dict((config or bundle_config())["network_def"])
    kind = described.pop("_target_").rpartition(".")[2]
    described.pop("_desc_", None)
    described = {k: 3 if v == "@n_classes" else v for k, v in described.items()}
    network: nn.Module = getattr(require_monai(), kind)(**described)
    return network


def write_bundle(
    root: Path,
    config: dict[str, Any] | None = None,
    *,
    name: str = "spleen_bundle",
    seed: int = 0,
    network: nn.Module | None = None,
    content: Any = None,
) -> tuple[Path, nn.Module]:
    """Write a bundle; returns its folder and its network."""
    torch.manual_seed(seed)
    config = config or bundle_config()
    network = network or bundle_network(config)
    folder = root / name
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    metadata = {"version": "0.1.0", "task": "phantoms", "license": "CC0", "changelog": {}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(network.state_dict() if content is None else content, folder / "models" / "model.pt")
    return folder, network
