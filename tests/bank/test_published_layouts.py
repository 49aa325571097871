"""Checkpoints laid out as their authors publish them, read by the manifests of the docs.

Keys are those of the published files; networks are small, weights random.
"""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from skte import BankEntry, ModelBank
from skte.exceptions import BankError
from tests.model_folders import require_monai

yaml = pytest.importorskip("yaml")
DOCS = (Path(__file__).parents[2] / "docs/how-to/banks.md").read_text("utf-8")
SWIN = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "num_heads": [1, 1, 2, 2],
        "depths": [1] * 4}  # fmt: skip
RESNET = {"layers": [1, 1, 1, 1], "block": "basic"}


def documented(name):
    """The fields that the docs give for a published checkpoint."""
    section = DOCS.partition("## Published encoders")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    return next(model for model in yaml.safe_load(block)["models"] if model["name"] == name)


def entry(name, folder, content, **arguments):
    """The entry that the docs describe, with a smaller network, as a manifest has it."""
    model = documented(name)
    weights = folder / Path(model["weights"]).name
    torch.save(content, weights)
    model |= {"weights": weights.name, "arguments": {**model["arguments"], **arguments}}
    (folder / "bank.yaml").write_text(yaml.safe_dump({"models": [model]}))
    (found,) = ModelBank.from_folder(folder)
    return found


def renamed(state, *pairs):
    for old, new in pairs:
        state = {re.sub(old, new, key): value for key, value in state.items()}
    return state


def loaded(entry, expected, start):
    state = entry.load().state_dict()
    keys = [key for key in expected if key.startswith(start)]
    assert len(keys) > 5
    return all(torch.equal(state[key], expected[key]) for key in keys)


@pytest.fixture(scope="module")
def swin():
    torch.manual_seed(3)
    return require_monai().SwinUNETR(**SWIN).state_dict()


@pytest.mark.slow
def test_swin_unetr_ssl(swin, tmp_path):
    encoder = {key: value for key, value in swin.items() if key.startswith("swinViT.")}
    file = renamed(encoder, ("^swinViT.", "module."), (r"mlp\.linear", "mlp.fc"))
    file |= {"module.norm.weight": torch.ones(192), "module.rotation_head.bias": torch.ones(4)}
    found = entry("swinunetr-ssl", tmp_path, {"epoch": 9, "state_dict": file}, **SWIN)
    assert loaded(found, swin, "swinViT.")


def test_swin_unetr_of_50000_scans(swin, tmp_path):
    file = renamed(
        {k: v for k, v in swin.items() if not k.startswith("out.")},
        (r"^swinViT\.(layers\d)\.0\.", r"encoder.\1.0.0."), ("^swinViT.", "encoder."),
    )  # fmt: skip
    file |= {"encoder.mask_token": torch.ones(1, 1, 12), "encoder.norm.weight": torch.ones(192),
             "encoder.norm.bias": torch.ones(192), "out.conv.conv.bias": torch.ones(1),
             "out.conv.conv.weight": torch.ones(1, 12, 1, 1, 1)}  # fmt: skip
    found = entry("swinunetr-50000", tmp_path, {"model": file}, **SWIN)
    assert loaded(found, swin, "swinViT.")


def test_suprem(swin, tmp_path):
    file = {f"module.backbone.{key}": value for key, value in swin.items()
            if not key.startswith("out.")}  # fmt: skip
    file |= {"module.organ_embedding": torch.ones(25, 512), "module.GAP.3.bias": torch.ones(256)}
    found = entry("suprem-swinunetr", tmp_path, {"net": file, "epoch": 1}, **SWIN)
    assert loaded(found, swin, "swinViT.")


@pytest.mark.slow
def test_medicalnet(tmp_path):
    nets = require_monai()
    arguments = {**documented("medicalnet-resnet50")["arguments"], **RESNET}
    torch.manual_seed(4)
    trained = nets.ResNet(**arguments).state_dict()
    assert not any(key.startswith("fc") for key in trained)
    file = {f"module.{key}": value for key, value in trained.items()}
    found = entry("medicalnet-resnet50", tmp_path, {"state_dict": file}, **RESNET)
    assert loaded(found, trained, "")


class Genesis(nn.Module):
    """Has the names of the published network, for a small part of it."""

    def __init__(self):
        super().__init__()
        for name in ("down_tr64", "up_tr64"):
            unit = nn.Module()
            unit.conv1, unit.bn1 = nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4)
            part = nn.Module()
            part.ops = nn.Sequential(unit)
            self.add_module(name, part)


def test_models_genesis(tmp_path):
    trained = Genesis().state_dict()
    file = {f"module.{key}": value for key, value in trained.items()}
    model = documented("models-genesis")
    torch.save({"state_dict": file, "epoch": 1}, tmp_path / "genesis.pt")
    fields = {key: model[key] for key in ("state_key", "layers")}
    found = BankEntry("genesis", Genesis, weights=tmp_path / "genesis.pt", **fields)
    assert loaded(found, trained, "")


def net(path, state, **fields):
    torch.save(state, path / "net.pt")
    return BankEntry("net", "torch.nn:Conv2d", weights=path / "net.pt", **fields,
                     arguments={"in_channels": 1, "out_channels": 2, "kernel_size": 1})  # fmt: skip


ONE = {"a.weight": torch.ones(2, 1, 1, 1), "a.b_a.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("rename", "match"),
    [
        ({"^a.": "", "b_a.": ""}, None),
        ({"^": "x.", "^x.a.": "", "b_a.": ""}, None),
        ({"^b_a.": ""}, r"names '\^b_a\.', which is in no key .*a\.weight, a\.b_a\.bias"),
        ({"b_a.bias": "weight"}, "gives several keys one name: a.weight"),
        ({"a": "a" * 300, "aa": "b" * 300}, "makes keys longer than 10000"),
        ({"^a.": ""}, "unexpected in the file"),
    ],
)
def test_parts_of_keys_are_renamed(rename, match, tmp_path):
    recipe = net(tmp_path, ONE, rename=rename)
    if match is None:
        assert recipe.load().weight.eq(1).all()
        return
    with pytest.raises(BankError, match=match):
        recipe.load()


@pytest.mark.parametrize(
    "rename", [["a"], {"": "x"}, {"a": None}, {1: "a"}, {"a" * 301: ""}, dict.fromkeys("abc", 1)]
)
def test_what_cannot_be_renamed_is_told(rename, tmp_path):
    with pytest.raises(BankError, match="Entry 'net': rename "):
        net(tmp_path, ONE, rename=rename)
    with pytest.raises(BankError, match="state_key, prefix, rename say how to read"):
        BankEntry("net", "torch.nn:Conv2d", rename={"a": "b"})
