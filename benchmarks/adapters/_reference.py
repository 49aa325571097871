"""Preprocess small synthetic images with nnU-Net itself and store what comes out.

Runs in an environment of its own, because ``nnunetv2`` pulls in packages that replace the
torch of this one:

    python3 -m venv nnunet && nnunet/bin/pip install torch==2.13.0 numpy scipy pandas \
        scikit-image SimpleITK nibabel tqdm einops blosc2
    nnunet/bin/pip install --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 \
        acvl-utils batchgenerators batchgeneratorsv2
    nnunet/bin/python -m benchmarks.adapters._reference tests/bank/data/nnunet_reference.npz

The file holds the images, their plans and nnU-Net's own output, so that the tests need
neither nnU-Net nor this script.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SPLINES = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
TORCH = {"is_seg": False, "force_separate_z": None, "memefficient_seg_resampling": False}
CT = {"mean": 99.5, "std": 39.36, "percentile_00_5": -15.0, "percentile_99_5": 197.0}
ZSCORE, CT_NORM = "ZScoreNormalization", "CTNormalization"

#: Size x, y, z; spacing x, y, z in mm; spacing of the plans (z, y, x, transposed); and how
#: the rest differs from plain z-scores and splines.
CASES: dict[str, dict[str, Any]] = {
    "isotropic": {"size": (14, 12, 10), "mm": (1.2, 1.2, 1.2), "target": (1.0, 1.0, 1.0)},
    "as it is": {"size": (9, 8, 7), "mm": (1.0, 1.0, 1.0), "target": (1.0, 1.0, 1.0)},
    "shrunk": {"size": (15, 14, 13), "mm": (0.7, 0.7, 1.1), "target": (1.5, 1.25, 1.25)},
    "thick slices": {"size": (14, 16, 6), "mm": (0.8, 0.8, 5.0), "target": (4.0, 1.0, 1.0)},
    "thick slices kept": {"size": (14, 16, 6), "mm": (0.8, 0.8, 5.0), "target": (5.0, 1.0, 1.0)},
    "to thick slices": {"size": (10, 11, 16), "mm": (1.0, 1.0, 1.0), "target": (4.0, 0.8, 0.8)},
    "thick sagittal": {
        "size": (5, 15, 16),
        "mm": (6.0, 0.9, 0.9),
        "target": (3.5, 0.8, 1.0),
        "transpose": [2, 0, 1],
    },
    "cropped": {"size": (16, 15, 14), "mm": (1.0, 1.1, 1.3), "target": (1.0, 1.0, 1.0), "air": 3},
    "cropped, masked, two channels": {
        "size": (15, 14, 16),
        "mm": (1.0, 0.9, 1.3),
        "target": (1.2, 1.0, 0.8),
        "air": 3,
        "schemes": [ZSCORE, ZSCORE],
        "masks": [True, False],
        "transpose": [1, 2, 0],
    },
    "cropped, thick slices": {
        "size": (16, 15, 8),
        "mm": (0.8, 0.8, 4.0),
        "target": (3.0, 1.0, 1.0),
        "air": 2,
        "schemes": [ZSCORE],
        "masks": [True],
    },
    "CT": {
        "size": (12, 13, 9),
        "mm": (0.8, 0.8, 1.5),
        "target": (1.5, 1.0, 1.0),
        "schemes": [CT_NORM],
        "air": 2,
    },
    "four schemes": {
        "size": (10, 9, 8),
        "mm": (1.0, 1.0, 1.0),
        "target": (1.2, 1.2, 1.2),
        "schemes": ["RescaleTo01Normalization", "RGBTo01Normalization", "NoNormalization", CT_NORM],
    },
    "constant channel": {
        "size": (8, 8, 8),
        "mm": (1.0, 1.0, 1.0),
        "target": (1.0, 1.0, 1.0),
        "schemes": [ZSCORE, ZSCORE],
        "constant": 1,
    },
    "2d": {"size": (14, 12, 5), "mm": (0.9, 0.9, 6.0), "target": (0.7, 1.1)},
    "2d, transposed": {
        "size": (14, 6, 12),
        "mm": (0.9, 2.0, 0.9),
        "target": (0.7, 1.1),
        "transpose": [1, 0, 2],
        "air": 1,
    },
    "forced apart, linear": {
        "size": (12, 11, 8),
        "mm": (1.0, 1.0, 2.0),
        "target": (1.3, 0.8, 0.8),
        "options": {**SPLINES, "order_z": 1, "force_separate_z": True},
    },
    "never apart": {
        "size": (12, 11, 6),
        "mm": (0.8, 0.8, 5.0),
        "target": (4.0, 1.0, 1.0),
        "options": {**SPLINES, "force_separate_z": False},
    },
    "torch": {
        "size": (12, 11, 8),
        "mm": (1.0, 1.0, 2.0),
        "target": (1.3, 0.8, 0.8),
        "function": "resample_torch_fornnunet",
        "options": TORCH,
    },
    "torch, thick slices": {
        "size": (12, 11, 6),
        "mm": (0.8, 0.8, 5.0),
        "target": (4.0, 1.0, 1.0),
        "function": "resample_torch_fornnunet",
        "options": TORCH,
    },
    "not resampled": {
        "size": (9, 8, 7),
        "mm": (1.0, 1.0, 2.0),
        "target": (1.0, 1.0, 1.0),
        "function": "no_resampling_hack",
        "options": {},
    },
    "reoriented": {
        "size": (11, 12, 9),
        "mm": (1.0, 1.2, 1.5),
        "target": (1.4, 1.0, 1.0),
        "reader": "NibabelIOWithReorient",
        "turn": [[0, -1, 0], [0, 0, 1], [-1, 0, 0]],
    },
    "turned, not reoriented": {
        "size": (11, 12, 9),
        "mm": (1.0, 1.2, 1.5),
        "target": (1.4, 1.0, 1.0),
        "turn": [[0, -1, 0], [0, 0, 1], [-1, 0, 0]],
    },
}


def make_image(case: dict[str, Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth blobs and noise, whole numbers as scanners store them, and an affine."""
    rng = np.random.default_rng(seed)
    n_channels = len(case.get("schemes", [ZSCORE]))
    grid = np.indices(case["size"], dtype=float)
    image = np.empty((n_channels, *case["size"]), dtype=np.float32)
    for channel in range(n_channels):
        waves = sum(np.cos(grid[a] * rng.uniform(0.3, 0.9) + rng.uniform(0, 6)) for a in range(3))
        image[channel] = np.clip(
            np.round(120 + 35 * waves + rng.normal(0, 8, grid[0].shape)), 1, 255
        )
    if "constant" in case:
        image[case["constant"]] = 7
    if "air" in case:
        border = np.zeros(case["size"], dtype=bool)
        depth = case["air"]
        border[depth:-1, depth:-2, 1:-depth] = True
        image[:, ~border] = 0
        image[:, depth + 2, depth + 2, 3] = 0  # a hole inside stays inside
    affine = np.eye(4)
    affine[:3, :3] = np.array(case.get("turn", np.eye(3))) @ np.diag(case["mm"])
    affine[:3, 3] = rng.uniform(-30, 30, 3).round(1)
    return image, affine


def make_plans(case: dict[str, Any]) -> dict[str, Any]:
    """Plans as nnU-Net writes them, as far as preprocessing and network go."""
    schemes = case.get("schemes", [ZSCORE])
    n_axes = len(case["target"])
    function = case.get("function", "resample_data_or_seg_to_shape")
    options = case.get("options", SPLINES)
    as_labels = {**options, "is_seg": True, "order": 1}
    segmentation = {k: v for k, v in as_labels.items() if k in options}
    return {
        "dataset_name": "Dataset001_Synthetic",
        "image_reader_writer": case.get("reader", "SimpleITKIO"),
        "transpose_forward": case.get("transpose", [0, 1, 2]),
        "foreground_intensity_properties_per_channel": {
            str(c): CT | {"min": -20.0, "max": 230.0, "median": 101.0} for c in range(len(schemes))
        },
        "configurations": {
            "case": {
                "preprocessor_name": "DefaultPreprocessor",
                "patch_size": [8] * n_axes,
                "spacing": list(case["target"]),
                "normalization_schemes": schemes,
                "use_mask_for_norm": case.get("masks", [False] * len(schemes)),
                "resampling_fn_data": function,
                "resampling_fn_data_kwargs": options,
                "resampling_fn_seg": function,
                "resampling_fn_seg_kwargs": segmentation,
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet."
                    "PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": 2,
                        "features_per_stage": [2, 4],
                        "conv_op": f"torch.nn.modules.conv.Conv{n_axes}d",
                        "kernel_sizes": [[3] * n_axes] * 2,
                        "strides": [[1] * n_axes, [2] * n_axes],
                        "n_conv_per_stage": [1, 1],
                        "n_conv_per_stage_decoder": [1],
                        "conv_bias": True,
                        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n_axes}d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
            }
        },
    }


def run_nnunet(image: np.ndarray, affine: np.ndarray, plans: dict[str, Any]) -> tuple[Any, ...]:
    """Write the image to files and let nnU-Net read and preprocess them.

    The affine is returned as the files have it, in single precision: sizes that fall
    between two voxels are rounded by its last digit.
    """
    import nibabel
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for channel, values in enumerate(image):
            files.append(str(Path(folder, f"case_{channel:04d}.nii.gz")))
            nibabel.save(nibabel.Nifti1Image(values, affine), files[-1])
        data, _, properties = DefaultPreprocessor(verbose=False).run_case(
            files, None, manager, manager.get_configuration("case"), {"labels": {"background": 0}}
        )
        stored = np.asarray(nibabel.load(files[0]).affine)
    return data, properties["bbox_used_for_cropping"], stored


def main() -> None:
    """Write the reference file."""
    arrays: dict[str, Any] = {}
    notes = {
        "nnunetv2": version("nnunetv2"),
        "numpy": np.__version__,
        "scipy": version("scipy"),
        "scikit-image": version("scikit-image"),
        "torch": version("torch"),
        "cases": {},
    }
    for seed, (name, case) in enumerate(CASES.items()):
        image, affine = make_image(case, seed)
        plans = make_plans(case)
        data, box, affine = run_nnunet(image, affine, json.loads(json.dumps(plans)))
        arrays[f"{name}/image"] = image.astype(np.uint8)
        assert (arrays[f"{name}/image"] == image).all()
        arrays[f"{name}/affine"] = affine
        arrays[f"{name}/expected"] = np.asarray(data, dtype=np.float32)
        notes["cases"][name] = {"plans": plans, "box": [[int(e) for e in b] for b in box]}
        print(f"{name}: {image.shape} -> {data.shape}, crop {box}")
    arrays["notes"] = np.array(json.dumps(notes))
    np.savez_compressed(sys.argv[1], **arrays)


if __name__ == "__main__":
    main()
