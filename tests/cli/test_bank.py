"""``skte bank``: make, fill, list and check a folder of models."""

import json

import pytest
import torch

from skte.cli import main
from skte.demo import small_unet
from tests.hub_server import hub_server
from tests.model_folders import require_dna, require_monai, write_bundle, write_nnunet


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def bank(tmp_path, capsys):
    assert run(capsys, "bank", "init", tmp_path / "bank")[0] == 0
    return tmp_path / "bank"


def test_init_makes_an_empty_folder_once(bank, capsys):
    yaml = pytest.importorskip("yaml")
    (file,) = bank.iterdir()
    assert yaml.safe_load(file.read_text())["models"][0]["name"] == "my-unet"
    code, _, error = run(capsys, "bank", "init", bank)
    assert code == 2
    assert "is there already and not empty" in error
    code, _, error = run(capsys, "bank", "list", bank)
    assert code == 2
    assert "holds no model that can be used" in error


def test_models_are_added_listed_and_checked(bank, tmp_path, capsys):
    require_dna()
    require_monai()
    folder, _ = write_nnunet(tmp_path / "results")
    (folder / "fold_0" / "validation").mkdir()
    (folder / "fold_0" / "validation" / "case.nii.gz").write_bytes(b"x")
    for name in ("checkpoint_best.pth", "checkpoint_latest.pth", "progress.png"):
        (folder / "fold_0" / name).write_bytes(b"x")
    code, out, _ = run(capsys, "bank", "add", bank, folder)
    assert (code, out) == (0, "added Dataset007_Phantom-3d_fullres-fold_0\n")
    copied = bank / "Dataset007_Phantom" / folder.name
    assert sorted(p.name for p in copied.rglob("*") if p.is_file()) == [
        "checkpoint_final.pth",
        "dataset.json",
        "plans.json",
    ]
    bundle, _ = write_bundle(tmp_path)
    assert run(capsys, "bank", "add", bank, bundle, "--as", "spleen")[:2] == (0, "added spleen\n")
    code, out, error = run(capsys, "bank", "list", bank)
    assert (code, error) == (0, "")
    assert "nnU-Net v2" in out
    assert "16 x 16 x 16" in out
    assert "Orientation, Spacing, ScaleIntensityRange" in out
    code, out, _ = run(capsys, "bank", "list", bank, "--json")
    assert [row["format"] for row in json.loads(out)["models"]] == ["nnU-Net v2", "MONAI bundle"]
    code, out, error = run(capsys, "bank", "check", bank)
    assert (code, error) == (0, "")
    assert "decoder.stages.1" in out
    assert "model.1.submodule.2" in out
    code, out, _ = run(capsys, "bank", "check", bank, "--entry", "spleen", "--json")
    assert [model["name"] for model in json.loads(out)["models"]] == ["spleen"]
    code, out, _ = run(capsys, "inspect", "--bank", bank)
    assert code == 0
    assert "spleen: 3-D, 1 channels in" in out


def test_what_was_not_understood_is_a_problem(bank, tmp_path, capsys):
    require_monai()
    bundle, _ = write_bundle(tmp_path)
    run(capsys, "bank", "add", bank, bundle)
    (bank / "graph.onnx").write_bytes(b"x")
    code, out, error = run(capsys, "bank", "list", bank)
    assert code == 1
    assert "spleen_bundle" in out
    assert error.startswith("skte: problem: graph.onnx: ")
    assert error.count("graph.onnx") == 2  # the name, and the path in the reason
    torch.save({}, bundle / "models" / "model.pt")
    (bank / "spleen_bundle" / "models" / "model.pt").write_bytes(
        (bundle / "models" / "model.pt").read_bytes()
    )
    code, out, error = run(capsys, "bank", "check", bank)
    assert code == 1
    assert "spleen_bundle: cannot be used" in out
    assert "no state dict" in error


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "/etc"])
def test_a_copy_stays_inside_the_bank(bank, tmp_path, capsys, name):
    (tmp_path / "x.pt").write_bytes(b"x")
    code, _, error = run(capsys, "bank", "add", bank, tmp_path / "x.pt", "--as", name)
    assert code == 2
    assert "must be the name of a folder" in error


def test_what_cannot_be_used_is_not_kept(bank, tmp_path, capsys):
    torch.save(small_unet(widths=(4, 8)).state_dict(), tmp_path / "loose.pt")
    code, _, error = run(capsys, "bank", "add", bank, tmp_path / "loose.pt")
    assert code == 2
    assert "in a manifest bank.yaml beside it" in error
    assert [path.name for path in bank.iterdir()] == ["bank.example.yaml"]
    code, _, error = run(capsys, "bank", "add", bank, tmp_path / "none")
    assert code == 2
    assert "There is no" in error
    (bank / "loose").mkdir()
    code, _, error = run(capsys, "bank", "add", bank, tmp_path / "loose.pt")
    assert code == 2
    assert "is there already" in error
    code, _, error = run(capsys, "bank", "add", tmp_path / "loose.pt", tmp_path / "loose.pt")
    assert code == 2
    assert "is a file" in error


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_models_come_from_the_hub(bank, tmp_path, capsys, monkeypatch):
    pytest.importorskip("huggingface_hub")
    require_monai()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder, _ = write_bundle(tmp_path)
    with hub_server(folder, "lab/spleen") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        code, out, _ = run(capsys, "bank", "add", bank, "hub:lab/spleen@main")
    assert (code, out) == (0, "added lab--spleen\n")
    assert (bank / "lab--spleen" / "models" / "model.pt").is_file()
    assert run(capsys, "bank", "list", bank)[0] == 0


def test_a_folder_is_ranked(bank, tmp_path, data, capsys):
    require_dna()
    require_monai()
    run(capsys, "bank", "add", bank, write_nnunet(tmp_path / "results")[0])
    run(capsys, "bank", "add", bank, write_bundle(tmp_path)[0])
    code, out, _ = run(capsys, "rank", "--bank", bank, "--data", data, "--json", "--device", "cpu")
    assert code == 0
    assert sorted(row["name"] for row in json.loads(out)) == [
        "Dataset007_Phantom-3d_fullres-fold_0",
        "spleen_bundle",
    ]
