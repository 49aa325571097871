"""The first lines of fine-tuning: run where they can be, or as the tools document them."""

import json
import shlex
import sys

import pytest
import torch

from skte import BankEntry, LogME, ModelBank, ModelBankSelector
from skte.bank import load_bank
from skte.cli import main
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.report import fine_tuning, next_step
from tests.model_folders import bundle_config, require_dna, write_bundle, write_nnunet


@pytest.mark.slow
def test_lines_of_python_give_the_network_with_a_new_head(tmp_path):
    networks = {name: small_unet(widths=(4, 8), spatial_dims=2) for name in ("a", "b")}
    bank = ModelBank.from_modules(networks, preprocessing=["ToCanonical", "ZNormalization"])
    cases = make_phantoms(2, size=(16, 16, 1))
    selector = ModelBankSelector(LogME(), reference=False).fit(bank, cases)
    first = selector.answer_.short_list[0]
    text = next_step(selector)
    assert text == next_step(selector, first, n_classes=2)
    assert "entry.transform()  # ToCanonical, ZNormalization" in text
    made = {"selector": selector}
    exec(next_step(selector, "b", n_classes=7), made)  # as a user would
    network = made["network"]
    assert network.training
    assert network(torch.zeros(1, 1, 16, 16)).shape == (1, 7, 16, 16)
    body = dict(networks["b"].named_parameters())
    assert all(torch.equal(p, body[n]) for n, p in network.named_parameters() if "head" not in n)
    assert made["preprocess"](cases[0].image.data.float()).mean().abs() < 1e-3


def test_nnunet_moves_plans_and_starts_from_the_weights(tmp_path):
    require_dna()
    folder, _ = write_nnunet(tmp_path / "my models", dataset="Dataset009_Spleen")
    entry = BankEntry.from_nnunet(folder)
    lines = fine_tuning(entry, "", None).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    assert ["nnUNetv2_move_plans_between_datasets", "-s", "Dataset009_Spleen", "-t", "TARGET",
            "-sp", "nnUNetPlans", "-tp", "nnUNetPlansFrom009"] in commands  # fmt: skip
    assert ["nnUNetv2_preprocess", "-d", "TARGET", "-plans_name", "nnUNetPlansFrom009", "-c",
            "3d_fullres"] in commands  # fmt: skip
    assert any(words[-2:] == ["-pretrained_weights", str(entry.weights)] for words in commands)
    (copied,) = [words for words in commands if words[:1] == ["mkdir"]]
    assert str(folder / "plans.json") in copied


def test_a_bundle_trains_as_it_says_from_its_weights(tmp_path):
    folder, _ = write_bundle(tmp_path)
    entry = BankEntry.from_monai_bundle(folder)
    assert "plain PyTorch" in fine_tuning(entry, "entry", 2)  # no training is described
    (folder / "configs" / "train.json").write_text(json.dumps(bundle_config()))
    text = fine_tuning(entry, "", 2)
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    assert words[:2] == ["cd", str(folder)]
    options = dict(zip(words[-8::2], words[-7::2], strict=True))
    assert options["--network_def#out_channels"] == "2"
    (expression,) = json.loads(options["--initialize"])
    assert expression == (
        "$monai.networks.utils.copy_model_state(@network_def, "
        'torch.load("models/model.pt", weights_only=True))'
    )


@pytest.mark.slow
def test_monai_itself_understands_the_line(tmp_path, monkeypatch):
    bundle = pytest.importorskip("monai.bundle")
    folder, network = write_bundle(tmp_path)
    (folder / "configs" / "train.json").write_text(json.dumps(bundle_config()))
    text = fine_tuning(BankEntry.from_monai_bundle(folder), "", 2)
    (expression,) = json.loads(shlex.split(text.replace("\\\n", " "), comments=True)[-1])
    monkeypatch.chdir(folder)
    parser = bundle.ConfigParser(bundle_config())
    parser["network_def#out_channels"] = 2
    parser["initialize"] = [expression]
    parser.get_parsed_content("initialize")
    tuned = parser.get_parsed_content("network_def").state_dict()
    same = [torch.equal(tuned[k], v) for k, v in network.state_dict().items()
            if tuned[k].shape == v.shape]  # fmt: skip
    assert all(same)
    assert len(same) > len(tuned) // 2


def test_the_shell_takes_the_first_of_a_file_or_a_name(tmp_path, capsys):
    path = tmp_path / "bank.json"
    entry = {"factory": "skte.demo:small_unet", "arguments": {"widths": [4, 8]}, "weights": "none"}
    path.write_text(json.dumps({"models": [{"name": name, **entry} for name in "ab"]}))
    out = tmp_path / "ranking.json"
    rows = [{"name": "a", "rank": 2}, {"name": "b", "rank": 1}, {"name": "twin", "rank": None}]
    out.write_text(json.dumps(rows))
    for options, name in (([str(out)], "b"), (["--model", "a"], "a")):
        assert main(["next", *options, "--bank", str(path), "--classes", "4"]) == 0
        text = capsys.readouterr().out
        made = {}
        exec(text, made)
        assert made["entry"] == load_bank(path)[name]
        assert made["network"].head.out_channels == 4
    assert main(["next", "--bank", str(path)]) == 2
    assert "--model NAME" in capsys.readouterr().err


def test_the_shell_repeats_that_a_ranking_had_no_answer_and_takes_its_choice(
    tmp_path, capsys, monkeypatch
):
    """From a folder of its own, with a factory that lies elsewhere."""
    (tmp_path / "made_here.py").write_text(
        "from skte.demo import small_unet\ndef build(**a):\n    return small_unet(**a)\n"
    )
    entry = {"factory": "made_here:build", "arguments": {"widths": [4, 8]}, "weights": "none"}
    models = [{"name": name, **entry} for name in "ab"]
    (tmp_path / "bank.json").write_text(json.dumps({"models": models}))
    rows = [{"name": "a", "rank": 1, "choice": None, "no_answer": "No answer: chance."},
            {"name": "b", "rank": 2, "choice": 1, "no_answer": "No answer: chance."}]  # fmt: skip
    (tmp_path / "ranking.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    trust = ["--trust-package", "made_here", "--factory-path", "."]
    assert main(["next", "ranking.json", "--bank", "bank.json", *trust]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# No answer: chance.\n# b, plain PyTorch\n")
    monkeypatch.chdir("/")
    monkeypatch.delitem(sys.modules, "made_here")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    made = {}
    exec(text.replace("N_CLASSES", "3"), made)
    assert made["entry"].name == "b"
    assert made["network"].head.out_channels == 3
