"""Keys of cached features: every setting that changes features counts, no text of our code does."""

import importlib
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torchio as tio
from torch import nn

import skte
from skte import BankEntry, SegmentationFeatureExtractor
from skte._digests import version_of, versioned  # no public name tells versions
from skte.datasets import make_phantoms
from skte.demo import write_msd
from tests.model_folders import write_bundle, write_nnunet

# What the parameter is beside, and another value of it.
COUNTS = {
    "entry": ({}, None),  # each of its fields: tests/bank/test_digest.py
    "layers": ({}, ("0", "1")),
    "window_size": ({}, 6),
    "overlap": ({}, 0.5),
    "samples": ({}, "foreground"),
    "source_head": ({}, False),
    "n_class_samples": ({}, 20),
    "n_case_samples": ({}, 20),
    "taper": ({}, False),
    "random_state": ({}, 1),
}
DOES_NOT = {"batch_size": 2, "device": "cpu", "cache": None}
PARAMETERS = list(inspect.signature(SegmentationFeatureExtractor).parameters)


for room in pkgutil.iter_modules(skte.__path__, "skte."):
    if room.ispkg:
        importlib.import_module(room.name)


def own_classes(base):
    found = [base]
    for kind in found:
        found += [child for child in kind.__subclasses__() if child not in found]
    return [kind for kind in found if kind.__module__.startswith("skte.")]


OWN = [*own_classes(tio.Transform), *own_classes(nn.Module)]


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(1, size=(10, 10, 10))


@pytest.fixture(scope="module")
def entry():
    network = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Conv3d(3, 2, 1))
    return BankEntry.from_module("a", network)


def keys(folder, entry, cases, **params):
    """Names of what an extraction leaves in a new cache."""
    extractor = SegmentationFeatureExtractor(
        entry, **{"layers": ("0",), "window_size": 8, "cache": folder, **params}
    )
    extractor.fit_transform(cases)
    return {file.name for file in folder.rglob("*") if len(file.stem) == 64}


def test_every_parameter_is_listed():
    assert sorted(PARAMETERS) == sorted([*COUNTS, *DOES_NOT])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PARAMETERS if name in COUNTS])
def test_a_setting_that_changes_features_counts(name, entry, cases, tmp_path):
    beside, value = COUNTS[name]
    if name == "entry":
        network = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.Conv3d(3, 2, 1))
        beside, value = {}, BankEntry.from_module("a", network)
    before = keys(tmp_path / "a", entry, cases, **beside)
    changed = {"entry": entry, **beside, name: value}
    after = keys(tmp_path / "b", changed.pop("entry"), cases, **changed)
    assert {Path(key).suffix for key in before} == {".skf", ".json"}
    assert len(before) == len(after) == 2
    assert not before & after


@pytest.mark.parametrize("name", [n for n in PARAMETERS if n in DOES_NOT and n != "cache"])
def test_a_setting_that_changes_the_time_only_does_not_count(name, entry, cases, tmp_path):
    before = keys(tmp_path / "a", entry, cases)
    after = keys(tmp_path / "b", entry, cases, **{name: DOES_NOT[name]})
    assert after
    assert after <= before


@pytest.fixture
def trained_models(tmp_path):
    """A folder with a model of nnU-Net and a bundle; neither network is ever built."""
    parts = {"seg_layers": nn.ModuleList([nn.Conv3d(1, 3, 1)])}
    network = nn.ModuleDict({"decoder": nn.ModuleDict(parts)})
    write_nnunet(tmp_path / "models", network=network)
    write_bundle(tmp_path / "models", network=network)
    return tmp_path / "models"


def digests(models, data):
    """Digests of entries made of skte's own factories and transforms, and of cases."""
    import torch

    from skte.bank import BankEntry, ModelBank, entry_digest
    from skte.datasets import case_fingerprint, load_dataset, make_phantoms
    from skte.demo import small_unet

    torch.manual_seed(0)
    entries = [
        BankEntry("a", "skte.demo:small_unet", preprocessing=["ToCanonical"]),
        BankEntry("a", small_unet, arguments={"widths": (4, 8)}),
        BankEntry.from_module("a", small_unet(widths=(4, 8))),
        *ModelBank.from_folder(models),
    ]
    cases = [*load_dataset(data), make_phantoms(1, size=(8, 8, 8))[0]]
    return [*map(entry_digest, entries), *map(case_fingerprint, cases)]


@pytest.mark.slow
def test_an_edit_or_a_move_of_our_own_code_keeps_every_key(tmp_path, trained_models):
    """A copy with a remark in every file, and the transforms in files of other names."""
    copy = tmp_path / "new" / "skte"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(skte.__file__).parent, copy, ignore=ignored)
    moved = {
        file.stem for kind in OWN for file in copy.rglob(f"{kind.__module__.split('.')[-1]}.py")
    }
    text = {file: file.read_text("utf-8") + "\n# A remark.\n" for file in copy.rglob("*.py")}
    for file, content in text.items():
        content = re.sub(rf"\.({'|'.join(moved)})\b(?= import)", r".\1_moved", content)
        file.unlink()
        name = f"{file.stem}_moved" if file.stem in moved else file.stem
        file.with_name(f"{name}.py").write_text(content, "utf-8")
    data = write_msd(tmp_path / "data", make_phantoms(2, size=(8, 8, 8)), "tiny")
    script = f"import sys, skte\n{inspect.getsource(digests)}\nprint(skte, *digests(*sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(trained_models), str(data)],
        capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(copy.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = digests(trained_models, data)
    assert str(copy) in done.stdout
    assert done.stdout.split()[-len(here) :] == here
    # Without its package nnU-Net's network has no key.
    n_known = 8 if find_spec("dynamic_network_architectures") else 7
    assert len({*here} - {None}) == n_known


@pytest.mark.parametrize("kind", OWN)
def test_our_own_transforms_and_networks_have_versions(kind):
    """What stands in keys by its source would cost every cache at each edit."""
    assert version_of(kind)
    same = [other for other in OWN if version_of(other) == version_of(kind)]
    assert same == [kind]


def test_versions_are_not_inherited():
    @versioned("base", 1)
    class Base: ...

    class Child(Base): ...

    assert version_of(Base) == "base, version 1"
    assert version_of(Child) is None
