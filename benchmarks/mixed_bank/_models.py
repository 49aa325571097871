"""Models as the tools that train them leave them: nnU-Net, MONAI, files of weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skte.demo import small_unet

__all__ = ["MODELS", "Model"]

_DNA = "dynamic_network_architectures"


@dataclass(frozen=True)
class Model:
    """A model of the bank: the task it is trained on, and how it is saved.

    `build` returns a network for a number of classes. `write` puts it, and what
    describes it, into a folder for a task's names of classes.
    """

    folder: str
    task: str
    needs: str | None
    patch: tuple[int, int, int]
    build: Callable[[int], nn.Module]
    write: Callable[[Model, Path, nn.Module, dict[str, str]], None]
    settings: dict[str, Any]

    @property
    def missing(self) -> str | None:
        """Why the model cannot be made here; None if it can."""
        if self.needs is None or find_spec(self.needs) is not None:
            return None
        package = self.needs.replace("_", "-")
        return f"{self.folder}: left out, because {package} is not installed"


def _nnunet_architecture(kind: str, features: list[int]) -> dict[str, Any]:
    per_stage = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    n = len(features)
    return {
        "network_class_name": f"{_DNA}.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": n,
            "features_per_stage": features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * n,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (n - 1),
            per_stage: [1] * n,
            "n_conv_per_stage_decoder": [1] * (n - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _build_nnunet(architecture: dict[str, Any]) -> Callable[[int], nn.Module]:
    def build(n_classes: int) -> nn.Module:
        from dynamic_network_architectures.architectures import unet

        arguments = dict(architecture["arch_kwargs"])
        arguments |= {
            "conv_op": nn.Conv3d,
            "norm_op": nn.InstanceNorm3d,
            "nonlin": nn.LeakyReLU,
        }
        kind = architecture["network_class_name"].rpartition(".")[2]
        network: nn.Module = getattr(unet, kind)(
            input_channels=1, num_classes=n_classes, deep_supervision=False, **arguments
        )
        return network

    return build


def _write_nnunet(model: Model, root: Path, network: nn.Module, labels: dict[str, str]) -> None:
    """Write a results folder: plans, dataset, one fold."""
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": list(model.patch),
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
        },
        "spacing": model.settings["spacing"],
        "normalization_schemes": [model.settings["scheme"]],
        "architecture": model.settings["architecture"],
    }  # fmt: skip
    plans = {
        "dataset_name": Path(model.folder).parent.name,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": model.settings["intensities"]},
        "configurations": {"3d_fullres": configuration},
    }
    dataset = {
        "channel_names": {"0": model.settings["channel"]},
        "labels": {name: int(value) for value, name in labels.items()},
        "file_ending": ".nii.gz",
    }
    folder = root / model.folder
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    _write(folder / "plans.json", plans)
    _write(folder / "dataset.json", dataset)
    torch.save(
        {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"plans": plans, "configuration": "3d_fullres", "fold": 0},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        },
        folder / "fold_0" / "checkpoint_final.pth",
    )


def _build_monai(kind: str, arguments: dict[str, Any]) -> Callable[[int], nn.Module]:
    def build(n_classes: int) -> nn.Module:
        from monai.networks import nets

        network: nn.Module = getattr(nets, kind)(out_channels=n_classes, **arguments)
        return network

    return build


def _write_bundle(model: Model, root: Path, network: nn.Module, labels: dict[str, str]) -> None:
    """Write a bundle: configuration, metadata, weights."""
    transforms = [{"_target_": kind, "keys": "image", **o} for kind, o in model.settings["steps"]]
    config = {
        "n_classes": len(labels),
        "network_def": {
            "_target_": model.settings["kind"],
            "out_channels": "@n_classes",
            **model.settings["arguments"],
        },
        "network": "$@network_def.to('cpu')",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                *transforms,
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": list(model.patch)},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
    }
    folder = root / model.folder
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    _write(folder / "configs" / "inference.json", config)
    _write(folder / "configs" / "metadata.json", {"version": "0.1.0", "task": model.task})
    torch.save(network.state_dict(), folder / "models" / "model.pt")


def _build_small(widths: tuple[int, ...]) -> Callable[[int], nn.Module]:
    return lambda n_classes: small_unet(n_classes=n_classes, widths=widths)


def _write_manifest(model: Model, root: Path, network: nn.Module, labels: dict[str, str]) -> None:
    """Write a manifest of one entry, and its weights."""
    folder = root / model.folder
    folder.mkdir(parents=True, exist_ok=True)
    file = model.settings["file"]
    if file.endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file(network.state_dict(), folder / file)
    else:
        torch.save(network.state_dict(), folder / file)
    entry = {
        "name": folder.name,
        "factory": "skte.demo:small_unet",
        "arguments": {"n_classes": len(labels), "widths": list(model.settings["widths"])},
        "weights": file,
        "window_size": list(model.patch),
        "preprocessing": model.settings["steps"],
        "provenance": {"task": model.task},
    }
    _write(folder / "bank.json", {"models": [entry]})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))


def _nnunet(
    folder: str, task: str, kind: str, patch: tuple[int, int, int], **settings: Any
) -> Model:
    architecture = _nnunet_architecture(kind, [8, 16, 32])
    return Model(
        f"{folder}/nnUNetTrainer__nnUNetPlans__3d_fullres", task, _DNA, patch,
        _build_nnunet(architecture), _write_nnunet, {"architecture": architecture, **settings},
    )  # fmt: skip


def _bundle(
    folder: str, task: str, kind: str, arguments: dict[str, Any], steps: list[Any]
) -> Model:
    arguments = {"spatial_dims": 3, "in_channels": 1, **arguments}
    settings = {"kind": kind, "arguments": arguments, "steps": steps}
    build = _build_monai(kind, arguments)
    return Model(folder, task, "monai", (32, 32, 16), build, _write_bundle, settings)


def _small(
    folder: str, task: str, file: str, widths: tuple[int, ...], patch: tuple[int, int, int],
    steps: list[Any],
) -> Model:  # fmt: skip
    needs = "safetensors" if file.endswith(".safetensors") else None
    settings = {"file": file, "widths": widths, "steps": steps}
    return Model(folder, task, needs, patch, _build_small(widths), _write_manifest, settings)


# Of nnU-Net all axes are z, y, x; of the others x, y, z.
MODELS = [
    _nnunet(
        "nnUNet_results/Dataset101_HeadNeck", "HeadNeck_CT", "PlainConvUNet", (16, 32, 32),
        spacing=[4.0, 3.0, 3.0], scheme="CTNormalization", channel="CT",
        # These images hold 0 to 255 in place of Hounsfield units.
        intensities={
            "mean": 128.0, "std": 50.0, "percentile_00_5": 10.0, "percentile_99_5": 250.0,
        },
    ),
    _nnunet(
        "nnUNet_results/Dataset102_LeftAtrium", "LeftAtrium", "ResidualEncoderUNet", (24, 24, 24),
        spacing=[1.5, 1.5, 1.5], scheme="ZScoreNormalization", channel="MRI", intensities={},
    ),
    _bundle(
        "bundles/heart_basicunet", "Heart_ACDC", "BasicUNet",
        {"features": [8, 8, 16, 32, 32, 8], "norm": ["instance", {"affine": True}]},
        [
            ("Orientationd", {"axcodes": "RAS"}),
            ("Spacingd", {"pixdim": [1.5, 1.5, 3.0], "mode": "bilinear"}),
            ("NormalizeIntensityd", {"nonzero": True}),
        ],
    ),
    _bundle(
        "bundles/spine_segresnet", "Spine_T1", "SegResNet",
        {"init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
        [
            ("Orientationd", {"axcodes": "LPS"}),
            ("Spacingd", {"pixdim": [2.0, 2.0, 2.0], "mode": "bilinear"}),
            (
                "ScaleIntensityRangePercentilesd",
                {"lower": 1, "upper": 99, "b_min": 0.0, "b_max": 1.0, "clip": True},
            ),
        ],
    ),
    _small(
        "own/heart_safetensors", "Heart_ACDC", "heart.safetensors", (8, 16, 32), (32, 32, 16),
        [
            "ToCanonical",
            {"name": "Pad", "padding": 4},  # Resample drops the rest of a voxel at the end
            {"name": "Resample", "target": [2.0, 2.0, 4.0]},
            {"name": "RescaleIntensity", "out_min_max": [0, 1], "percentiles": [1, 99]},
        ],
    ),
    _small(
        "own/headneck_state_dict", "HeadNeck_CT", "headneck.pt", (4, 8, 16), (24, 24, 24),
        [
            "ToCanonical",
            {"name": "Pad", "padding": 4},
            {"name": "Resample", "target": [2.5, 2.5, 2.5]},
            {"name": "Clamp", "out_min": 0, "out_max": 200},
            "ZNormalization",
        ],
    ),
]  # fmt: skip
