"""Entries from results folders of nnU-Net v2."""

import copy
import dataclasses
import json
import os
import pickle
import shutil
import tempfile
import zipfile

import numpy as np
import pytest
import torch
import torchio as tio
from torch import nn

from skte import BankEntry, ModelBank, SegmentationFeatureExtractor, memory_limit
from skte.bank import entry_digest
from skte.exceptions import BankError, SkteWarning
from tests.model_folders import (
    nnunet_architecture,
    nnunet_network,
    nnunet_plans,
    write_nnunet,
)

pytestmark = pytest.mark.usefixtures("dna")


def edit(folder, change, name="plans.json"):
    path = folder / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(folder, **options):
    with pytest.raises(BankError) as caught:
        BankEntry.from_nnunet(folder, **options)
    message = str(caught.value)
    assert str(folder) in message
    return message


def same_output(entry, trained, size):
    example = torch.randn(1, entry.in_channels, *size)
    with torch.inference_mode():
        mine, theirs = entry.load()(example), trained.eval()(example)
    return torch.equal(mine, theirs[0] if isinstance(theirs, list) else theirs)


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("n_axes", [2, 3])
def test_a_results_folder_becomes_an_entry(tmp_path, kind, n_axes):
    plans = nnunet_plans(n_axes, 2, architecture=nnunet_architecture(n_axes, kind))
    folder, trained = write_nnunet(tmp_path, plans, n_channels=2)
    entry = BankEntry.from_nnunet(folder)
    configuration = "2d" if n_axes == 2 else "3d_fullres"
    assert entry.name == f"Dataset007_Phantom-{configuration}-fold_0"
    assert entry.window_size == (16,) * n_axes
    assert (entry.spatial_dims, entry.in_channels) == (n_axes, 2)
    assert (entry.activation, entry.source_head, entry.trusted) == ("softmax", True, False)
    assert same_output(entry, trained, (16,) * n_axes)
    assert entry.provenance["labels"] == {"background": 0, "organ": 1, "lesion": 2}
    assert entry.provenance["trainer"] == "nnUNetTrainer"
    again = BankEntry.from_nnunet(folder)
    assert entry == again == pickle.loads(pickle.dumps(entry))
    assert entry_digest(entry) == entry_digest(again) is not None


def test_fields_may_be_replaced(tmp_path):
    folder, _ = write_nnunet(tmp_path)
    entry = BankEntry.from_nnunet(folder, name="mine", layers="encoder", window_size=8)
    assert (entry.name, entry.layers, entry.window_size) == ("mine", "encoder", 8)


def test_fold_and_checkpoint_are_chosen(tmp_path):
    folder, _ = write_nnunet(tmp_path, folds=(2, 10, "all"))
    assert BankEntry.from_nnunet(folder).provenance["fold"] == "2"
    assert BankEntry.from_nnunet(folder, fold="all").provenance["fold"] == "all"
    assert BankEntry.from_nnunet(folder, fold=10).weights.parent.name == "fold_10"
    assert "there is no fold_1; it has fold_2, fold_10, fold_all" in refused(folder, fold=1)
    best = folder / "fold_2" / "checkpoint_best.pth"
    os.rename(folder / "fold_2" / "checkpoint_final.pth", best)
    assert BankEntry.from_nnunet(folder).weights == best
    os.rename(best, folder / "fold_2" / "checkpoint_latest.pth")
    assert "name one of checkpoint=['checkpoint_latest.pth']" in refused(folder)
    assert BankEntry.from_nnunet(folder, checkpoint="checkpoint_latest.pth").name
    assert "must be the name of a file" in refused(folder, checkpoint="../fold_all/x.pth")
    (folder / "fold_2" / "checkpoint_latest.pth").unlink()
    assert "the training did not finish" in refused(folder, fold=2)
    assert BankEntry.from_nnunet(folder).provenance["fold"] == "10"


def test_the_configuration_is_told_by_folder_checkpoint_or_argument(tmp_path):
    folder, _ = write_nnunet(tmp_path)

    def add(plans):
        known = plans["configurations"]
        known["3d_lowres"] = {"inherits_from": "3d_fullres", "spacing": [2.0, 2.0, 2.0]}

    edit(folder, add)
    assert BankEntry.from_nnunet(folder).provenance["spacing"] == [1.0, 1.0, 1.0]
    low = BankEntry.from_nnunet(folder, configuration="3d_lowres")
    assert low.provenance["spacing"] == [2.0, 2.0, 2.0]
    renamed = folder.rename(tmp_path / "my_model")
    assert BankEntry.from_nnunet(renamed).provenance["configuration"] == "3d_fullres"
    weights = renamed / "fold_0" / "checkpoint_final.pth"
    content = torch.load(weights, weights_only=False)
    del content["init_args"]
    torch.save(content, weights)
    assert "which configuration was trained?" in refused(renamed)


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_older_plans_without_an_architecture(tmp_path, kind):
    plans = nnunet_plans(architecture=nnunet_architecture(3, kind))
    folder, trained = write_nnunet(tmp_path, plans)

    def age(plans):
        (configuration,) = plans["configurations"].values()
        arguments = configuration.pop("architecture")["arch_kwargs"]
        configuration.update(
            UNet_class_name=kind,
            UNet_base_num_features=4,
            unet_max_num_features=8,
            n_conv_per_stage_encoder=[1, 1, 1],
            n_conv_per_stage_decoder=[1, 1],
            num_pool_per_axis=[2, 2, 2],
            conv_kernel_sizes=arguments["kernel_sizes"],
            pool_op_kernel_sizes=arguments["strides"],
        )
        plans["foreground_intensity_properties_by_modality"] = plans.pop(
            "foreground_intensity_properties_per_channel"
        )

    edit(folder, age)
    edit(folder, lambda d: d.update(modality=d.pop("channel_names")), "dataset.json")
    assert same_output(BankEntry.from_nnunet(folder), trained, (16, 16, 16))
    edit(folder, lambda p: p["configurations"]["3d_fullres"].pop("conv_kernel_sizes"))
    assert "['conv_kernel_sizes'] of the older form are missing" in refused(folder)


def test_older_plans_of_another_network_are_told(tmp_path):
    folder, _ = write_nnunet(tmp_path)

    def age(plans):
        (configuration,) = plans["configurations"].values()
        del configuration["architecture"]
        keys = ("UNet_base_num_features", "unet_max_num_features", "n_conv_per_stage_encoder")
        keys += ("n_conv_per_stage_decoder", "conv_kernel_sizes", "pool_op_kernel_sizes")
        configuration.update(dict.fromkeys(keys, 1), UNet_class_name="MyUNet")

    edit(folder, age)
    assert "UNet_class_name='MyUNet' of the older form is not one of" in refused(folder)


def test_regions_are_read_with_a_sigmoid(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    folder, _ = write_nnunet(tmp_path, labels=labels)
    entry = BankEntry.from_nnunet(folder)
    assert entry.activation == "sigmoid"
    assert entry.provenance["labels"] == labels


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_keys_of_wrapped_networks(tmp_path, prefix):
    folder, trained = write_nnunet(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"] = {
        prefix + key: value for key, value in content["network_weights"].items()
    }
    torch.save(content, path)
    assert same_output(BankEntry.from_nnunet(folder), trained, (16, 16, 16))


def test_a_fold_whose_training_goes_on_is_passed_over(tmp_path):
    folder, trained = write_nnunet(tmp_path)
    (folder / "fold_0").rename(folder / "fold_1")
    (folder / "fold_0").mkdir()
    entry = BankEntry.from_nnunet(folder)
    assert entry.provenance["fold"] == "1"
    assert same_output(entry, trained, (16, 16, 16))
    with pytest.raises(BankError, match=r"fold_0 has no checkpoint_final\.pth"):
        BankEntry.from_nnunet(folder, fold=0)


@pytest.mark.parametrize("folds", [(0, 1), (0, 1, 2)])
def test_a_fold_that_was_trained_for_a_while_is_no_problem(tmp_path, folds, caplog):
    folder, _ = write_nnunet(tmp_path, folds=folds)
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_latest.pth")
    with caplog.at_level("INFO", "skte"):
        bank = ModelBank.from_folder(tmp_path)
    assert [entry.provenance["fold"] for entry in bank] == [str(fold) for fold in folds[1:]]
    assert bank.not_understood == {}
    assert "left out, as not trained to the end: fold_0" in caplog.text
    with pytest.raises(BankError, match=r"name one of checkpoint=\['checkpoint_latest.pth'\]"):
        BankEntry.from_nnunet(folder, fold=0)


def test_a_reader_that_reorients(tmp_path):
    plans = nnunet_plans(image_reader_writer="NibabelIOWithReorient")
    folder, _ = write_nnunet(tmp_path, plans)
    assert BankEntry.from_nnunet(folder).preprocessing[0] == ("ToCanonical", {})


def test_what_is_missing_is_told(tmp_path):
    folder, _ = write_nnunet(tmp_path)
    assert "it holds several models; name one of" in refused(folder.parent)
    assert "there is no such folder" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    message = refused(tmp_path / "empty")
    assert "plans.json and dataset.json and any folder fold_0" in message
    (tmp_path / "empty" / "plans.pkl").write_bytes(b"x")
    assert "nnU-Net v1" in refused(tmp_path / "empty")
    edit(folder, lambda d: d.pop("channel_names"), "dataset.json")
    assert "has no 'channel_names'" in refused(folder)


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("plans", "image_reader_writer", ["SimpleITKIO"]),
        ("plans", "transpose_forward", [0, None, 2]),
        ("plans", "foreground_intensity_properties_per_channel", {"0": {"mean": "high"}}),
        ("plans", "configurations", 3),
        ("configuration", "normalization_schemes", [["ZScoreNormalization"]]),
        ("configuration", "resampling_fn_data", {}),
    ],
)
def test_values_of_another_kind_are_told(tmp_path, where, key, value):
    folder, _ = write_nnunet(tmp_path)
    edit(
        folder,
        lambda d: (d if where == "plans" else d["configurations"]["3d_fullres"]).update(
            {key: value}
        ),
    )
    assert "not of the form that nnU-Net writes" in refused(folder)


def test_a_model_without_its_folds_is_not_passed_over(tmp_path):
    write_nnunet(tmp_path, dataset="Dataset001_Whole")
    folder, _ = write_nnunet(tmp_path, dataset="Dataset002_Bare")
    (folder / "fold_0").rename(tmp_path / "elsewhere")
    with pytest.warns(SkteWarning, match="fold"):
        bank = ModelBank.from_folder(tmp_path)
    assert any("any folder fold_0" in why for why in bank.not_understood.values())


def test_channels_must_agree(tmp_path):
    folder, _ = write_nnunet(tmp_path)

    def add(description):
        description["channel_names"]["1"] = "T2"

    def twice(plans):
        (configuration,) = plans["configurations"].values()
        configuration["normalization_schemes"] *= 2
        configuration["use_mask_for_norm"] *= 2

    edit(folder, add, "dataset.json")
    edit(folder, twice)
    assert "takes 1 channels, but dataset.json names 2 (channel 0, T2)" in refused(folder)


def test_a_trainer_s_own_network_is_told(tmp_path):
    folder, _ = write_nnunet(tmp_path, network=nn.Conv3d(1, 3, 1))
    assert "does not hold a network of nnU-Net's own kind" in refused(folder)
    plans = nnunet_plans()
    wider = copy.deepcopy(plans)
    wider["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [
        4, 8, 12,
    ]  # fmt: skip
    folder, _ = write_nnunet(tmp_path, plans, network=nnunet_network(wider), dataset="Dataset8")
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(path, weights_only=False), "trainer_name": "nnUNetTrainerMine"}, path)
    with pytest.raises(BankError, match=r"of another shape.* comes from nnUNetTrainerMine, which"):
        BankEntry.from_nnunet(folder).load()


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "mine.networks.UNet"])
def test_a_network_class_outside_the_list_is_refused(tmp_path, name):
    folder, _ = write_nnunet(tmp_path)

    def change(plans):
        plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = name

    edit(folder, change)
    message = refused(folder)
    assert f"names the network class '{name}', which was refused" in message
    assert "pass trusted=True" in message
    if name.startswith("mine"):
        entry = BankEntry.from_nnunet(folder, trusted=True)
        with pytest.raises(BankError, match="no module 'mine'"):
            entry.load()
    else:  # not even then: it builds no network
        with pytest.raises(BankError, match="standard library"):
            BankEntry.from_nnunet(folder, trusted=True)


@pytest.mark.parametrize("key", ["conv_op", "nonlin", "block"])
@pytest.mark.parametrize("name", ["os.system", "torch.nn.modules.os", "torch.hub.load", "x"])
def test_a_layer_class_outside_the_list_is_refused(tmp_path, key, name):
    folder, _ = write_nnunet(tmp_path)

    def change(plans):
        described = plans["configurations"]["3d_fullres"]["architecture"]
        described["arch_kwargs"][key] = name
        described["_kw_requires_import"] = []  # nothing is passed on as it is

    edit(folder, change)
    message = refused(folder)
    assert f"names '{name}' for {key}, which was refused" in message


def test_blocks_of_the_residual_encoder(tmp_path):
    plans = nnunet_plans(architecture=nnunet_architecture(3, "ResidualEncoderUNet"))
    folder, trained = write_nnunet(tmp_path, plans)

    def name_block(plans):
        arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        arguments["block"] = "dynamic_network_architectures.building_blocks.residual.BasicBlockD"

    edit(folder, name_block)
    assert same_output(BankEntry.from_nnunet(folder), trained, (16, 16, 16))


class Crafted:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_crafted_checkpoint_runs_nothing_unless_trusted(tmp_path):
    folder, trained = write_nnunet(tmp_path)
    path, marker = folder / "fold_0" / "checkpoint_final.pth", tmp_path / "was_run"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "network_weights": Crafted(marker)}, path)
    message = refused(folder)
    assert "would run code" in message
    assert ".mkdir" in message
    assert "pass trusted=True for this entry" in message
    torch.save({**content, "logging": Crafted(marker)}, path)
    assert same_output(BankEntry.from_nnunet(folder), trained, (16, 16, 16))
    assert not marker.exists()
    entry = BankEntry.from_nnunet(folder, trusted=True)
    assert marker.exists()  # this is what trust means
    marker.rmdir()
    assert same_output(entry, trained, (16, 16, 16))


def test_sizes_that_the_weights_do_not_have_take_no_memory(tmp_path):
    folder, _ = write_nnunet(tmp_path)

    def widen(plans):
        arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        arguments["features_per_stage"] = [4, 8, 10**7]

    edit(folder, widen)
    entry = BankEntry.from_nnunet(folder)
    with pytest.raises(BankError, match=r"was stopped: .* far more than its file of weights"):
        entry.load()

    def deepen(plans):
        arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
        arguments["n_stages"] = 10**9

    edit(folder, deepen)
    assert "n_stages=1000000000 must be a number of stages" in refused(folder)


class Coordinates(nn.Module):
    def __init__(self, n_axes):
        super().__init__()
        self.full = nn.Identity()
        self.head = (nn.Conv2d if n_axes == 2 else nn.Conv3d)(3, 2, 1)

    def forward(self, x):
        return self.head(self.full(x))


def position_coded_case(size=(40, 36, 24), air=6, affine=None):
    """Three channels hold the index of each voxel along x, y, z, plus one; air around."""
    image = 1.0 + np.indices(size, dtype=np.float32)
    inside = np.zeros(size, dtype=bool)
    inside[air:-air, air + 1 : -air, 3:-2] = True
    image[:, ~inside] = 0
    label = np.zeros(size, dtype=np.int32)
    label[air + 5 : -air - 5, air + 6 : -air - 5, 7:-6] = 1
    label[air + 9 : -air - 9, air + 9 : -air - 9, 9:-8] = 5
    return tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(image), affine=affine),
        label=tio.LabelMap(tensor=torch.from_numpy(label)[None], affine=affine),
        case_id="coded",
    )


TURNED = np.array([[0, -1.0, 0, 7], [0, 0, 2.0, -3], [-1.1, 0, 0, 40], [0, 0, 0, 1]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_axes", "spacing", "transpose", "affine"),
    [
        (3, [1.0, 1.0, 1.0], [0, 1, 2], np.diag([1.0, 1.0, 1.0, 1.0])),
        (3, [1.5, 0.8, 0.9], [2, 0, 1], np.diag([-1.1, -1.0, 2.0, 1.0])),
        (3, [1.5, 0.8, 0.9], [1, 2, 0], TURNED),
        (3, [5.0, 1.3, 0.6], [0, 1, 2], np.diag([1.0, 1.0, 5.0, 1.0])),  # slices apart
        (2, [0.7, 1.2], [0, 1, 2], np.diag([1.0, 1.0, 3.0, 1.0])),
        (2, [0.7, 1.2], [1, 0, 2], TURNED),
    ],
)
def test_every_model_is_read_at_the_same_points(tmp_path, n_axes, spacing, transpose, affine):
    """Cropped, transposed and resampled, each sampled voxel still holds its own position."""
    plans = nnunet_plans(
        n_axes,
        3,
        spacing=spacing,
        transpose_forward=transpose,
        normalization_schemes=["NoNormalization"] * 3,
    )
    folder, _ = write_nnunet(tmp_path, plans, n_channels=3)
    read = BankEntry.from_nnunet(folder)
    coded = BankEntry.from_module(
        "coded",
        Coordinates(n_axes),
        preprocessing=read.preprocessing,
        window_size=read.window_size,
    )
    plain = BankEntry.from_module("plain", Coordinates(3))
    case = position_coded_case(affine=affine)
    found, expected = (
        SegmentationFeatureExtractor(entry, layers=("full",)).fit_transform([case])[0]
        for entry in (coded, plain)
    )
    mine, truth = found.layers["full"], expected.layers["full"]
    np.testing.assert_array_equal(mine.y, truth.y)
    # Labelled voxels lie where splines are exact for a linear image; a 2-D network looks at
    # the nearest slice, which here is the voxel's own.
    np.testing.assert_allclose(mine.X[mine.y > 0], truth.X[mine.y > 0], atol=0.02)
    deep_air = (truth.X == 0).all(axis=1)
    assert deep_air.sum() > 50
    assert np.median(np.abs(mine.X[deep_air])) < 1e-3
    index = dataclasses.replace(read, layers=["decoder.stages.1"])
    few = {"n_class_samples": 20, "n_case_samples": 10, "source_head": False}
    features = SegmentationFeatureExtractor(index, **few).fit_transform([case])[0]
    assert set(features.layers["decoder.stages.1"].y) == {0, 1, 5}


def export(folder, path, compression=zipfile.ZIP_DEFLATED):
    """Write a zip as nnUNetv2_export_model_to_zip does: names begin with that of the dataset."""
    root = folder.parent.parent
    with zipfile.ZipFile(path, "a", compression) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root).as_posix())
        inner = folder.relative_to(root).as_posix()
        archive.writestr(f"{inner}/crossval_results_folds_0/plans.json", "{}")
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_exported_zip_is_read_as_its_folder(tmp_path, monkeypatch, compression):
    folder, _ = write_nnunet(tmp_path / "results", folds=(0, 1))
    path = export(folder, tmp_path / "model.zip", compression)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    zipped, plain = BankEntry.from_nnunet(path, fold=1), BankEntry.from_nnunet(folder, fold=1)
    assert zipped.weights.parts[-2:] == ("fold_1", "checkpoint_final.pth")
    for field in ("name", "arguments", "window_size", "preprocessing", "provenance"):
        assert getattr(zipped, field) == getattr(plain, field)
    assert same_output(zipped, plain.load(), (16, 16, 16))
    assert not list(scratch.iterdir())
    assert set(tmp_path.iterdir()) == {tmp_path / "results", path, scratch}
    assert entry_digest(zipped) == entry_digest(BankEntry.from_nnunet(path, fold=1))
    assert entry_digest(zipped) != entry_digest(BankEntry.from_nnunet(path, fold=0))


def test_a_zip_of_several_models_is_as_many_entries(tmp_path):
    results = tmp_path / "results"
    for dataset in ("Dataset001_A", "Dataset002_B"):
        folder, _ = write_nnunet(results, dataset=dataset)
        path = export(folder, tmp_path / "models.zip")
    shutil.rmtree(results)
    assert len(ModelBank.from_folder(tmp_path)) == 2
    assert "holds several models; name one of" in refused_zip(path)
    one = path / "Dataset002_B" / folder.name
    assert BankEntry.from_nnunet(one).weights.is_relative_to(one)
    assert "there is no fold_7; it has fold_0" in refused_zip(one, fold=7)
    assert "holds no model" in refused_zip(path / "Dataset003_C")


def refused_zip(path, **options):
    with pytest.raises(BankError) as caught:
        BankEntry.from_nnunet(path, **options)
    assert str(caught.value).startswith(f"nnU-Net archive {path}")
    assert "/tmp/skte" not in str(caught.value)
    return str(caught.value)


def test_a_zip_that_is_damaged_or_a_bomb_is_told(tmp_path):
    folder, _ = write_nnunet(tmp_path / "results")
    content = (folder / "fold_0" / "checkpoint_final.pth").read_bytes()
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"\0" * 2_000_000)
    path = export(folder, tmp_path / "bomb.zip")
    with memory_limit("1MB"):
        assert "would take 1.91 MiB of memory" in refused_zip(path)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(content)
    path = export(folder, tmp_path / "model.zip", zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(content) + len(content) // 2
    data[at : at + 8] = b"damaged!"
    path.write_bytes(data)
    assert "copy or download the archive again" in refused_zip(path)
    (tmp_path / "notes.zip").write_bytes(b"PK")
    assert "holds no model of nnU-Net v2" in refused_zip(tmp_path / "notes.zip")


@pytest.mark.parametrize("name", ["../fold_0/x.pth", "fold_0/../../x.pth", "/fold_0/x.pth"])
def test_parts_of_a_zip_stay_in_the_scratch_folder(tmp_path, name):
    folder, _ = write_nnunet(tmp_path / "results")
    path = export(folder, tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a") as archive:
        inner = folder.relative_to(tmp_path / "results").as_posix()
        archive.writestr(f"{inner}/{name}", "x")
    entry = BankEntry.from_nnunet(path)
    assert entry.load()
    assert not list(tmp_path.rglob("x.pth"))


def test_a_zip_cannot_lead_to_files_beside_it(tmp_path):
    folder, trained = write_nnunet(tmp_path / "results")
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (f for f in folder.rglob("*") if f.is_file()):
            for start in ("", folder.as_posix()):
                name = f"{start}/{file.relative_to(folder).as_posix()}"
                archive.writestr(name, file.read_bytes())
    assert "it holds no model" in refused_zip(path)
    with zipfile.ZipFile(path, "w") as archive:
        for file in (f for f in folder.rglob("*") if f.is_file()):
            archive.writestr(file.relative_to(folder).as_posix(), file.read_bytes())
    assert same_output(BankEntry.from_nnunet(path), trained, (16, 16, 16))


def test_checkpoints_in_a_zip_are_bounded(tmp_path):
    folder, _ = write_nnunet(tmp_path / "results")
    path = export(folder, tmp_path / "model.zip")
    inner = folder.relative_to(tmp_path / "results").as_posix()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{inner}/fold_{'9' * 5000}/checkpoint_final.pth", "")
    assert BankEntry.from_nnunet(path)
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(1000):
            archive.writestr(f"{inner}/fold_1/{i}.pth", "")
    assert "it holds 1001 checkpoints" in refused_zip(path)


def names_of_folds(names):
    return tuple(name.removeprefix("Dataset007_Phantom-3d_fullres-") for name in names)


@pytest.mark.parametrize("zipped", [False, True])
def test_every_fold_of_a_folder_is_an_entry(tmp_path, zipped):
    folder, _ = write_nnunet(tmp_path / "bank", folds=(0, 10, 2, "all"))
    (folder / "fold_3").mkdir()  # its training has not begun to save
    (folder / "fold_10" / "checkpoint_final.pth").rename(folder / "fold_10" / "checkpoint_best.pth")
    if zipped:
        path = export(folder, tmp_path / "model.zip")
        shutil.rmtree(tmp_path / "bank")
        (tmp_path / "bank").mkdir()
        path.rename(tmp_path / "bank" / "model.zip")
    bank = ModelBank.from_folder(tmp_path / "bank")
    assert names_of_folds(bank.names) == ("fold_0", "fold_2", "fold_10", "fold_all")
    assert len({entry_digest(entry) for entry in bank}) == 4
    assert bank.not_understood == {}


def test_a_broken_fold_does_not_cost_the_others(tmp_path):
    folder, _ = write_nnunet(tmp_path, folds=(0, 1))
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"x")
    with pytest.warns(SkteWarning, match="fold_0"):
        bank = ModelBank.from_folder(tmp_path)
    assert names_of_folds(bank.names) == ("fold_1",)
    ((place, why),) = bank.not_understood.items()
    assert place == f"Dataset007_Phantom/{folder.name}/fold_0"
    assert why.startswith(f"nnU-Net folder {folder}: Weights fold_0/checkpoint_final.pth: ")
    assert why.count(folder.name) == 1


def test_trust_in_a_model_is_trust_in_its_folds(tmp_path):
    folder, _ = write_nnunet(tmp_path, folds=(0, 1))
    place = f"Dataset007_Phantom/{folder.name}"
    bank = ModelBank.from_folder(tmp_path, trusted=[place])
    assert [entry.trusted for entry in bank] == [True, True]


def test_the_folder_of_a_fold_is_that_fold(tmp_path):
    folder, _ = write_nnunet(tmp_path, folds=(0, 1))
    assert BankEntry.from_nnunet(folder / "fold_1") == BankEntry.from_nnunet(folder, fold=1)
