"""One digest for one recipe: in every process, for nothing but what decides the features."""

import dataclasses
import functools
import importlib
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import torchio as tio
from torch import nn

from skte.bank import BankEntry, digest_problem, entry_digest
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.exceptions import BankError

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, act=None, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 2, 3)
        self.act = act or nn.ReLU()
        self.scale = scale
        self.register_buffer("shift", torch.zeros(2), persistent=False)
        self.kinds = {f"kind {i}" for i in range(20)}  # no two processes agree on their order
        self.blocks = [nn.Linear(2, 2)]
    def forward(self, x):
        return self.act(self.conv(x)) * self.scale

def clip(x):
    return x.clamp(0, 1)

def build(**arguments):
    return Net(**arguments)
"""

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import torchio as tio
from nets_of_test import Net, build, clip
from skte.bank import BankEntry, entry_digest
steps = [clip, tio.Compose([tio.ZNormalization(masking_method=tio.ZNormalization.mean)])]
print(entry_digest(BankEntry.from_module("a", Net(), preprocessing=steps)))
print(entry_digest(BankEntry("a", build, arguments={"scale": 2.0})))
trust = {"trusted_packages": ["nets_of_test"]}
print(entry_digest(BankEntry("a", "nets_of_test:build", preprocessing=["ToCanonical"], **trust)))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module of a user's, imported from a file."""
    (tmp_path / "nets_of_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("nets_of_test")
    del sys.modules["nets_of_test"]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    torch.save(small_unet().state_dict(), tmp_path / "a.pt")
    return tmp_path / "a.pt"


def entry(name="a", factory="skte.demo:small_unet", **fields):
    return BankEntry(name, factory, **fields)


@pytest.mark.slow
def test_digests_are_the_same_in_every_process(nets, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    steps = [nets.clip, tio.Compose([tio.ZNormalization(masking_method=tio.ZNormalization.mean)])]
    here = [
        entry_digest(BankEntry.from_module("a", nets.Net(), preprocessing=steps)),
        entry_digest(BankEntry("a", nets.build, arguments={"scale": 2.0})),
        entry_digest(
            BankEntry(
                "a",
                "nets_of_test:build",
                trusted_packages=["nets_of_test"],
                preprocessing=["ToCanonical"],
            )
        ),
    ]
    assert done.stdout.split() == here
    assert len(set(here)) == 3
    assert all(len(digest) == 64 for digest in here)


def test_a_name_does_not_count_where_weights_do(weights):
    first, second = entry("a", weights=weights), entry("b", weights=weights, provenance={"x": 1})
    assert entry_digest(first) == entry_digest(second)
    assert entry_digest(entry("a")) != entry_digest(entry("b"))
    assert entry_digest(entry("a")) == entry_digest(entry("a", provenance={"x": object()}))


def test_content_of_weights_counts_and_their_place_does_not(weights, tmp_path):
    before = entry_digest(entry(weights=weights))
    (tmp_path / "b.pt").write_bytes(weights.read_bytes())
    assert entry_digest(entry(weights=tmp_path / "b.pt")) == before
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)  # the same size, and perhaps the same time
    assert entry_digest(entry(weights=weights)) != before


def test_weights_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(BankError, match=r"Entry 'a': weights: .*none\.pt cannot be read"):
        entry_digest(entry(weights=tmp_path / "none.pt"))


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": {"widths": (4, 8)}},
        {"arguments": {"widths": [4, 8]}},
        {"layers": ["decoder.0"]},
        {"window_size": 16},
        {"window_size": (16, 16, 16)},
        {"spatial_dims": 3},
        {"in_channels": 1},
        {"preprocessing": ["ToCanonical"]},
        {"preprocessing": [("Resample", {"target": 1})]},
        {"preprocessing": [("Resample", {"target": 2})]},
        {"preprocessing": [tio.EnsureShapeMultiple(4)]},
        {"preprocessing": [tio.EnsureShapeMultiple(8)]},
        {"preprocessing": [tio.Compose([tio.Pad(1), tio.Pad(2)])]},
        {"preprocessing": [tio.Compose([tio.Pad(2), tio.Pad(1)])]},
        {"preprocessing": [torch.relu]},
        {"preprocessing": [nn.functional.relu]},
        {"preprocessing": [functools.partial(torch.mul, other=2)]},
        {"preprocessing": [functools.partial(torch.mul, other=3)]},
        {"source_head": False},
        {"activation": None},
        {"activation": "sigmoid"},
        {"factory": "torch.nn:Conv3d"},
        {"factory": small_unet},
    ],
    ids=lambda fields: next(iter(fields)),  # values print with addresses
)
def test_every_setting_counts(fields):
    digest = entry_digest(entry(**fields))
    assert digest is not None
    assert digest != entry_digest(entry())
    assert digest == entry_digest(entry(**fields))
    known = _SEEN.setdefault(digest, str(fields))
    assert known == str(fields)


_SEEN = {}


def test_state_key_and_prefix_count(weights):
    plain = entry_digest(entry(weights=weights))
    assert entry_digest(entry(weights=weights, state_key="model")) != plain
    assert entry_digest(entry(weights=weights, prefix="module.")) != plain
    assert entry_digest(entry(weights=weights, rename={"^": "module."})) != plain


@pytest.mark.parametrize("change", ["Net(scale=2.0)", "Net(nn.LeakyReLU())", "Net(nn.ELU(0.5))"])
def test_settings_of_a_network_at_hand_count(change, nets):
    changed = eval(change, vars(nets))
    before = entry_digest(BankEntry.from_module("a", nets.Net()))
    assert before == entry_digest(BankEntry.from_module("b", nets.Net()))
    assert entry_digest(BankEntry.from_module("a", changed)) not in (before, None)


@pytest.mark.parametrize("tensor", ["conv.weight", "shift", "blocks"])
def test_tensors_of_a_network_at_hand_count(tensor, nets):
    network = nets.Net()
    before = entry_digest(BankEntry.from_module("a", network))
    with torch.no_grad():
        if tensor == "blocks":  # in a plain list, where torch does not see it
            network.blocks[0].weight += 1
        else:
            dict([*network.named_parameters(), *network.named_buffers()])[tensor].view(-1)[0] += 1
    assert entry_digest(BankEntry.from_module("a", network)) not in (before, None)


def test_running_and_training_change_nothing(nets):
    network = nets.Net()
    live = BankEntry.from_module("a", network)
    before = entry_digest(live)
    network.train()(torch.zeros(1, 1, 4, 4, 4))
    assert entry_digest(live) == before


def test_an_edit_of_the_code_counts(nets, tmp_path):
    entries = [
        BankEntry("a", "nets_of_test:build", trusted_packages=["nets_of_test"]),
        BankEntry("a", nets.build),
        BankEntry.from_module("a", nets.Net()),
        BankEntry("a", "skte.demo:small_unet", preprocessing=[nets.clip]),
    ]
    before = [entry_digest(item) for item in entries]
    (tmp_path / "nets_of_test.py").write_text(MODULE.replace("clamp(0, 1)", "clamp(0, 2)"))
    assert not {*map(entry_digest, entries)} & {*before}


def test_files_beside_a_package_count(tmp_path, monkeypatch):
    package = tmp_path / "package_of_test"
    package.mkdir()
    (package / "__init__.py").write_text("from package_of_test.nets import build")
    (package / "nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = BankEntry("a", "package_of_test:build", trusted_packages=["package_of_test"])
    before = entry_digest(recipe)
    (package / "nets.py").write_text(MODULE.replace("0, 1", "0, 2"))
    assert entry_digest(recipe) != before
    assert "package_of_test" not in sys.modules


def test_a_factory_that_cannot_be_found_has_a_digest(monkeypatch):
    monkeypatch.setitem(sys.modules, "module_without_spec", types.ModuleType("no_spec"))
    # Whether it can be built is another question, which loading answers.
    for module in ("no_such_package_here.nets", "monai.no.such.module", "module_without_spec"):
        assert entry_digest(BankEntry("a", f"{module}:build", trusted_packages=[module]))


class Odd:
    def __call__(self, x):
        return x


def hooked():
    network = nn.Conv3d(1, 1, 1)
    network.register_forward_hook(lambda *_: None)
    return network


class HoldsLambda(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = lambda x: x


def looped():
    values = []
    values.append(values)
    return values


def local_function():
    def step(x):
        return x

    return step


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (lambda: entry(preprocessing=[lambda x: x]), "preprocessing: .*<lambda> has no name"),
        (lambda: entry(preprocessing=[local_function()]), "preprocessing: .* has no name"),
        (lambda: entry(preprocessing=[tio.Lambda(lambda x: x)]), "preprocessing: .*<lambda>"),
        (lambda: entry(preprocessing=[Odd()]), "preprocessing: .* is a Odd"),
        (lambda: entry(preprocessing=[[].append]), "preprocessing: .* belongs to an object"),
        (lambda: entry(factory=lambda: nn.Conv3d(1, 1, 1)), "factory: .*<lambda>"),
        (lambda: entry(arguments={"a": object()}), "arguments: .* is a object"),
        (lambda: entry(arguments={"a": np.array([None])}), "arguments: an array of objects"),
        (lambda: entry(arguments={"a": looped()}), "holds itself"),
        (lambda: BankEntry.from_module("a", hooked()), "factory: .* has hooks"),
        (lambda: BankEntry.from_module("a", HoldsLambda()), "factory: .*<lambda>"),
        (
            lambda: entry(arguments={"a": torch.empty(1, device="meta")}),
            "arguments: a tensor holds no plain values",
        ),
    ],
)
def test_what_has_no_stable_form_has_a_reason(recipe, reason):
    recipe = recipe()
    assert entry_digest(recipe) is None
    assert re.search(reason, digest_problem(recipe))


def test_functions_of_a_notebook_stand_in_no_file():
    space = {"__name__": "notebook_of_test"}
    exec(compile("def step(x): return x", "/tmp/ipykernel/none.py", "exec"), space)
    assert "move it from the notebook" in digest_problem(entry(preprocessing=[space["step"]]))


@dataclasses.dataclass
class Config:
    widths: tuple = (4, 8)

    def scale(self, x):
        return x


class ShowsAddress(nn.Module):
    def extra_repr(self):
        return object.__repr__(self)


def test_dataclasses_and_methods_are_described_by_what_they_hold():
    for fields in (
        lambda widths: {"arguments": {"config": Config(widths)}},
        lambda widths: {"preprocessing": [Config(widths).scale]},
    ):
        digests = [entry_digest(entry(**fields(widths))) for widths in ((4, 8), (4, 8), (4, 9))]
        assert digests[0] == digests[1] != digests[2]
        assert None not in digests


def test_a_network_that_shows_addresses_has_no_digest():
    assert "addresses" in digest_problem(BankEntry.from_module("a", ShowsAddress()))


def test_what_has_a_digest_has_no_problem():
    assert digest_problem(entry(arguments={"a": np.float32(1), "b": {1, 2}})) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        tio.CropOrPad(16),
        tio.ZNormalization(),
        tio.RescaleIntensity((0, 1)),
        tio.Resample(2),
        tio.Compose([tio.ToCanonical(), tio.Clamp(0, 1)]),
        tio.HistogramStandardization({"image": np.linspace(0, 100, 13)}),
    ],
    ids=lambda step: type(step).__name__,
)
def test_using_a_transform_does_not_change_its_digest(step):
    recipe = entry(preprocessing=[step])
    before = entry_digest(recipe)
    step(make_phantoms(1, size=(16, 16, 16))[0])
    assert entry_digest(recipe) == before is not None


def test_a_file_that_a_transform_reads_counts(tmp_path):
    subject = make_phantoms(1, size=(8, 8, 8))[0]
    recipe = entry(preprocessing=[tio.Resample(str(tmp_path / "a.nii"))])
    subject["image"].save(tmp_path / "a.nii")
    before = entry_digest(recipe)
    subject["image"].set_data(subject["image"].data + 1)
    subject["image"].save(tmp_path / "a.nii")
    assert entry_digest(recipe) not in (before, None)


@pytest.mark.parametrize("name", ["BasicUNet", "UNETR", "DynUNet", "SegResNet", "VNet"])
def test_networks_of_monai_have_a_digest(name):
    nets = pytest.importorskip("monai.networks.nets")
    arguments = {
        "BasicUNet": {"spatial_dims": 2, "features": (4, 4, 4, 4, 4, 4)},
        "UNETR": {"in_channels": 1, "out_channels": 2, "img_size": 32, "hidden_size": 12,
                  "mlp_dim": 12, "num_heads": 2, "feature_size": 2},
        "DynUNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "filters": [2, 4, 8],
                    "kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]},
        "SegResNet": {"spatial_dims": 2, "init_filters": 8},
        "VNet": {"spatial_dims": 2},
    }[name]  # fmt: skip
    live = BankEntry.from_module("a", getattr(nets, name)(**arguments))
    assert digest_problem(live) is None
    recipe = BankEntry("a", f"monai.networks.nets:{name}", arguments=arguments)
    assert len({entry_digest(live), entry_digest(recipe)}) == 2


def test_code_below_folders_without_init_counts(tmp_path, monkeypatch):
    """Namespace packages are looked into, and none is imported."""
    module = tmp_path / "outer_of_test" / "middle" / "inner" / "nets.py"
    module.parent.mkdir(parents=True)
    module.write_text("def build(): ...")
    monkeypatch.syspath_prepend(tmp_path)
    entry = BankEntry(
        "a", "outer_of_test.middle.inner.nets:build", trusted_packages=["outer_of_test"]
    )
    before = entry_digest(entry)
    assert before is not None
    module.write_text("def build(): 1")
    assert entry_digest(entry) != before
    assert "outer_of_test" not in sys.modules
