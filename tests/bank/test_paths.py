"""Files of a bank stay in the folder that was given, through links as well."""

import json

import pytest
import torch

from skte import BankEntry, ModelBank
from skte.cli import main
from skte.demo import small_unet
from skte.exceptions import BankError, SkteWarning
from tests.model_folders import require_monai, write_bundle, write_nnunet


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write_manifest(folder, weights="heart.pt"):
    folder.mkdir(parents=True, exist_ok=True)
    model = {"name": "heart", "factory": "skte.demo:small_unet", "weights": str(weights)}
    model |= {"arguments": {"widths": [2, 4]}, "window_size": 16}
    (folder / "bank.json").write_text(json.dumps({"models": [model]}))
    return folder / "bank.json"


def write_weights(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(small_unet(widths=(2, 4)).state_dict(), path)
    return path


def lead_out(path, elsewhere):
    """Move a file or folder elsewhere and leave a link."""
    elsewhere.mkdir(parents=True, exist_ok=True)
    path.rename(elsewhere / path.name)
    path.symlink_to(elsewhere / path.name)


def test_weights_of_a_manifest_are_not_read_through_a_link(tmp_path, capsys):
    path = write_manifest(tmp_path / "bank")
    lead_out(write_weights(tmp_path / "bank" / "heart.pt"), tmp_path / "elsewhere")
    with pytest.raises(BankError, match=r"leads to .*elsewhere.*--allow-root .* or extra_roots"):
        ModelBank.from_manifest(path)
    roots = [tmp_path / "elsewhere"]
    assert ModelBank.from_manifest(path, extra_roots=roots)["heart"].load()
    assert ModelBank.from_folder(path.parent, extra_roots=roots)["heart"].load()
    assert main(["bank", "list", str(path)]) == 2
    assert f"--allow-root {roots[0]}" in capsys.readouterr().err
    assert main(["bank", "check", str(path), "--allow-root", str(roots[0])]) == 0


def test_links_within_the_folder_are_followed(tmp_path):
    path = write_manifest(tmp_path / "bank" / "inner")
    lead_out(write_weights(path.parent / "heart.pt"), tmp_path / "bank" / "weights")
    assert ModelBank.from_folder(tmp_path / "bank")["heart"].load()
    with pytest.raises(BankError, match="leads to"):  # the root is the manifest's own folder
        ModelBank.from_manifest(path)


def test_paths_may_lead_to_roots_that_were_named(tmp_path):
    weights = write_weights(tmp_path / "elsewhere" / "heart.pt")
    for text in (weights, "../elsewhere/heart.pt"):
        path = write_manifest(tmp_path / "bank", text)
        with pytest.raises(BankError, match=r"must stay inside .*--allow-root"):
            ModelBank.from_manifest(path)
        assert ModelBank.from_manifest(path, extra_roots=[weights.parent])["heart"].load()
        with pytest.raises(BankError, match="must stay inside"):
            ModelBank.from_manifest(path, extra_roots=[tmp_path / "elsewher"])


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", "fold_0", "fold_0/checkpoint"])
def test_files_of_nnunet_stay_inside(dna, tmp_path, name):
    folder, _ = write_nnunet(tmp_path / "bank")
    name = f"{name}_final.pth" if name.endswith("checkpoint") else name
    lead_out(folder / name, tmp_path / "elsewhere")
    with pytest.raises(BankError, match=r"leads to .*elsewhere"):
        BankEntry.from_nnunet(folder)
    with pytest.raises(BankError, match=r"leads to .*elsewhere"):
        ModelBank.from_folder(tmp_path / "bank")
    assert BankEntry.from_nnunet(folder, extra_roots=[tmp_path / "elsewhere"]).load()


@pytest.mark.parametrize("name", ["configs", "configs/inference.json", "models", "models/model.pt"])
def test_files_of_bundles_stay_inside(tmp_path, name):
    require_monai()
    folder, _ = write_bundle(tmp_path / "bank")
    lead_out(folder / name, tmp_path / "elsewhere")
    with pytest.raises(BankError, match=r"leads to .*elsewhere"):
        BankEntry.from_monai_bundle(folder)
    with pytest.raises(BankError, match=r"leads to .*elsewhere"):
        ModelBank.from_folder(tmp_path / "bank")
    roots = [tmp_path / "elsewhere"]
    assert BankEntry.from_monai_bundle(folder, extra_roots=roots).load()
    assert ModelBank.from_folder(tmp_path / "bank", extra_roots=roots)[0].load()


@pytest.mark.parametrize("name", ["model.pt", "program.pt2", "bank.json", "folder"])
def test_links_out_of_a_folder_are_named_and_cost_nothing_else(tmp_path, name):
    write_manifest(tmp_path / "bank" / "own")
    write_weights(tmp_path / "bank" / "own" / "heart.pt")
    target = tmp_path / "elsewhere" / name
    if name == "folder":
        write_weights(target / "x.pt")
    else:
        write_weights(target)
    (tmp_path / "bank" / name).symlink_to(target)
    with pytest.warns(SkteWarning, match=f"{name}: not looked at: it leads to"):
        bank = ModelBank.from_folder(tmp_path / "bank")
    assert bank.names == ("heart",)


def test_a_copy_takes_nothing_from_outside(tmp_path, capsys):
    require_monai()
    folder, _ = write_bundle(tmp_path / "download")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")
    command = ["bank", "add", str(tmp_path / "bank"), str(folder)]
    assert main(command) == 2
    assert "notes.txt leads to" in capsys.readouterr().err
    assert not (tmp_path / "bank").exists() or not list((tmp_path / "bank").iterdir())
    assert main([*command, "--allow-root", str(tmp_path)]) == 0
