"""Entries from MONAI bundles, whose configurations are data."""

import dataclasses
import json
import os
import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from torch import nn

from skte import BankEntry, SegmentationFeatureExtractor
from skte.bank import entry_digest
from skte.exceptions import BankError, SkteWarning
from tests.model_folders import bundle_config, bundle_network, require_monai, write_bundle


@pytest.fixture(autouse=True)
def _monai():
    require_monai()


def refused(folder, **options):
    with pytest.raises(BankError) as caught:
        BankEntry.from_monai_bundle(folder, **options)
    message = str(caught.value)
    assert message.startswith(f"MONAI bundle {folder}: ")
    return message


def transforms(*described):
    return bundle_config(preprocessing={"_target_": "Compose", "transforms": list(described)})


def case(size=(20, 24, 16), affine=None, seed=0):
    values = np.random.default_rng(seed).normal(100, 60, size=(1, *size))
    affine = np.diag([-0.8, -1.1, 1.5, 1.0]) if affine is None else affine
    return tio.ScalarImage(tensor=torch.tensor(values, dtype=torch.float32), affine=affine)


def by_monai(folder, image):
    """What MONAI's own parser and transforms make of an image, from the array on."""
    from monai.bundle import ConfigParser
    from monai.data import MetaTensor

    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    chain = parser.get_parsed_content("preprocessing")
    chain.transforms = [t for t in chain.transforms if "Load" not in type(t).__name__]
    start = MetaTensor(image.data.clone(), affine=torch.tensor(image.affine))
    start.meta["original_channel_dim"] = 0
    return chain({"image": start})["image"]


def test_a_bundle_becomes_an_entry(tmp_path):
    folder, trained = write_bundle(tmp_path)
    entry = BankEntry.from_monai_bundle(folder)
    assert (entry.name, entry.factory) == ("spleen_bundle", "monai.networks.nets:UNet")
    assert entry.arguments["out_channels"] == 3
    assert "_desc_" not in entry.arguments
    assert (entry.window_size, entry.spatial_dims, entry.in_channels) == ((16, 16, 16), 3, 1)
    assert [step.kind for step in entry.preprocessing] == [
        "Orientation",
        "Spacing",
        "ScaleIntensityRange",
    ]
    assert entry.provenance["license"] == "CC0"
    example = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(entry.load()(example), trained.eval()(example))
    again = BankEntry.from_monai_bundle(folder)
    assert entry == again == pickle.loads(pickle.dumps(entry))
    assert entry_digest(entry) == entry_digest(again) is not None


@pytest.mark.filterwarnings("ignore:.*Orientation:FutureWarning")
def test_preprocessing_is_monai_s_own(tmp_path):
    folder, _ = write_bundle(tmp_path)
    image = case()
    found = BankEntry.from_monai_bundle(folder).transform()(image)
    expected = by_monai(folder, image)
    np.testing.assert_allclose(found.data.numpy(), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.affine, expected.affine.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    "described",
    [
        {"_target_": "NormalizeIntensityd", "nonzero": True, "channel_wise": True},
        {"_target_": "monai.transforms.NormalizeIntensityd", "subtrahend": 3.0, "divisor": 2.0},
        {"_target_": "ScaleIntensityd", "minv": -1.0, "maxv": 1.0},
        {
            "_target_": "ScaleIntensityRangePercentilesDict",
            "lower": 1,
            "upper": 99,
            "b_min": 0,
            "b_max": 1,
        },
        {"_target_": "ThresholdIntensityD", "threshold": 50.0, "above": False, "cval": 50.0},
        {"_target_": "Resized", "spatial_size": [10, 12, 14], "mode": "trilinear"},
        {"_target_": "SpatialPadd", "spatial_size": [32, 32, 32]},
        {"_target_": "Flipd", "spatial_axis": 0},
    ],
)
def test_each_step_does_what_it_does_there(tmp_path, described):
    config = transforms({**described, "keys": ["image"]})
    folder, _ = write_bundle(tmp_path, config)
    image = case()
    (step,) = BankEntry.from_monai_bundle(folder).preprocessing
    expected = by_monai(folder, image)
    found = step(image)
    np.testing.assert_allclose(found.data.numpy(), expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.affine, expected.affine.numpy(), atol=1e-6)


def test_sizes_of_slices_are_those_of_every_slice(tmp_path):
    from monai.data import MetaTensor
    from monai.transforms import Resize

    step = {"_target_": "Resized", "keys": "image", "spatial_size": [10, 12], "mode": "bilinear"}
    folder, _ = write_bundle(tmp_path, transforms(step))
    image = case((20, 24, 3))
    found = BankEntry.from_monai_bundle(folder).transform()(image)
    affine = torch.tensor(image.affine)
    slices = [Resize([10, 12], mode="bilinear")(MetaTensor(one, affine=affine))
              for one in image.data.unbind(-1)]  # fmt: skip
    np.testing.assert_allclose(found.data.numpy(), np.stack(slices, -1), atol=1e-5)
    np.testing.assert_allclose(found.affine, slices[0].affine.numpy(), atol=1e-6)


def test_steps_of_intensities_may_be_left_out_with_a_warning(tmp_path):
    config = transforms(
        {"_target_": "LoadImaged", "keys": ["image", "label"]},
        {"_target_": "CropForegroundd", "keys": ["image", "label"], "source_key": "image"},
        {"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": [1, 1, 1],
         "mode": ["bilinear", "nearest"]},
        {"_target_": "NormalizeIntensityd", "keys": "image"},
        {"_target_": "AsDiscreted", "keys": "label", "to_onehot": 3},
        {"_target_": "RandFlipd", "keys": "image", "prob": 0.5},
        {"_target_": "SavitzkyGolaySmoothd", "keys": "image", "window_length": 3, "order": 1},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": "$__import__('os')"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_minimum": 1},
    )  # fmt: skip
    folder, _ = write_bundle(tmp_path, config)
    with pytest.warns(SkteWarning) as told:
        entry = BankEntry.from_monai_bundle(folder)
    assert [step.kind for step in entry.preprocessing] == ["Spacing", "NormalizeIntensity"]
    assert entry.preprocessing[0].options["mode"] == "bilinear"
    message = str(told[0].message)
    for part in (
        "Entry 'spleen_bundle': of the bundle's preprocessing CropForeground is left out",
        "['NormalizeIntensity'] therefore look at the whole image",
        "RandFlipd is left out: it has no counterpart",
        "SavitzkyGolaySmoothd is left out: it has",
        "\"$__import__('os')\" is not evaluated (it calls __import__())",
        "ScaleIntensityRange is left out: TypeError",
    ):
        assert part in message
    assert len(entry.provenance["preprocessing_left_out"]) == 6


@pytest.mark.parametrize(
    ("step", "match"),
    [
        ({"_target_": "os.system", "command": "true"}, "'os.system' is not a transform"),
        ({"_target_": "mine.Resampled", "keys": "image"}, "'mine.Resampled' is not a transform"),
        ("$@other()", r"'\$@other\(\)' is not evaluated \(it calls @other"),
        ({"_target_": "Zoomd", "keys": "image", "zoom": 2}, "Zoomd cannot be taken: it has no"),
        ({"_target_": "Lambdad", "keys": "image", "func": "$f"}, "Lambdad cannot be taken: it has"),
        (
            {"_target_": "Spacingd", "keys": "image", "pixdim": "$f()"},
            "Spacing cannot be taken: '.f",
        ),
        (
            {"_target_": "Spacingd", "keys": "image", "size": 1},
            "Spacing cannot be taken: TypeError",
        ),
        ({"_target_": "Spacingd", "keys": "$keys", "pixdim": 1}, "applied to is unknown"),
        ({"_target_": "Compose", "transforms": "$steps()"}, r"steps\(\)' is not evaluated"),
        ({"_target_": "Flipd", "keys": "image", "_disabled_": "$f()"}, "is used is unknown"),
        ({"_target_": "ConcatItemsd", "keys": ["image", "$f()"]}, "applied to is unknown"),
    ],
)
def test_a_step_that_may_move_voxels_must_be_taken(tmp_path, step, match):
    folder, _ = write_bundle(tmp_path, {**transforms(step), "other": 1})
    with pytest.raises(BankError, match=match):
        BankEntry.from_monai_bundle(folder)
    entry = BankEntry.from_monai_bundle(folder, preprocessing=["ToCanonical"])
    assert len(entry.preprocessing) == 1
    if isinstance(step, dict):
        step["_disabled_"] = True
        (folder / "configs" / "inference.json").write_text(json.dumps(transforms(step)))
        assert BankEntry.from_monai_bundle(folder).preprocessing == ()


@pytest.mark.parametrize(
    ("copying", "copy"),
    [
        ({"keys": "image", "names": "raw"}, "raw"),
        ({"keys": ["label", "image"], "names": ["mask", "raw"]}, "raw"),
        ({"keys": "image", "times": 2}, "image_1"),
    ],
)
def test_steps_on_a_copy_are_not_lost(tmp_path, copying, copy):
    steps = [
        {"_target_": "LoadImaged", "keys": ["image", "label"]},
        {"_target_": "CopyItemsd", **copying},
        {"_target_": "Flipd", "keys": "mask", "spatial_axis": 0},
        {"_target_": "EnsureTyped", "keys": copy},
    ]
    flip = {"_target_": "Flipd", "keys": copy, "spatial_axis": 0}
    join = {"_target_": "ConcatItemsd", "keys": ["image", copy], "name": "image"}
    again = {"_target_": "CopyItemsd", "keys": copy, "names": "other"}
    for more, kind, name in (
        ([flip], "Flip", copy),
        ([join], "ConcatItems", copy),
        ([again, {**flip, "keys": "other"}], "Flip", "other"),
    ):
        folder, _ = write_bundle(tmp_path, transforms(*steps, *more), name=f"{kind}_{name}")
        assert f"{kind} is applied to '{name}', a copy of the image" in refused(folder)
    folder, _ = write_bundle(tmp_path, transforms(*steps))
    assert BankEntry.from_monai_bundle(folder).preprocessing == ()


@pytest.mark.parametrize(
    ("size", "match"),
    [("$f()", r"'\$f\(\)' is not evaluated"), ([16, "$f()"], "not evaluated"), ([16, -1], r"-1\]")],
)
def test_a_window_that_is_not_taken_is_told(tmp_path, size, match):
    config = bundle_config(inferer={"_target_": "SlidingWindowInferer", "roi_size": size})
    folder, _ = write_bundle(tmp_path, config)
    with pytest.warns(SkteWarning, match=f"'spleen_bundle': roi_size of its inferer.*{match}"):
        assert BankEntry.from_monai_bundle(folder).window_size is None


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Resize", {"spatial_size": [32, 32, 32]}),
        ("SpatialPad", {"spatial_size": [32, 32, 32]}),
        ("DivisiblePad", {"k": 16}),
        ("BorderPad", {"spatial_border": 4}),
    ],
)
def test_sizes_of_a_crop_are_not_those_of_the_image(tmp_path, kind, options):
    crop = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}
    step = {"_target_": f"{kind}d", "keys": "image", **options}
    folder, _ = write_bundle(tmp_path, transforms(crop, step))
    assert f"{kind} cannot be taken: CropForeground before it is left out" in refused(folder)
    (folder / "configs" / "inference.json").write_text(json.dumps(transforms(step, crop)))
    with pytest.warns(SkteWarning, match="CropForeground is left out"):
        (taken,) = BankEntry.from_monai_bundle(folder).preprocessing
    assert taken.kind == kind


def test_a_bundle_without_preprocessing_says_so(tmp_path):
    folder, _ = write_bundle(tmp_path, bundle_config(preprocessing=None))
    with pytest.warns(SkteWarning, match="'preprocessing' is empty"):
        assert BankEntry.from_monai_bundle(folder).preprocessing == ()
    config = bundle_config(preprocessing="$run()")
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    assert "preprocessing, '$run()' is not evaluated (it calls run())" in refused(folder)


def test_preprocessing_is_not_guessed(tmp_path):
    config = bundle_config()
    steps = config.pop("preprocessing")["transforms"]
    folder, _ = write_bundle(tmp_path, {**config, "validate": {"preprocessing": steps}})
    message = refused(folder)
    assert "there is no 'preprocessing': name the list of transforms" in message
    assert """'"preprocessing": "%validate::preprocessing"'""" in message
    stated = BankEntry.from_monai_bundle(folder, preprocessing=["ToCanonical"])
    assert len(stated.preprocessing) == 1
    common = folder / "configs" / "common.json"
    common.write_text(json.dumps({"preprocessing": "%validate::preprocessing"}))
    plain = BankEntry.from_monai_bundle(write_bundle(tmp_path, name="plain")[0])
    assert BankEntry.from_monai_bundle(folder).preprocessing == plain.preprocessing
    common.write_text(json.dumps({"preprocessing": None}))
    with pytest.warns(SkteWarning, match="images are given as they are stored"):
        assert BankEntry.from_monai_bundle(folder).preprocessing == ()


def test_unknown_transforms_are_never_built(tmp_path):
    folder, _ = write_bundle(tmp_path)
    MonaiTransform = type(BankEntry.from_monai_bundle(folder).preprocessing[0])
    with pytest.raises(ValueError, match="not a transform of MONAI that skte uses"):
        MonaiTransform("Lambda", {"func": print}).build()
    one = MonaiTransform("Flip", {"spatial_axis": 0})
    assert one == MonaiTransform("Flip", {"spatial_axis": 0}) != MonaiTransform("Flip", {})
    assert one != 3
    assert hash(one) == hash(MonaiTransform("Flip", {"spatial_axis": 0}))


def test_other_places_of_network_and_weights(tmp_path):
    config = bundle_config()
    config["parts"] = {"nets": [config.pop("network_def")]}
    config["network"] = {**config["parts"]["nets"][0], "channels": "@parts::nets::0::channels"}
    config["inferer"]["roi_size"] = 24
    config["postprocessing"]["transforms"][0] = {"_target_": "Activationsd", "sigmoid": True}
    trained = bundle_network(bundle_config())
    folder, _ = write_bundle(
        tmp_path, config, network=trained, content={"model": trained.state_dict(), "epoch": 3}
    )
    entry = BankEntry.from_monai_bundle(folder, name="mine", layers="encoder")
    assert (entry.name, entry.layers, entry.state_key) == ("mine", "encoder", "model")
    assert (entry.window_size, entry.activation) == (24, "sigmoid")
    assert entry.load()
    os.rename(folder / "models" / "model.pt", folder / "models" / "best.pt")
    (folder / "models" / "._best.pt").write_bytes(b"\0\5\x16\7")  # as macOS leaves in archives
    (folder / "configs" / "._train.json").write_bytes(b"\0\5\x16\7")
    assert BankEntry.from_monai_bundle(folder).weights.name == "best.pt"
    torch.save({}, folder / "models" / "last.pt")
    assert "pass weights=, the path of one of them" in refused(folder)
    chosen = BankEntry.from_monai_bundle(folder, weights=folder / "models" / "best.pt")
    assert chosen.load()


def test_yaml_says_the_same(tmp_path):
    yaml = pytest.importorskip("yaml")
    folder, _ = write_bundle(tmp_path)
    entry = BankEntry.from_monai_bundle(folder)
    file = folder / "configs" / "inference.json"
    file.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(file.read_text())))
    file.unlink()
    assert BankEntry.from_monai_bundle(folder) == entry


def test_pretrained_weights_are_not_downloaded(tmp_path):
    described = {
        "_target_": "FlexibleUNet",
        "in_channels": 1,
        "out_channels": 2,
        "backbone": "resnet10",
        "decoder_channels": [8, 8, 4, 4, 4],
    }
    config = bundle_config(network_def=described)
    folder, _ = write_bundle(tmp_path, {**config, "network_def": {**described, "pretrained": True}},
                             network=bundle_network(config))  # fmt: skip
    entry = BankEntry.from_monai_bundle(folder)
    assert entry.arguments["pretrained"] is False
    assert entry.load()


@pytest.mark.parametrize(
    ("described", "name", "off"),
    [
        ({"_target_": "HoVerNet", "pretrained_url": "http://localhost/x"}, "pretrained_url", None),
        ({"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"}, "pretrained", False),
    ],
)
def test_no_network_fetches_what_a_bundle_names(tmp_path, described, name, off):
    folder, _ = write_bundle(
        tmp_path, bundle_config(network_def=described), network=nn.Conv2d(1, 1, 1)
    )
    assert BankEntry.from_monai_bundle(folder).arguments[name] is off


def test_references_that_multiply_are_refused(tmp_path):
    config = bundle_config(**{f"a{i}": [f"@a{i + 1}"] * 10 for i in range(12)}, a12=1)
    config["network_def"]["channels"] = "@a0"
    folder, _ = write_bundle(tmp_path, config, network=bundle_network())
    assert "stand for more than" in refused(folder)


def test_what_is_missing_is_told(tmp_path):
    assert "there is no such folder" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "it has no configs/inference.json" in refused(tmp_path / "empty")
    folder, _ = write_bundle(tmp_path, bundle_config(network_def="$x", network="$y"),
                             network=nn.Conv3d(1, 1, 1))  # fmt: skip
    assert "configs/inference.json has no network" in refused(folder)
    folder, _ = write_bundle(tmp_path, name="weightless")
    (folder / "models" / "model.pt").unlink()
    assert "large_files.yml" in refused(folder)
    (folder / "models" / "model.ts").write_bytes(b"x")
    assert "['model.ts'] is TorchScript, whose layers cannot be hooked" in refused(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"in_channels": "$__import__('os').mkdir('was_run')"}, "it calls __import__('os').mkdir"),
        ({"in_channels": "@evil"}, "is not evaluated (it calls __import__('os').mkdir"),
        ({"in_channels": "$len(@evil)"}, "it needs \"$__import__('os').mkdir('was_run')\""),
        ({"channels": ["%../other.json"]}, "copies from another file"),
        ({"channels": ["%configs/other.json"]}, "copies from another file"),
        ({"$key": 1}, "it stands for a key"),
        ({"_target_": "$evil"}, "it uses evil"),
        ({"_target_": "os.system", "command": "mkdir was_run"}, "names 'os.system', which was"),
        ({"_target_": "monai.networks.nets.unet.os"}, "which was refused"),
        ({"_target_": "monai.bundle.ConfigParser"}, "which was refused"),
        ({"_target_": "get_efficientnet_image_size"}, "which was refused"),
        ({"_target_": "monai.networks.nets.unet.warnings.warn"}, "which was refused"),
        ({"act": {"_target_": "os.system", "command": "mkdir was_run"}}, "names 'os.system' among"),
        ({"act": [{"_target_": "os.system"}]}, "names 'os.system' among"),
        ({"channels": "@nowhere::x"}, "leads nowhere"),
        ({"channels": "@network_def"}, "circle"),
    ],
)
def test_what_would_run_code_is_refused_and_not_run(tmp_path, monkeypatch, change, match):
    monkeypatch.chdir(tmp_path)
    config = bundle_config()
    config["network_def"] = {**config["network_def"], **change}
    config["evil"] = "$__import__('os').mkdir('was_run')"
    folder, _ = write_bundle(tmp_path, config, network=bundle_network())
    message = refused(folder)
    assert match in message
    of_files = (
        "leads nowhere",
        "circle",
        "copies from another file",
    )
    assert ("pass trusted=True" in message) == (match not in of_files)
    assert not (tmp_path / "was_run").exists()


def test_trust_runs_what_the_file_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = bundle_config()
    config["network_def"]["in_channels"] = "$[1, __import__('os').mkdir('was_run')][0]"
    folder, trained = write_bundle(tmp_path, config, network=bundle_network())
    entry = BankEntry.from_monai_bundle(folder, trusted=True)
    assert not (tmp_path / "was_run").exists()  # nothing runs before it is loaded
    example = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(entry.load()(example), trained.eval()(example))
    assert (tmp_path / "was_run").exists()


def test_trusted_bundles_find_their_own_scripts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for channels in (3, 4):  # two bundles whose modules have the same names
        config = bundle_config(network_def={"_target_": "scripts.nets.Net"})
        network = nn.Conv3d(1, channels, 1)
        folder, _ = write_bundle(tmp_path, config, name=f"own{channels}", network=network)
        assert "'scripts.nets.Net', which was refused" in refused(folder)
        (folder / "scripts").mkdir()
        (folder / "scripts" / "__init__.py").touch()
        (folder / "scripts" / "nets.py").write_text(
            "from torch import nn\n\nclass Net(nn.Conv3d):\n"
            f"    def __init__(self):\n        super().__init__(1, {channels}, 1)\n"
        )
        entry = BankEntry.from_monai_bundle(folder.name, trusted=True)
        assert entry.load().out_channels == channels
        digest = entry_digest(entry)
        (folder / "scripts" / "nets.py").write_text("# changed\n")
        assert entry_digest(BankEntry.from_monai_bundle(folder, trusted=True)) != digest


def test_a_network_may_be_in_a_module_of_monai_s(tmp_path):
    config = bundle_config()
    config["network_def"]["_target_"] = "monai.networks.nets.segresnet_ds.SegResNetDS2"
    folder, _ = write_bundle(tmp_path, config, network=nn.Conv3d(1, 1, 1))
    assert "SegResNetDS2 the arguments" in refused(folder)  # of another network


def test_a_crafted_checkpoint_is_refused(tmp_path):
    class Crafted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    content = {**bundle_network().state_dict(), "x": Crafted()}
    folder, _ = write_bundle(tmp_path, content=content)
    assert "pass trusted=True for this entry" in refused(folder)
    assert not (tmp_path / "was_run").exists()


def test_huge_declared_sizes_take_no_memory(tmp_path):
    config = bundle_config()
    config["network_def"]["channels"] = [4, 8, 10**8]
    folder, _ = write_bundle(tmp_path, config, network=bundle_network())
    with pytest.raises(BankError, match=r"was stopped: .* far more than its file of weights"):
        BankEntry.from_monai_bundle(folder).load()


class Coordinates(nn.Module):
    def __init__(self):
        super().__init__()
        self.full = nn.Identity()
        self.head = nn.Conv3d(3, 2, 1)

    def forward(self, x):
        return self.head(self.full(x))


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1.0, 1.0, 1.0]),
        np.diag([-0.8, -1.1, 2.5, 1.0]),
        np.array([[0, -1.0, 0, 7], [0, 0, 2.0, -3], [-1.1, 0, 0, 40], [0, 0, 0, 1]]),
    ],
)
def test_positions_survive_orientation_and_spacing(tmp_path, affine):
    size = (18, 20, 22)
    grid = torch.from_numpy(1.0 + np.indices(size, dtype=np.float32))
    label = torch.zeros(1, *size, dtype=torch.int32)
    label[0, 4:-4, 4:-4, 4:-4] = 1
    subject = tio.Subject(
        image=tio.ScalarImage(tensor=grid, affine=affine),
        label=tio.LabelMap(tensor=label, affine=affine),
        case_id="coded",
    )
    config = bundle_config()
    config["preprocessing"]["transforms"].pop(4)  # intensities are positions here
    folder, _ = write_bundle(tmp_path, config)
    steps = BankEntry.from_monai_bundle(folder).preprocessing
    plain = BankEntry.from_module("plain", Coordinates(), window_size=16)
    mapped = dataclasses.replace(plain, name="mapped", preprocessing=steps)
    truth, found = (
        SegmentationFeatureExtractor(entry, layers=("full",)).fit_transform([subject])[0]
        for entry in (plain, mapped)
    )
    truth, found = truth.layers["full"], found.layers["full"]
    np.testing.assert_array_equal(found.y, truth.y)
    np.testing.assert_allclose(found.X[found.y == 1], truth.X[found.y == 1], atol=1e-3)


def test_disabled_steps_are_not_taken(tmp_path):
    steps = [
        {"_target_": "ScaleIntensityd", "keys": "image", "_disabled_": flag}
        for flag in (True, " True ", False, "no")
    ]
    config = bundle_config(preprocessing={"_target_": "Compose", "transforms": steps})
    folder, _ = write_bundle(tmp_path, config)
    assert len(BankEntry.from_monai_bundle(folder).preprocessing) == 2


@pytest.mark.parametrize("other", ["common", "train", "evaluate"])
def test_a_network_may_be_described_in_another_file(tmp_path, other):
    config = bundle_config()
    folder, trained = write_bundle(tmp_path, config)
    network = config.pop("network_def")
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    content = {"network_def": network, "preprocessing": [], "inferer": {"roi_size": 7}}
    (folder / "configs" / f"{other}.json").write_text(json.dumps(content))
    entry = BankEntry.from_monai_bundle(folder)
    (tmp_path / "b").mkdir()
    usual = BankEntry.from_monai_bundle(write_bundle(tmp_path / "b")[0])
    assert entry.preprocessing == usual.preprocessing
    assert entry.window_size == usual.window_size
    assert entry.load().state_dict().keys() == trained.state_dict().keys()


def test_macros_within_the_file_are_values(tmp_path):
    config = bundle_config()
    network = config["network_def"]
    key = next(k for k, v in network.items() if isinstance(v, list))
    config["widths"], network[key] = network[key], "%widths"
    folder, _ = write_bundle(tmp_path, config, network=bundle_network(bundle_config()))
    assert BankEntry.from_monai_bundle(folder).arguments[key] == config["widths"]
    for value, match in (
        ("%nowhere", "'%nowhere' leads nowhere"),
        ("%a.json::b", "copies from another file"),
    ):
        network[key] = value
        (folder / "configs" / "inference.json").write_text(json.dumps(config))
        with pytest.raises(BankError, match=match):
            BankEntry.from_monai_bundle(folder)


SWIN = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": [1] * 4,
        "num_heads": [1, 1, 2, 2], "spatial_dims": 2}  # fmt: skip
UNETR = {"in_channels": 1, "out_channels": 2, "img_size": [32, 32], "feature_size": 4,
         "hidden_size": 24, "mlp_dim": 24, "num_heads": 2, "spatial_dims": 2}  # fmt: skip
UNET = {"in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "now", "then"),
    [
        ("SwinUNETR", SWIN, {**SWIN, "img_size": [32, 32]}),
        ("UNETR", {**UNETR, "proj_type": "conv"}, {**UNETR, "pos_embed": "conv"}),
        ("UNet", {**UNET, "spatial_dims": 2}, {**UNET, "dimensions": 2}),
    ],
)
def test_arguments_of_older_releases_of_monai(tmp_path, kind, now, then):
    trained = getattr(require_monai(), kind)(**now)
    config = bundle_config(network_def={"_target_": kind, **then})
    folder, _ = write_bundle(tmp_path, config, network=trained)
    entry = BankEntry.from_monai_bundle(folder)
    assert entry.arguments == now
    found = entry.load().state_dict()
    assert all(torch.equal(found[key], value) for key, value in trained.state_dict().items())


def test_an_argument_of_another_release_is_told(tmp_path):
    config = bundle_config(network_def={"_target_": "UNet", **UNET, "dims": 2, "normal": 1})
    folder, _ = write_bundle(tmp_path, config, network=nn.Conv3d(1, 1, 1))
    message = refused(folder)
    assert "gives UNet the arguments ['dims', 'normal'], which it does not have in MONAI" in message
