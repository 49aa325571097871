"""Snapshots from a hub, which here is a server on this machine."""

import builtins

import pytest
import torch

from skte import ModelBank
from skte.bank import download_snapshot
from skte.exceptions import BankError
from tests.hub_server import SHA, hub_server
from tests.model_folders import require_monai, write_bundle

# Its client leaves a socket to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _client(monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def served(tmp_path):
    require_monai()
    folder, network = write_bundle(tmp_path / "server", name="phantoms")
    (folder / "setup.py").write_text("raise SystemExit('not to be downloaded')")
    (folder / "models" / "bank.json").write_text(
        '{"models": [{"name": "x", "factory": "a:b", "weights": "none"}]}'
    )
    return folder, network


@pytest.mark.slow
def test_a_snapshot_becomes_a_bank(served, tmp_path, monkeypatch):
    folder, network = served
    target = tmp_path / "bank" / "phantoms"
    with hub_server(folder, "lab/phantoms") as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert download_snapshot("lab/phantoms", target) == target
        weights = f"/lab/phantoms/resolve/{SHA}/models/model.pt"
        assert weights in asked
        asked.clear()
        download_snapshot("lab/phantoms", target, revision="main")
    assert not (target / "setup.py").exists()
    assert not (target / "models" / "bank.json").exists()  # it names code
    (entry,) = ModelBank.from_folder(tmp_path / "bank")
    state = network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in entry.load().state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../outside.pt", "/etc/outside.pt", "a/..\\..\\b.pt", "C:\\x.pt"])
def test_names_that_lead_out_are_refused(served, tmp_path, monkeypatch, name):
    target = tmp_path / "bank" / "phantoms"
    with hub_server(served[0], "lab/phantoms", (name,)) as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(BankError, match="is not plain text"):
            download_snapshot("lab/phantoms", target)
    assert not any("resolve" in path for path in asked)
    assert not target.exists()


def test_what_is_not_there_is_told(served, tmp_path, monkeypatch):
    with hub_server(served[0], "lab/phantoms") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(BankError, match=r"lab/none could not be downloaded .*HF_TOKEN"):
            download_snapshot("lab/none", tmp_path / "x")


@pytest.mark.parametrize("name", ["none", "a/b/c", "../x", "https://a/b", ""])
def test_names_of_repositories(tmp_path, name):
    with pytest.raises(BankError, match="must read 'owner/name'"):
        download_snapshot(name, tmp_path)


def test_the_package_is_asked_for(tmp_path, monkeypatch):
    importer = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "huggingface_hub":
            raise ImportError(name)
        return importer(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BankError, match=r"pip install skte\[hub\]"):
        download_snapshot("lab/phantoms", tmp_path)


@pytest.mark.slow
def test_what_describes_models_is_downloaded_and_what_names_code_is_not(tmp_path, monkeypatch):
    """However it is spelled."""
    wanted = {"Model.PT", "a/plans.json", "LICENSE", "x[1].safetensors"}
    code = ["Bank.yaml", "BANK.JSON", "a/bank.Yml", "b\uff41nk.yaml", ".hidden/x.json", "run.py"]
    for name in (*wanted, *code, "x.PTX"):
        (tmp_path / "server" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "server" / name).write_text("x")
    target = tmp_path / "bank"
    with hub_server(tmp_path / "server", "lab/x") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        download_snapshot("lab/x", target)
    found = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert {name for name in found if not name.startswith(".cache")} == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["../x.pt"], "is not plain text"),
        (["/x.pt"], "is not plain text"),
        (["a\\..\\x.pt"], "is not plain text"),
        (["C:x.pt"], "is not plain text"),
        (["a//x.pt"], "is not plain text"),
        (["a/./x.pt"], "is not plain text"),
        (["bank.yaml."], "is not plain text"),
        (["a /x.pt"], "is not plain text"),
        (["x" * 300 + ".pt"], "is not plain text"),
        (["/".join("a" * 50) + "/x.pt"], "is not plain text"),
        (["a\x1b[2K.pt"], "is not plain text"),
        (["a\nb.pt"], "is not plain text"),
        (["a\u202etp.pt"], "is not plain text"),
        (["CON.json"], "devices"),
        (["aux/x.pt"], "devices"),
        (["a.pt", "A.pt"], "is the same as 'a.pt'"),
        (["e\u0301.pt", "\u00e9.pt"], "is not plain text"),
    ],
)
def test_odd_names_refuse_the_whole_repository(names, match, tmp_path, monkeypatch):
    with hub_server(tmp_path / "server", "lab/x", tuple(names)) as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(BankError, match=match):
            download_snapshot("lab/x", tmp_path / "bank")
    assert not any("resolve" in path for path in asked)
