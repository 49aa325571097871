"""Compare preprocessing with nnU-Net's own, and list the layers that are read."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from benchmarks._provenance import provenance, write_json
from benchmarks.adapters._layers import layer_rows, markdown
from skte import BankEntry

_ROOT = Path(__file__).resolve().parents[2]
_REFERENCE = _ROOT / "tests" / "bank" / "data" / "nnunet_reference.npz"
_RESULT = Path(__file__).parent / "results" / "adapters.json"


def main() -> None:
    """Print and store both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two cases, two networks, no file")
    args = parser.parse_args()
    reference = np.load(_REFERENCE)
    notes = json.loads(str(reference["notes"]))
    names = list(notes["cases"])[: 2 if args.smoke else None]
    rows = [compare(reference, name, notes["cases"][name]) for name in names]
    for row in rows:
        print(
            f"{row['case']}: largest difference {row['difference']:.1e} of values up to "
            f"{row['largest']:.3g}"
        )
    layers = layer_rows(["MONAI UNet", "MONAI VNet"] if args.smoke else None)
    print(markdown(layers))
    if not args.smoke:
        versions = {key: value for key, value in notes.items() if key != "cases"}
        write_json(
            _RESULT, {**provenance(reference=versions), "preprocessing": rows, "layers": layers}
        )


def compare(reference: Any, name: str, case: dict[str, Any]) -> dict[str, Any]:
    """Preprocess an image by an entry and look up nnU-Net's voxels in the result."""
    stored = reference[f"{name}/image"].astype(np.float32)
    expected = reference[f"{name}/expected"]
    image = tio.ScalarImage(tensor=torch.from_numpy(stored), affine=reference[f"{name}/affine"])
    with tempfile.TemporaryDirectory() as folder:
        entry = make_entry(Path(folder), case["plans"], len(stored))
    transform = entry.transform()
    assert transform is not None
    found = transform(image).data.numpy()
    if entry.spatial_dims == 2:  # nnU-Net has the slices first
        found = found.transpose(0, 3, 1, 2)
    starts = [
        int(np.ceil(a * n / (b - a) - 1e-6))
        for (a, b), n in zip(case["box"], expected.shape[1:], strict=True)
    ]
    inside = tuple(slice(a, a + n) for a, n in zip(starts, expected.shape[1:], strict=True))
    return {
        "case": name,
        "shape": list(stored.shape),
        "shape_preprocessed": list(expected.shape),
        "difference": float(np.abs(found[:, *inside] - expected).max()),
        "largest": float(np.abs(expected).max()),
    }


def make_entry(folder: Path, plans: dict[str, Any], n_channels: int) -> BankEntry:
    """Write a results folder with an untrained network and read it as a user would."""
    (configuration,) = plans["configurations"].values()
    arguments = dict(configuration["architecture"]["arch_kwargs"])
    for key in ("conv_op", "norm_op", "nonlin"):
        arguments[key] = getattr(nn, arguments[key].rpartition(".")[2])
    network = PlainConvUNet(input_channels=n_channels, num_classes=2, **arguments)
    (folder / "fold_0").mkdir()
    torch.save(
        {"network_weights": network.state_dict()}, folder / "fold_0" / "checkpoint_final.pth"
    )
    (folder / "plans.json").write_text(json.dumps(plans))
    channels = {str(c): f"channel {c}" for c in range(n_channels)}
    description = {"channel_names": channels, "labels": {"background": 0, "organ": 1}}
    (folder / "dataset.json").write_text(json.dumps(description))
    return BankEntry.from_nnunet(folder)


if __name__ == "__main__":
    main()
