"""``skte bank``: make, fill, list and check a folder of models."""

import json
import os
import sys

import pytest
import torch

from skte.cli import main
from skte.demo import small_unet
from tests.hub_server import hub_server
from tests.model_folders import require_monai, write_bundle, write_nnunet


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
    assert "already exists and is not empty" in error
    code, _, error = run(capsys, "bank", "list", bank)
    assert code == 2
    assert "holds no model that can be used" in error


@pytest.mark.slow
def test_models_are_added_listed_and_checked(dna, bank, tmp_path, capsys):
    require_monai()
    folder, _ = write_nnunet(tmp_path / "results")
    (folder / "fold_0" / "validation").mkdir()
    (folder / "fold_0" / "validation" / "case.nii.gz").write_bytes(b"x")
    for name in (
        "checkpoint_best.pth", "checkpoint_latest.pth", "progress.png", "debug.json",
        "training_log_2026_1_1.txt", "../dataset_fingerprint.json",
    ):  # fmt: skip
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
    assert "spleen: 3-D, input channels: 1," in out


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
    torch.save({"w": torch.ones(1)}, bundle / "models" / "model.pt")
    (bank / "spleen_bundle" / "models" / "model.pt").write_bytes(
        (bundle / "models" / "model.pt").read_bytes()
    )
    code, out, error = run(capsys, "bank", "check", bank)
    assert code == 1
    assert "spleen_bundle: cannot be used" in out
    assert "do not fit the model" in error


def names_in(bank, capsys):
    code, out, _ = run(capsys, "bank", "list", bank, "--json")
    assert code == 0  # nothing that cannot be read
    return [model["name"] for model in json.loads(out)["models"]]


def test_a_folder_adds_what_can_be_read(dna, bank, tmp_path, capsys):
    results = tmp_path / "results"
    write_nnunet(results, dataset="Dataset001_A", folds=(0, 1))
    write_nnunet(results, dataset="Dataset002_B", seed=2)
    broken, _ = write_nnunet(results, dataset="Dataset003_C")
    (broken / "fold_0" / "checkpoint_final.pth").write_bytes(b"x")
    (results / "loose.pt").write_bytes(b"x")
    a, b = (f"Dataset00{name}-3d_fullres-fold_" for name in ("1_A", "2_B"))
    code, out, error = run(capsys, "bank", "add", bank, results)
    assert (code, out) == (1, f"added {a}0\nadded {a}1\nadded {b}0\n")
    assert "problem: Dataset003_C/" in error
    assert "problem: loose.pt: " in error
    assert names_in(bank, capsys) == [f"{a}0", f"{a}1", f"{b}0"]
    before = sorted(bank.rglob("*"))
    code, _, error = run(capsys, "bank", "add", bank, results)
    assert (code, sorted(bank.rglob("*"))) == (2, before)
    assert "already exists" in error
    code, _, error = run(capsys, "bank", "add", bank, broken)
    assert (code, sorted(bank.rglob("*"))) == (2, before)
    assert "copy or download it again" in error


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "/etc"])
def test_a_copy_stays_inside_the_bank(bank, tmp_path, capsys, name):
    (tmp_path / "x.pt").write_bytes(b"x")
    code, _, error = run(capsys, "bank", "add", bank, tmp_path / "x.pt", "--as", name)
    assert code == 2
    assert "must be the name of a folder" in error


@pytest.mark.parametrize("more", [(), ("--as", "copy")])
@pytest.mark.parametrize("source", [".", "bank", "bank/../bank"])
def test_a_bank_is_not_copied_into_itself(bank, tmp_path, capsys, monkeypatch, source, more):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, _, error = run(capsys, "bank", "add", "bank", source, *more)
    assert code == 2
    assert "holds the bank bank itself" in error
    assert sorted(tmp_path.rglob("*")) == before


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
    assert "already exists" in error
    code, _, error = run(capsys, "bank", "add", tmp_path / "loose.pt", tmp_path / "loose.pt")
    assert code == 2
    assert "is a file" in error


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_folder_is_ranked(dna, bank, tmp_path, data, capsys):
    require_monai()
    run(capsys, "bank", "add", bank, write_nnunet(tmp_path / "results")[0])
    run(capsys, "bank", "add", bank, write_bundle(tmp_path)[0])
    code, out, _ = run(capsys, "rank", "--bank", bank, "--data", data, "--json", "--device", "cpu")
    assert code == 0
    assert sorted(row["name"] for row in json.loads(out) if not row["reference"]) == [
        "Dataset007_Phantom-3d_fullres-fold_0",
        "spleen_bundle",
    ]


def test_every_action_speaks_json(tmp_path, capsys):
    require_monai()
    code, out, _ = run(capsys, "bank", "init", tmp_path / "bank", "--json")
    assert (code, json.loads(out)) == (0, {"bank": str(tmp_path / "bank")})
    bundle, _ = write_bundle(tmp_path)
    (bundle / "extra").mkdir()
    code, out, _ = run(capsys, "bank", "add", tmp_path / "bank", bundle, "--json")
    added = {"added": ["spleen_bundle"], "not_understood": {}}
    assert (code, json.loads(out)) == (0, added)
    (tmp_path / "bank" / "graph.onnx").write_bytes(b"x")
    for command in (["bank", "list"], ["bank", "check"], ["inspect", "--bank"]):
        code, out, error = run(capsys, *command, tmp_path / "bank", "--json")
        found = json.loads(out)
        assert code == 1
        assert [model["name"] for model in found["models"]] == ["spleen_bundle"]
        assert list(found["not_understood"]) == ["graph.onnx"]
        assert error.startswith("skte: problem: graph.onnx: ")


@pytest.mark.slow
def test_a_ranking_that_lacks_models_says_so(write_bank, tmp_path, data, capsys):
    write_bank("a", "b")
    (tmp_path / "graph.onnx").write_bytes(b"x")
    command = ("rank", "--bank", tmp_path, "--data", data, "--json", "--no-reference")
    code, out, error = run(capsys, *command, "--quiet")
    assert sorted(row["name"] for row in json.loads(out)) == ["a", "b"]
    assert code == 1
    (line,) = error.splitlines()
    assert line.startswith("skte: problem: graph.onnx: ")


class Crafted:
    """Unpickled, it makes a folder, and is a state dict."""

    def __init__(self, weights, marker):
        self.parts = weights, str(marker)

    def __reduce__(self):
        return crafted, self.parts


def crafted(weights, marker):
    os.makedirs(marker, exist_ok=True)  # as often as it is read
    return weights


def craft(path, marker):
    content = torch.load(path, weights_only=False)
    content = content if "network_weights" in content else {"state_dict": content}
    (key,) = content.keys() & {"network_weights", "state_dict"}
    torch.save({**content, key: Crafted(content[key], marker)}, path)


@pytest.mark.slow
def test_trust_is_given_to_one_model_of_a_folder(dna, bank, tmp_path, data, capsys):
    names = []
    for seed, dataset in enumerate(("Dataset001_A", "Dataset002_B")):
        folder, _ = write_nnunet(bank, dataset=dataset, seed=seed)
        craft(folder / "fold_0" / "checkpoint_final.pth", tmp_path / f"{dataset}_ran")
        names.append(folder.relative_to(bank).as_posix())
    for command in (
        ("bank", "list", bank),
        ("bank", "check", bank),
        ("inspect", "--bank", bank),
        ("rank", "--bank", bank, "--data", data, "--device", "cpu"),
    ):
        code, _, error = run(capsys, *command)
        assert code == 2
        assert "test_bank.crafted" in error
        assert "give --trusted NAME" in error
        assert not list(tmp_path.glob("*_ran"))
        code, _, error = run(capsys, *command, "--trusted", "Dataset001_A")
        assert code == 2
        assert "trusted names ['Dataset001_A']" in error
        assert names[0] in error  # what may be named
        assert not list(tmp_path.glob("*_ran"))
        code, _, error = run(capsys, *command, "--trusted", names[1], "--json")
        assert code == 1
        assert [path.name for path in tmp_path.glob("*_ran")] == ["Dataset002_B_ran"]
        assert f"problem: {names[0]}: " in error
        (tmp_path / "Dataset002_B_ran").rmdir()


@pytest.mark.slow
def test_trust_is_given_to_one_entry_of_a_manifest(write_bank, tmp_path, capsys):
    path = write_bank("a", "b", state_key="state_dict", window_size=16)
    for name in ("a", "b"):
        craft(tmp_path / f"{name}.pt", tmp_path / f"{name}_ran")
    for where in (path, tmp_path):
        code, out, error = run(capsys, "bank", "check", where, "--json")
        assert code == 1
        assert error.count("give --trusted NAME") == 2
        assert all("error" in model for model in json.loads(out)["models"])
        assert not list(tmp_path.glob("*_ran"))
        code, out, _ = run(capsys, "bank", "check", where, "--json", "--trusted", "b")
        assert code == 1
        assert ["error" in model for model in json.loads(out)["models"]] == [True, False]
        assert [marker.name for marker in tmp_path.glob("*_ran")] == ["b_ran"]
        (tmp_path / "b_ran").rmdir()
        code, _, error = run(capsys, "bank", "list", where, "--trusted", "c")
        assert code == 2
        assert "trusted names ['c']" in error
        assert "['a', 'b']" in error
    repeated = ("--trusted", "a", "--trusted", "b")
    assert run(capsys, "bank", "check", path, *repeated)[0] == 0


def test_what_is_added_can_be_trusted_by_its_path_in_the_bank(dna, bank, tmp_path, capsys):
    folder, _ = write_nnunet(tmp_path / "results")
    craft(folder / "fold_0" / "checkpoint_final.pth", tmp_path / "ran")
    assert run(capsys, "bank", "add", bank, folder)[0] == 2
    assert not (tmp_path / "ran").exists()
    name = f"{folder.parent.name}/{folder.name}"
    code, out, _ = run(capsys, "bank", "add", bank, folder, "--trusted", name)
    assert (code, out) == (0, "added Dataset007_Phantom-3d_fullres-fold_0\n")
    assert (tmp_path / "ran").is_dir()
    # Nothing keeps the trust.
    assert run(capsys, "bank", "list", bank)[0] == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda state: {"epoch": 3, "net": state}, "In the manifest, write state_key: 'net'."),
        (
            lambda state: {f"model.{key}": value for key, value in state.items()},
            "in the manifest, write prefix: 'model.'.",
        ),
    ],
)
def test_the_shell_shows_what_to_write_into_a_manifest(write_bank, tmp_path, capsys, content, told):
    path = write_bank("a")
    torch.save(content(torch.load(tmp_path / "a.pt")), tmp_path / "a.pt")
    code, _, error = run(capsys, "bank", "check", path)
    assert code == 1
    assert told in error


def test_trust_needs_a_bank(data, capsys):
    code, _, error = run(capsys, "inspect", data, "--trusted", "a")
    assert code == 2
    assert "give --bank as well" in error


@pytest.mark.slow
def test_a_manifest_is_added_with_what_it_names_and_nothing_else(write_bank, tmp_path, capsys):
    manifest = write_bank("a", "b")
    (tmp_path / "other.pt").write_bytes(b"not named")
    (tmp_path / "notes.yaml").write_text("private: true")
    for number, source in enumerate((manifest, manifest.parent)):
        bank = tmp_path.parent / f"{tmp_path.name}-bank{number}"
        assert main(["bank", "add", str(bank), str(source), "--as", "mine"]) == 0
        assert "added a\nadded b" in capsys.readouterr().out
        assert sorted(path.name for path in (bank / "mine").iterdir()) == [
            "a.pt", "b.pt", "bank.json",
        ]  # fmt: skip
        assert main(["bank", "check", str(bank)]) == 0
        capsys.readouterr()


@pytest.mark.slow
def test_a_factory_of_ones_own_is_found_where_the_user_says(write_bank, tmp_path, capsys):
    name = "nets_of_my_own"
    (tmp_path / f"{name}.py").write_text(
        "from skte.demo import small_unet\ndef build(**a):\n    return small_unet(**a)\n"
    )
    command = ["bank", "check", str(write_bank("a", factory=f"{name}:build"))]
    assert main(command) == 2  # as before: nothing is trusted by lying there
    capsys.readouterr()
    assert main([*command, "--trust-package", name]) == 2
    assert f"add --factory-path {tmp_path}" in capsys.readouterr().err
    assert name not in sys.modules
    assert main([*command, "--factory-path", str(tmp_path)]) == 2  # a path is no trust
    before = sys.path.copy()
    both = ["--trust-package", name, "--factory-path", str(tmp_path)]
    assert main([*command, *both]) == 0
    assert sys.path == before
    del sys.modules[name]
