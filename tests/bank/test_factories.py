"""What a manifest may name as a factory, and what that may do while it builds."""

import json
import os
import sys
from pathlib import Path

import pytest
from torch import nn

from skte import BankEntry, ModelBank
from skte.bank import load_bank
from skte.cli import main
from skte.exceptions import BankError
from tests.model_folders import require_monai

OWN = """
import functools, os, pathlib
from os import mkdir
from torch import load, nn
from skte.demo import small_unet
PATH = pathlib.Path("x")
hidden = functools.partial(functools.partial(os.mkdir), "skte-ran")
class Net(nn.Conv2d):
    @classmethod
    def small(cls):
        return cls(1, 2, 1)
def build():
    return small_unet(widths=(2, 4), n_classes=3)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the user's own module, a manifest to be, and a home of its own."""
    (tmp_path / "own_nets.py").write_text(OWN)
    (tmp_path / "acts_on_import.py").write_text("import os\nos.mkdir('skte-ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not Path("skte-ran").exists()
    assert "acts_on_import" not in sys.modules
    sys.modules.pop("own_nets", None)


def write(folder, factory, name="bank.json", **arguments):
    model = {"name": "a", "factory": factory, "arguments": arguments, "weights": "none"}
    defaults = {"window_size": 16}
    (folder / name).write_text(json.dumps({"defaults": defaults, "models": [model]}))
    return folder / name


@pytest.mark.parametrize(
    "factory",
    [
        "os:mkdir", "posix:mkdir", "builtins:exec", "functools:partial", "numpy:load",
        "joblib:load", "torch:load", "torch.hub:load", "torch.jit:load", "monai.bundle:load",
        "skte._files:write_text_atomically", "skte.bank._exported:exported_network",
        "skte.demo:write_msd", "skte.demo._train:torch.load", "skte:ModelBank.from_folder",
        "torch.nn:modules.module.torch.load", "torch.nn:Module.__init__", "torch.nn:Linear.mro",
        "torch.nn.modules.module:namedtuple", "torch.nn.init:normal_", "acts_on_import:build",
        "acts_on_import.inner:Net", "own_nets:build", "__main__:main", "torch.nn:\u2170",
    ],
)  # fmt: skip
def test_what_is_not_on_the_list_is_refused_and_not_run(place, factory):
    path = write(place, factory, path="skte-ran")
    with pytest.raises(BankError, match=r"factory .*(is refused|must read)"):
        load_bank(path)["a"].load()
    with pytest.raises(BankError, match=r"factory .*(is refused|must read)"):
        BankEntry("a", factory, arguments={"path": "skte-ran"}).load()
    assert "own_nets" not in sys.modules


@pytest.mark.parametrize(
    "name",
    ["mkdir", "os.mkdir", "hidden", "load", "PATH.mkdir", "build.__globals__.get", "Net.mro"],
)
def test_what_a_trusted_package_imports_is_not_trusted_with_it(place, name):
    path = write(place, f"own_nets:{name}", path="skte-ran")
    with pytest.raises(BankError, match="is refused"):
        load_bank(path, trusted_packages=["own_nets"])["a"].load()


def test_trust_is_given_by_each_door(place, capsys):
    path = write(place, "own_nets:build")
    with pytest.raises(BankError) as caught:
        load_bank(path)
    for option in ("--trust-package own_nets", "trusted_packages=['own_nets']", "skte bank init"):
        assert option in str(caught.value)
    trust = {"trusted_packages": ["own_nets"]}
    for bank in (
        load_bank(path, **trust),
        ModelBank.from_manifest(path, **trust),
        ModelBank.from_folder(place, **trust),
    ):
        assert bank["a"].load().head.out_channels == 3
    assert BankEntry("a", "own_nets:Net.small", **trust).load().out_channels == 2
    for command in (["bank", "list"], ["bank", "check"], ["inspect", "--bank"]):
        assert main([*command, str(path)]) == 2
        assert "--trust-package own_nets" in capsys.readouterr().err
        assert main([*command, str(path), "--trust-package", "own_nets"]) == 0


def test_listing_imports_nothing(place):
    path = write(place, "own_nets:build")
    assert main(["bank", "list", str(path), "--trust-package", "own_nets"]) == 0
    assert "own_nets" not in sys.modules


def test_trust_is_kept_for_a_bank_of_one_s_own(place, capsys):
    bank = place / "bank"
    assert main(["bank", "init", str(bank), "--trust-package", "own_nets"]) == 0
    assert str(place / "config" / "skte" / "trusted.json") in capsys.readouterr().out
    write(bank, "own_nets:build")
    assert main(["bank", "check", str(bank)]) == 0
    assert load_bank(bank)["a"].load().head.out_channels == 3
    assert load_bank(bank / "bank.json")["a"].load().head.out_channels == 3
    # Not of other banks, of models that were added, nor of other manifests beside it.
    (bank / "added").mkdir()
    for path in (
        write(bank / "added", "own_nets:build"),
        write(bank, "own_nets:build", name="other.json"),
        write(place, "own_nets:build"),
    ):
        with pytest.raises(BankError, match="is refused"):
            load_bank(path)
    copy = place / "copy"
    copy.mkdir()
    (copy / "bank.json").write_bytes((bank / "bank.json").read_bytes())
    with pytest.raises(BankError, match="is refused"):
        load_bank(copy / "bank.json")
    # One that is there already, and a manifest by its own name.
    assert main(["bank", "init", str(bank / "other.json"), "--trust-package", "own_nets"]) == 0
    assert load_bank(bank / "other.json")["a"].load().head.out_channels == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"/x": "own"}', '{"/x": ["os"]}'])
def test_a_broken_note_of_trust_is_named(place, text):
    (place / "config" / "skte").mkdir(parents=True)
    (place / "config" / "skte" / "trusted.json").write_text(text)
    with pytest.raises(BankError, match=r"trusted\.json, where trust in packages is kept"):
        load_bank(write(place, "skte.demo:small_unet"))


@pytest.mark.parametrize("key", ["trusted_packages", "trusted"])
def test_a_manifest_cannot_trust_itself(place, key):
    model = {"name": "a", "factory": "own_nets:build", "weights": "none", key: ["own_nets"]}
    for content in ({"models": [model]}, {"defaults": {key: ["own_nets"]}, "models": [model]}):
        (place / "bank.json").write_text(json.dumps(content))
        with pytest.raises(
            BankError, match=f"'{key}' is refused: a file cannot declare itself trusted"
        ):
            load_bank(place / "bank.json")


@pytest.mark.parametrize("packages", ["own_nets", ["os"], ["skte"], ["numpy.lib"], ["a b"], [3]])
def test_what_cannot_be_trusted(place, packages):
    with pytest.raises(BankError, match="trusted_packages"):
        load_bank(write(place, "skte.demo:small_unet"), trusted_packages=packages)
    with pytest.raises(BankError, match="trusted_packages"):
        BankEntry("a", "skte.demo:small_unet", trusted_packages=packages)


def test_trust_and_roots_are_about_paths():
    with pytest.raises(BankError, match="about a path"):
        load_bank({"a": nn.Conv2d(1, 2, 1)}, trusted_packages=["own_nets"])


def test_a_library_s_name_in_the_current_folder_is_not_the_library(place):
    name = "segmentation_models_pytorch"
    if name in sys.modules:
        pytest.skip("it is imported already")
    (place / f"{name}.py").write_text("import os\nos.mkdir('skte-ran')\n")
    with pytest.raises(BankError, match="from the current folder"):
        load_bank(write(place, f"{name}:Unet"))["a"].load()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": True}),
        ("DenseNet121", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2,
                         "pretrained": True}),
        ("HoVerNet", {"pretrained_url": "file:///etc/passwd"}),
    ],
)  # fmt: skip
def test_allowed_classes_touch_no_files_and_no_network(place, name, arguments, monkeypatch):
    require_monai()
    monkeypatch.setenv("TORCH_HOME", str(place / "hub"))
    path = write(place, f"monai.networks.nets:{name}", **arguments)
    with pytest.raises(BankError, match=r"was stopped: while it built the network it tried to"):
        load_bank(path)["a"].load()
    assert not (place / "hub").exists()
    assert os.listdir(place)  # and files may be read again


def test_sizes_are_bounded_without_weights(place):
    path = write(place, "torch.nn:Linear", in_features=10**7, out_features=10**7)
    with pytest.raises(BankError, match="was stopped: its arguments ask for tensors"):
        load_bank(path)["a"].load()


def test_what_a_constructor_computes_is_bounded(place):
    require_monai()
    path = write(
        place, "monai.networks.nets:SwinUNETR", in_channels=1, out_channels=2, window_size=180
    )
    with pytest.raises(BankError, match=r"was stopped: its arguments ask for tensors of 7.* TiB"):
        load_bank(path)["a"].load()


@pytest.mark.slow
def test_a_sample_of_the_benchmark_holds(tmp_path, monkeypatch):
    factories = pytest.importorskip("benchmarks.reliability._factories")
    require_monai()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    factories.prepare(tmp_path)
    chosen = [(name, {}, (), False) for names in factories.ATTACKS.values() for name in names]
    for attack in [*chosen[::5], *((*one, True) for one in factories.SOUND)]:
        found = factories.try_name(tmp_path, *attack)
        assert not found
