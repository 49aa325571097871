"""Encoders that nnssl pre-trained (OpenMind), and what was fine-tuned from them."""

import json

import pytest
import torch
from torch import nn

from skte import BankEntry, ModelBank
from skte.exceptions import BankError
from tests.model_folders import nnunet_architecture, nnunet_plans, require_dna, write_nnunet


@pytest.fixture(autouse=True)
def _dna():
    require_dna()


RESIDUAL = {
    **nnunet_architecture(3, "ResidualEncoderUNet")["arch_kwargs"],
    "conv_op": "torch.nn.modules.conv.Conv3d",
}


def adaptation_plan(arch="ResidualEncoderUNet", **changes):
    """A plan as nnssl serialises it."""
    kwargs = RESIDUAL if arch == "ResidualEncoderUNet" else None
    imports = ["conv_op", "norm_op", "nonlin"] if kwargs else None
    configuration = {
        "data_identifier": "nnsslPlans_onemmiso",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing_style": "onemmiso",
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
        },
        "resampling_fn_mask": "resample_data_or_seg_to_shape",
        "resampling_fn_mask_kwargs": {
            "is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None,
        },
        "spacing": [1, 1, 1],
        "patch_size": [16, 16, 16],
    }  # fmt: skip
    plan = {
        "architecture_plans": {
            "arch_class_name": arch,
            "arch_kwargs": kwargs,
            "arch_kwargs_requiring_import": imports,
        },
        "pretrain_plan": {
            "dataset_name": "Dataset745_OpenMind",
            "plans_name": "nnsslPlans",
            "original_median_spacing_after_transp": [1, 1, 1],
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"onemmiso": configuration},
            "experiment_planner_used": "FixedResEncUNetPlanner",
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [32, 32, 32],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "key_to_lpe": None,
        "trainer_name": "BaseMAETrainer",
    }
    for key, value in changes.items():
        place = next((p for p in (configuration, plan["pretrain_plan"]) if key in p), plan)
        place[key] = value
    return plan


def write_nnssl(root, plan=None, state=None, place="."):
    """Write a repository; returns its folder and the state dict in it."""
    plan = plan or adaptation_plan()
    if state is None:
        torch.manual_seed(0)
        arguments = {key: getattr(nn, value.rpartition(".")[2]) if str(value).startswith("torch")
                     else value for key, value in RESIDUAL.items()}  # fmt: skip
        network = require_dna().ResidualEncoderUNet(1, num_classes=1, **arguments)
        state = network.state_dict()
    folder = root / "ResEncL-OpenMind-MAE"
    (folder / place).mkdir(parents=True, exist_ok=True)
    (folder / "adaptation_plan.json").write_text(json.dumps(plan))
    checkpoint = {"network_weights": state, "init_args": {}, "trainer_name": "BaseMAETrainer",
                  "nnssl_adaptation_plan": plan, "citations": []}  # fmt: skip
    torch.save(checkpoint, folder / place / "checkpoint_final.pth")
    return folder, state


def same(network, state, start):
    own = network.state_dict()
    keys = [key for key in state if key.startswith(start)]
    assert keys
    return all(torch.equal(own[key], state[key]) for key in keys)


@pytest.mark.parametrize("place", [".", "fold_all"])
def test_an_encoder_is_read_from_a_bank(tmp_path, place):
    folder, state = write_nnssl(tmp_path, place=place)
    (entry,) = ModelBank.from_folder(tmp_path)
    assert entry == BankEntry.from_nnssl(folder)
    assert (entry.name, entry.layers, entry.source_head) == (folder.name, "encoder", False)
    assert (entry.in_channels, entry.spatial_dims) == (1, 3)
    assert entry.window_size == (32, 32, 32)
    assert entry.provenance["format"] == "nnssl"
    assert entry.provenance["trainer"] == "BaseMAETrainer"
    assert "decoder is random" in entry.provenance["loaded"]
    (step,) = entry.preprocessing
    assert (step.spacing, step.schemes, step.use_mask) == ((1, 1, 1), ("ZScoreNormalization",),
                                                            (False,))  # fmt: skip
    network = entry.load()
    assert same(network, state, "encoder.")


def test_encoders_elsewhere_in_the_file_and_other_heads(tmp_path):
    _, state = write_nnssl(tmp_path)
    moved = {f"online.{k}": v for k, v in state.items() if k.startswith("encoder.")}
    moved["projector.0.weight"] = torch.ones(4, 8)
    plan = adaptation_plan(
        key_to_encoder="online.encoder.stages", key_to_stem="online.encoder.stem"
    )
    folder, _ = write_nnssl(tmp_path, plan, moved)
    assert same(BankEntry.from_nnssl(folder).load(), state, "encoder.")
    del moved["online.encoder.stem.convs.0.conv.weight"]
    del moved["online.encoder.stem.convs.0.all_modules.0.weight"]
    folder, _ = write_nnssl(tmp_path, plan, moved)
    with pytest.raises(BankError, match=r"missing in the file \(\d\): encoder.stem"):
        BankEntry.from_nnssl(folder).load()


TINY = {"encoder.stem.convs.0.conv.weight": torch.ones(1, 1, 1, 1, 1)}


@pytest.mark.parametrize("arch", ["ResEncL", "NoSkipResEncL"])
def test_the_network_that_is_named_alone(tmp_path, arch):
    folder, _ = write_nnssl(tmp_path, adaptation_plan(arch), TINY)
    entry = BankEntry.from_nnssl(folder)
    assert entry.factory.endswith("unet:ResidualEncoderUNet")
    assert entry.arguments["features_per_stage"] == [32, 64, 128, 256, 320, 320]
    assert entry.arguments["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]
    assert entry.arguments["conv_op"] is nn.Conv3d
    assert entry.rename == {}


def test_spacing_channels_and_windows_follow_the_plan(tmp_path):
    plan = adaptation_plan("PrimusM", spacing=None, pretrain_num_input_channels=2,
                           use_mask_for_norm=True, key_to_encoder="eva",
                           key_to_stem="down_projection")  # fmt: skip
    entry = BankEntry.from_nnssl(write_nnssl(tmp_path, plan, TINY)[0])
    (step,) = entry.preprocessing
    assert (step.resampling, step.use_mask) == ("no_resampling_hack", (True, True))
    assert entry.factory.endswith("primus:PrimusM")
    assert entry.window_size == (16, 16, 16)  # its tokens have places
    assert entry.arguments == {"patch_embed_size": [8, 8, 8], "input_shape": [16, 16, 16],
                               "input_channels": 2, "output_channels": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"arch": "SwinUNETR"}, "architecture must hold"),
        ({"arch": "PrimusS", "patch_size": [20, 16, 16]}, "must have three multiples of 8"),
        ({"pretrain_num_input_channels": 10**9}, "pretrain_num_input_channels=1000000000"),
        ({"normalization_schemes": ["Mine"]}, r"normalization_schemes \['Mine'\] are unknown"),
        ({"configurations": {}}, "not of the form that nnssl writes"),
        ({"pretrain_plan": None}, "not of the form that nnssl writes"),
        ({"spacing": "1"}, "spacing='1' must be"),
    ],
)
def test_plans_that_are_not_understood(tmp_path, changes, match):
    folder, _ = write_nnssl(tmp_path, adaptation_plan(**changes), TINY)
    with pytest.raises(BankError, match=f"nnssl folder .*{match}"):
        BankEntry.from_nnssl(folder)


def test_what_a_plan_names_is_not_imported(tmp_path):
    plan = adaptation_plan()
    plan["architecture_plans"]["arch_class_name"] = "os.system"
    with pytest.raises(BankError, match=r"'os\.system', which was refused"):
        BankEntry.from_nnssl(write_nnssl(tmp_path, plan, TINY)[0])
    with pytest.raises(BankError, match=r"it has no adaptation_plan\.json"):
        BankEntry.from_nnssl(tmp_path)
    (tmp_path / "adaptation_plan.json").write_text("{}")
    with pytest.raises(BankError, match=r"it has no checkpoint_final\.pth or checkpoint_best"):
        BankEntry.from_nnssl(tmp_path)


@pytest.fixture
def primus(monkeypatch):
    """Primus S, of one block."""
    pytest.importorskip("timm", reason="Primus needs timm and einops")
    module = pytest.importorskip("dynamic_network_architectures.architectures.primus")
    small = {"eva_depth": 1, "eva_numheads": 6, "embed_dim": 396}
    monkeypatch.setitem(module._PRIMUS_CONFIGS, "S", small)
    torch.manual_seed(0)
    return module.PrimusS(1, 3, (8, 8, 8), (16, 16, 16))


def test_a_transformer_is_read(tmp_path, primus):
    state = primus.state_dict()
    file = {k: v for k, v in state.items() if not k.startswith("up_")}
    file["decoder.blocks.0.norm1.weight"] = torch.ones(396)
    plan = adaptation_plan("PrimusS", key_to_encoder="eva", key_to_stem="down_projection",
                           key_to_lpe="eva.pos_embed")  # fmt: skip
    folder, _ = write_nnssl(tmp_path, plan, file)
    network = BankEntry.from_nnssl(folder).load()
    assert same(network, state, "eva.")
    assert same(network, state, "down_projection.")


@pytest.mark.parametrize("names_it", [True, False])
def test_transformers_that_nnunet_trained(tmp_path, primus, names_it):
    # The fork's plans (ptPlans) name the network; trainers of Primus leave a U-Net in theirs.
    plans = nnunet_plans()
    if names_it:
        plans["configurations"]["3d_fullres"]["architecture"] = {
            "network_class_name": "PrimusS", "arch_kwargs": None, "_kw_requires_import": None,
        }  # fmt: skip
    folder, _ = write_nnunet(tmp_path, plans, network=primus)
    entry = BankEntry.from_nnunet(folder)
    assert entry.arguments["output_channels"] == 3
    assert same(entry.load(), primus.state_dict(), "")


def test_what_the_fork_fine_tuned(tmp_path):
    plans = nnunet_plans()
    configuration = plans["configurations"]["3d_fullres"]
    configuration["architecture"] = {
        "network_class_name": "ResidualEncoderUNet",
        "arch_kwargs": RESIDUAL,
        "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
    }
    arguments = {**RESIDUAL, "conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d,
                 "nonlin": nn.LeakyReLU}  # fmt: skip
    trained = require_dna().ResidualEncoderUNet(1, num_classes=3, **arguments)
    folder, _ = write_nnunet(tmp_path, plans, network=trained)
    assert same(BankEntry.from_nnunet(folder).load(), trained.state_dict(), "")
