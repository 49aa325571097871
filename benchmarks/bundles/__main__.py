"""Read the segmentation bundles of MONAI's model zoo, and compare steps with MONAI's own parser.

    git clone https://github.com/Project-MONAI/model-zoo
    python -m benchmarks.bundles --zoo model-zoo

Configurations are read as published, with random weights beside them; none is part of this
repository. Each bundle is read with every step, or refused; of those that are read, the steps are
compared with the transforms that MONAI's parser makes of the same files, by name and by what they
make of one image. MONAI's parser, and the second look at those that are refused, run what the
files say.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torch import nn

from benchmarks._provenance import provenance, write_json
from skte import BankEntry
from skte.exceptions import BankError

_RESULT = Path(__file__).parent / "results" / "bundles.json"
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "banks.md"
_BEGIN, _END = "<!-- table: python -m benchmarks.bundles -->", "<!-- end of table -->"
#: Bundles whose task is to segment.
BUNDLES = (
    "brats_mri_segmentation", "endoscopic_tool_segmentation", "multi_organ_segmentation",
    "pancreas_ct_dints_segmentation", "pathology_nuclei_segmentation_classification",
    "pediatric_abdominal_ct_segmentation", "prostate_mri_anatomy",
    "renalStructures_CECT_segmentation", "renalStructures_UNEST_segmentation",
    "segmentation_template", "spleen_ct_segmentation", "spleen_deepedit_annotation",
    "swin_unetr_btcv_segmentation", "ventricular_short_axis_3label", "vista2d", "vista3d",
    "wholeBody_ct_segmentation", "wholeBrainSeg_Large_UNEST_segmentation",
)  # fmt: skip
# Kinds of MONAI's transforms that reading a case does, or that are left out with a warning.
_NOT_STEPS = (
    "LoadImage", "EnsureChannelFirst", "EnsureType", "CastToType", "ConcatItems", "CropForeground",
    "AsChannelFirst", "ToTensor",
)  # fmt: skip


def main() -> None:
    """Read every bundle and write the result file, or only the table of the docs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundles", description=__doc__)
    parser.add_argument("--zoo", type=Path, help="folder of a checkout of the model zoo")
    parser.add_argument("--smoke", action="store_true", help="two bundles, no file")
    parser.add_argument("--page", action="store_true", help="only write the table of the docs")
    args = parser.parse_args()
    if args.page:
        write_page(json.loads(_RESULT.read_text()))
        return
    models = args.zoo and args.zoo / "models"
    if not models or not models.is_dir():
        print("skipped: give a checkout of MONAI's model zoo, --zoo DIR (DIR/models is needed)")
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for name in BUNDLES[:2] if args.smoke else BUNDLES:
        rows.append({"bundle": name, **examine(models / name)})
        print(json.dumps(rows[-1]), flush=True)
    if not args.smoke:
        zoo = {"commit": commit(args.zoo), "monai": version("monai")}
        write_json(_RESULT, {**provenance(zoo=zoo), "bundles": rows})


def commit(folder: Path) -> str | None:
    """Return the commit that a folder is checked out at, where it says so."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip() or None


def examine(published: Path) -> dict[str, Any]:
    """Read one bundle; one that is refused, again with trust in its own scripts."""
    row = read(published, trusted=False)
    if "refused" in row:
        again = read(published, trusted=True)
        row["trusted"] = again.get("refused", f"read: {again.get('network')}")
    return row


def build(entry: BankEntry) -> nn.Module:
    """Build a network with random weights from what an entry says."""
    torch.manual_seed(0)
    factory: Any = entry.factory
    if isinstance(factory, str):
        module, _, kind = factory.partition(":")
        factory = getattr(importlib.import_module(module), kind)
    try:
        network: nn.Module = factory(**entry.arguments)
    except Exception as error:
        raise BankError(f": its network cannot be built: {error}") from error
    return network


def read(published: Path, *, trusted: bool) -> dict[str, Any]:
    """Read one bundle, with random weights beside a copy of its configurations."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / published.name
        shutil.copytree(published, folder, ignore=shutil.ignore_patterns("models", "docs"))
        weights = folder / "models" / "model.pt"
        weights.parent.mkdir()
        torch.save({}, weights)
        try:
            entry = BankEntry.from_monai_bundle(folder, trusted=trusted)
            network = build(entry)
        except BankError as error:
            text = str(error).partition(": ")[2]
            return {"refused": text.partition(". Write the value")[0].partition(". Without it")[0]}
        torch.save(network.state_dict(), weights)
        loaded = BankEntry.from_monai_bundle(folder, trusted=trusted).load().state_dict()
        whole = all(torch.equal(a, loaded[key]) for key, a in network.state_dict().items())
        steps = [step.kind for step in entry.preprocessing]
        return {
            "network": type(network).__name__,
            "n_parameters": sum(p.numel() for p in network.parameters()),
            "weights_are_those_of_the_file": whole and len(loaded) == len(network.state_dict()),
            "steps": steps,
            "left_out": entry.provenance.get("preprocessing_left_out", []),
            **by_monai(folder, entry, steps),
        }


def by_monai(folder: Path, entry: BankEntry, steps: Sequence[str]) -> dict[str, Any]:
    """Compare with the transforms that MONAI's parser makes of the same files."""
    from monai.bundle import ConfigParser
    from monai.data import MetaTensor

    parser = ConfigParser()
    parser.read_config(str(next((folder / "configs").glob("inference.*"))))
    parser["bundle_root"] = str(folder)
    _without_readers(parser.config)
    transforms = parser.get_parsed_content("preprocessing").flatten().transforms
    kinds = [type(one).__name__.removesuffix("d") for one in transforms]
    chain = [
        one
        for kind, one in zip(kinds, transforms, strict=True)
        if kind not in ("LoadImage", "EnsureChannelFirst")
    ]
    n_channels = entry.in_channels or 1
    keys = next((list(one.keys) for one in chain if "Concat" in type(one).__name__), ["image"])
    size = (40, 44, 32) if entry.spatial_dims != 2 else (120, 96, 1)
    values = np.random.default_rng(0).normal(100, 60, (n_channels, *size)).astype(np.float32)
    image = tio.ScalarImage(tensor=torch.tensor(values), affine=np.diag([-0.8, -1.1, 1.5, 1.0]))
    found = entry.transform()(image).data.numpy()
    case = {}
    for i, key in enumerate(keys):
        part = values if len(keys) == 1 else values[i : i + 1]
        part = part[..., 0] if entry.spatial_dims == 2 else part
        case[key] = MetaTensor(torch.tensor(part), affine=torch.tensor(image.affine))
    for one in chain:
        case = one(case)
    expected = np.asarray(case["image" if "image" in case else keys[0]])
    expected = expected[..., None] if entry.spatial_dims == 2 else expected
    alike = found.shape == expected.shape
    return {
        "same_steps": list(steps) == [kind for kind in kinds if kind not in _NOT_STEPS],
        "largest_difference": float(np.abs(found - expected).max()) if alike else None,
        "shapes": [list(found.shape), list(expected.shape)],
    }


def _without_readers(config: Any) -> None:
    """Drop the readers of files, whose packages need not be installed here."""
    if isinstance(config, dict):
        for name in ("reader", "converter") if "LoadImage" in str(config.get("_target_")) else ():
            config.pop(name, None)
        config = list(config.values())
    for item in config if isinstance(config, list) else ():
        _without_readers(item)


def write_page(result: dict[str, Any]) -> None:
    """Put the counts and the table between their marks in the documentation."""
    rows = result["bundles"]
    done = [row for row in rows if "refused" not in row]
    same = [row for row in done if row["same_steps"] and row["largest_difference"] == 0]
    trusted = [row for row in rows if row.get("trusted", "").startswith("read")]
    n_whole = sum(not row["left_out"] for row in done)
    text = (
        f"Of the {len(rows)} segmentation bundles in MONAI's model zoo (commit "
        f"{result['zoo']['commit'][:7]}, configurations as published, random weights), {len(done)} "
        f"are read, {n_whole} with every step. For {len(same)} of them the steps are those that "
        "MONAI's own parser yields, with equal results on one image (without what is left out); "
        f"{len(trusted)} more are read with `trusted=True`."
    )
    table = ["| bundle | result |", "|---|---|"]
    for row in rows:
        if "refused" in row:
            result_text = f"refused: {row['refused']}".replace("$", r"\$")  # no mathematics
            result_text += "; read with `trusted=True`" if row in trusted else ""
        else:
            result_text = f"read: {row['network']}; {', '.join(row['steps'])}"
            result_text += "".join(f"; {one.partition(',')[0]}" for one in row["left_out"])
        table.append(f"| {row['bundle']} | {result_text} |")
    before, rest = _PAGE.read_text().split(_BEGIN)
    after = rest.split(_END)[1]
    _PAGE.write_text("\n".join([before + _BEGIN, "", text, "", *table, "", _END]) + after)


if __name__ == "__main__":
    sys.exit(main())
