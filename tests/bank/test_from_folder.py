"""A folder of models left by several tools becomes one bank."""

import json
import os
import pickle
import shutil
import zipfile

import pytest
import torch
from torch import nn

from skte import CCFV, BankEntry, ModelBank, ModelBankSelector
from skte.bank import load_bank
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.exceptions import BankError, SkteWarning
from tests.model_folders import require_monai, write_bundle, write_nnunet


def write_manifest(folder, name="heart", **fields):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    torch.save(small_unet(widths=(4, 8)).state_dict(), folder / f"{name}.pt")
    model = {
        "name": name,
        "factory": "skte.demo:small_unet",
        "arguments": {"widths": [4, 8]},
        "weights": f"{name}.pt",
        "window_size": 16,
        **fields,
    }
    (folder / "bank.json").write_text(json.dumps({"models": [model]}))


@pytest.fixture
def mixed(dna, tmp_path):
    require_monai()
    write_nnunet(tmp_path / "nnunet", dataset="Dataset001_A")
    write_nnunet(tmp_path / "nnunet", dataset="Dataset002_B", seed=1)
    write_bundle(tmp_path, name="bundle")
    write_manifest(tmp_path / "own")
    return tmp_path


def test_models_of_several_tools_make_one_bank(mixed):
    bank = ModelBank.from_folder(mixed)
    assert bank.names == (
        "bundle",
        "Dataset001_A-3d_fullres-fold_0",
        "Dataset002_B-3d_fullres-fold_0",
        "heart",
    )
    assert bank.not_understood == {}
    assert load_bank(mixed) == bank
    assert pickle.loads(pickle.dumps(bank)) == bank


def test_weights_below_their_manifest_are_understood(tmp_path):
    (tmp_path / "weights").mkdir()
    write_manifest(tmp_path, weights="weights/heart.pt")
    (tmp_path / "heart.pt").rename(tmp_path / "weights" / "heart.pt")
    for name in ("._heart.pt", "weights/._heart.pt", ".DS_Store"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    bank = ModelBank.from_folder(tmp_path)
    assert (bank.names, bank.not_understood) == (("heart",), {})


@pytest.mark.slow
def test_the_bank_is_ranked(mixed):
    cases = make_phantoms(3, size=(20, 20, 20))
    selector = ModelBankSelector(CCFV(), reference=False).fit(mixed, cases)
    assert sorted(selector.ranking_) == sorted(ModelBank.from_folder(mixed).names)
    assert all(error in ("", None) for error in selector.results_["error"])


def test_one_broken_model_does_not_cost_the_others(mixed):
    folder = next((mixed / "nnunet" / "Dataset001_A").iterdir())
    (folder / "plans.json").write_text("{")
    weights = mixed / "bundle" / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:1000])
    torch.save(nn.Conv2d(1, 1, 1).state_dict(), mixed / "loose.pth")
    torch.save(nn.Conv2d(1, 1, 1), mixed / "pickled.pt")
    (mixed / "graph.onnx").write_bytes(b"x")
    (mixed / "program.pt2").write_bytes(b"x")
    (mixed / "other").mkdir()
    (mixed / "other" / "bank.json").write_text('{"models": [{"name": "x"}]}')
    (mixed / ".hidden").mkdir()
    (mixed / ".hidden" / "loose.pth").write_bytes(b"x")
    with pytest.warns(SkteWarning, match="not understood and left out:") as told:
        bank = ModelBank.from_folder(mixed)
    assert bank.names == ("Dataset002_B-3d_fullres-fold_0", "heart")
    reasons = bank.not_understood
    assert set(reasons) == {
        "bundle",
        "graph.onnx",
        "loose.pth",
        "nnunet/Dataset001_A/nnUNetTrainer__nnUNetPlans__3d_fullres",
        "other/bank.json",
        "pickled.pt",
        "program.pt2",
    }
    assert "truncated" in reasons["bundle"]
    assert "no modules to read features from" in reasons["graph.onnx"]
    assert "in a manifest bank.yaml beside it" in reasons["loose.pth"]
    assert "not valid JSON" in reasons[next(k for k in reasons if k.startswith("nnunet"))]
    assert "'factory' is missing" in reasons["other/bank.json"]
    assert "a whole pickled network" in reasons["pickled.pt"]
    assert "pass trusted=True" in reasons["program.pt2"]
    assert all(name in str(told[-1].message) for name in reasons)


def test_every_ending_of_weights_is_named(tmp_path):
    state = nn.Conv2d(1, 1, 1).state_dict()
    alone = "name the factory that builds it"
    expected = {
        "a.pt": alone, "b.pth.tar": alone, "pytorch_model.bin": alone, "c.ckpt": alone,
        "d.pkl": alone, "e.model": alone, "v1/f.model": "nnU-Net v1, which is not supported",
        "v1/f.model.pkl": "nnU-Net v1", "v1/plans.pkl": "nnU-Net v1",
        "g.h5": "a file of HDF5 or Keras", "h.keras": "a file of HDF5 or Keras",
        "i.npz": "an archive of NumPy", "j.npy": "an array of NumPy", "k.gguf": "a file of GGUF",
        "l.T7": "a file of Lua Torch", "m.tar.gz": "a packed folder",
    }  # fmt: skip
    (tmp_path / "v1").mkdir()
    for name, why in expected.items():
        torch.save(state, tmp_path / name)
        if why is not alone:
            (tmp_path / name).write_bytes(b"x" * 100)
    archives = dict.fromkeys(("n.torchscript", "o.jit", "p.ts"), "TorchScript, whose layers")
    archives["q.zip"] = "was not written by torch.save"
    for name in archives:
        parts = ("readme.txt",) if name == "q.zip" else ("m/data.pkl", "m/constants.pkl")
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for part in parts:
                archive.writestr(part, "x")
    expected |= archives
    (tmp_path / "image.nii.gz").touch()
    write_manifest(tmp_path)
    with pytest.warns(SkteWarning, match="not understood"):
        reasons = ModelBank.from_folder(tmp_path).not_understood
    assert reasons.keys() == expected.keys()
    assert [name for name, why in expected.items() if why not in reasons[name]] == []


def test_names_that_repeat_are_told_apart(tmp_path):
    for place in ("a", "b"):
        write_manifest(tmp_path / place)
    bank = ModelBank.from_folder(tmp_path)
    assert bank.names == ("heart (a/bank.json)", "heart (b/bank.json)")
    assert bank.places == {f"heart ({place})": place for place in ("a/bank.json", "b/bank.json")}
    several = r"2 entries 'heart'.*: 'heart \(a/bank.json\)', 'heart \(b/bank.json\)'"
    with pytest.raises(BankError, match=several):
        bank["heart"]


def test_folders_without_models_say_so(tmp_path):
    with pytest.raises(BankError, match=r"no nnU-Net v2, no MONAI bundle"):
        ModelBank.from_folder(tmp_path)
    with pytest.raises(BankError, match="There is no folder"):
        ModelBank.from_folder(tmp_path / "none")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(BankError, match=r"can be used:\n  - a.onnx: "):
        ModelBank.from_folder(tmp_path)


def test_a_folder_within_folders_has_an_end(tmp_path):
    write_manifest(tmp_path / "own")
    deep = tmp_path.joinpath(*"abcdefghijkl")
    write_manifest(deep)
    with pytest.warns(SkteWarning, match="a/b/c/d/e/f/g/h/i: not looked at"):
        assert ModelBank.from_folder(tmp_path).names == ("heart",)
    (tmp_path / "own" / "round").symlink_to(tmp_path, target_is_directory=True)
    with pytest.warns(SkteWarning, match="not looked at"):
        assert len(ModelBank.from_folder(tmp_path)) >= 1


class Crafted:
    def __init__(self, weights, marker):
        self.parts = weights, str(marker)

    def __reduce__(self):
        return run, self.parts


def run(weights, marker):
    os.mkdir(marker)
    return weights


def test_links_are_followed_and_loops_of_them_are_not(tmp_path):
    bank, elsewhere = tmp_path / "bank", tmp_path / "elsewhere"
    for folder, name in ((bank / "inner", "own"), (elsewhere, "linked")):
        folder.mkdir(parents=True)
        model = {"name": name, "factory": "skte.demo:small_unet", "weights": "none"}
        (folder / "bank.json").write_text(json.dumps({"version": 1, "models": [model]}))
    (bank / "far").symlink_to(elsewhere)
    (bank / "loop").symlink_to(".")
    (bank / "inner" / "up").symlink_to("..")
    (elsewhere / "back").symlink_to(bank)
    with pytest.warns(SkteWarning, match=r"far: not looked at: it leads to .*--allow-root"):
        assert ModelBank.from_folder(bank).names == ("own",)
    found = ModelBank.from_folder(bank, extra_roots=[elsewhere])
    assert sorted(found.names) == ["linked", "own"]
    assert found.not_understood == {}


def test_a_folder_is_read_once_however_many_links_lead_to_it(tmp_path):
    write_manifest(tmp_path / "model")
    for number in range(20):
        (tmp_path / f"link{number}").symlink_to("model")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "again").symlink_to("../model")
    assert ModelBank.from_folder(tmp_path).names == ("heart",)
    shutil.rmtree(tmp_path / "model")
    write_manifest(tmp_path / ".hidden")
    (tmp_path / "link0").unlink()
    (tmp_path / "link0").symlink_to(".hidden")
    assert ModelBank.from_folder(tmp_path).names == ("heart",)


def test_trust_is_given_to_one_model_by_its_path(dna, tmp_path):
    marker = tmp_path / "was_run"
    folders = []
    for dataset in ("Dataset001_A", "Dataset002_B"):
        folder, _ = write_nnunet(tmp_path / "bank", dataset=dataset)
        path = folder / "fold_0" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=False)
        weights = content["network_weights"]
        torch.save(content | {"network_weights": Crafted(weights, marker / dataset)}, path)
        folders.append(folder.relative_to(tmp_path / "bank").as_posix())
    marker.mkdir()
    with pytest.raises(BankError, match=r"\(needs: \S*[.]run\)"):
        ModelBank.from_folder(tmp_path / "bank")
    assert list(marker.iterdir()) == []
    with pytest.warns(SkteWarning, match="would run code"):
        bank = ModelBank.from_folder(tmp_path / "bank", trusted=[folders[1]])
    assert bank.names == ("Dataset002_B-3d_fullres-fold_0",)
    assert [path.name for path in marker.iterdir()] == ["Dataset002_B"]
    assert list(bank.not_understood) == [folders[0]]
    with pytest.raises(BankError, match=r"trusted names \['Dataset003'\]"):
        ModelBank.from_folder(tmp_path / "bank", trusted=["Dataset003"])


def test_a_manifest_cannot_trust_itself(tmp_path):
    write_manifest(tmp_path, trusted=True)
    with pytest.raises(
        BankError, match=r"'trusted' is refused: a file cannot declare itself trusted"
    ):
        ModelBank.from_folder(tmp_path)


def test_only_entries_that_say_so_are_trusted():
    with pytest.raises(BankError, match="trusted must be true or false"):
        BankEntry("a", "skte.demo:small_unet", trusted="yes")


def test_descriptions_without_end_are_refused(tmp_path, monkeypatch):
    write_manifest(tmp_path)
    monkeypatch.setattr("skte.bank._documents._MOST_BYTES", {".json": 10})
    with pytest.raises(BankError, match="far more than a description needs"):
        ModelBank.from_manifest(tmp_path / "bank.json")


def test_a_factory_s_sizes_are_bounded_by_the_weights(tmp_path):
    write_manifest(tmp_path, arguments={"widths": [4, 10**7]})
    (entry,) = ModelBank.from_folder(tmp_path)
    with pytest.raises(BankError, match=r"was stopped: .* far more than its file of weights"):
        entry.load()


def test_tensors_that_claim_more_than_the_file_holds_are_refused(tmp_path):
    """A stride of zero makes a tensor of any size from one number."""
    write_manifest(tmp_path)
    state = torch.load(tmp_path / "heart.pt", weights_only=True)
    key = next(iter(state))
    torch.save({**state, key: torch.zeros(1).expand(10**12)}, tmp_path / "heart.pt")
    (entry,) = ModelBank.from_folder(tmp_path)
    with pytest.raises(BankError, match=r"would take 3\.64 TiB of memory, more than"):
        entry.load()


@pytest.mark.parametrize(
    ("factory", "where"),
    [
        ("os:system", "Python's standard library"),
        ("numpy:load", "numpy"),
        ("joblib:load", "joblib"),
        ("pandas:read_pickle", "pandas"),
        ("skte.bank._weights:torch.load", "skte"),
        ("skte.bank._checkpoint:pickletools.genops", "skte"),
        ("skte.bank._documents:json.loads", "skte"),
    ],
)
def test_factories_that_read_files_are_refused(tmp_path, factory, where):
    """A manifest could name one of these, and a crafted file beside it."""
    marker = tmp_path / "was_run"
    torch.save({"x": Crafted({}, marker)}, tmp_path / "evil.bin")
    evil = {"f": str(tmp_path / "evil.bin"), "weights_only": False}
    with pytest.raises(BankError, match=f"is refused: it is part of {where}"):
        BankEntry("x", factory, arguments=evil).load()
    assert not marker.exists()


def test_layers_and_networks_of_libraries_are_factories():
    require_monai()
    arguments = {"in_channels": 1, "out_channels": 2, "kernel_size": 3}
    assert isinstance(BankEntry("x", "torch.nn:Conv3d", arguments=arguments).load(), nn.Conv3d)
    arguments = {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2}
    name, trust = "monai.networks.nets:resnet10", {"trusted_packages": ["monai.networks.nets"]}
    assert BankEntry("x", name, arguments=arguments, **trust).load()
    with pytest.raises(BankError, match=r"--trust-package monai\.networks\.nets\.resnet or"):
        BankEntry("x", name, arguments=arguments).load()
    assert BankEntry("x", "monai.networks.nets:VNet", arguments={"spatial_dims": 2}).load()
