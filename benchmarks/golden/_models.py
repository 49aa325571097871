"""Banks with seeded random weights, written as the tools that train networks write them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import torch

from benchmarks.mixed_bank._models import MODELS
from skte.demo import small_unet

__all__ = ["write_folder", "write_manifest"]

# One of nnU-Net's architectures, one bundle, one manifest with weights of safetensors.
_FOLDERS = ("nnUNet_results/Dataset102_LeftAtrium", "bundles/heart_basicunet", "own/heart")
_WIDTHS = {"narrow": (4, 8), "narrow-again": (4, 8), "wide": (6, 12), "deep": (4, 8, 8)}


def write_manifest(folder: Path, *, n_axes: int, n_classes: int, preprocessing: list[str]) -> Path:
    """Write a manifest of small networks and their weights."""
    folder.mkdir(parents=True)
    models = []
    for seed, (name, widths) in enumerate(_WIDTHS.items()):
        torch.manual_seed(seed)
        arguments = {"spatial_dims": n_axes, "n_classes": n_classes, "widths": list(widths)}
        torch.save(small_unet(**arguments).state_dict(), folder / f"{name}.pt")
        entry = {"name": name, "factory": "skte.demo:small_unet", "arguments": arguments}
        models.append({**entry, "weights": f"{name}.pt", "preprocessing": preprocessing})
    (folder / "bank.json").write_text(json.dumps({"models": models}))
    return folder / "bank.json"


def write_folder(folder: Path, n_classes: int) -> Path:
    """Write a folder with a model of nnU-Net, a MONAI bundle and a manifest."""
    labels = {str(i): f"class {i}" if i else "background" for i in range(n_classes)}
    for model in MODELS:
        if model.folder.startswith(_FOLDERS):
            if model.missing:
                raise SystemExit(model.missing)
            torch.manual_seed(zlib.crc32(model.folder.encode()))
            model.write(model, folder, model.build(n_classes), labels)
    return folder
