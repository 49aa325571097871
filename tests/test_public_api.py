"""What can be imported, from where, and that it is documented."""

import importlib
import inspect
import tomllib
from pathlib import Path

import pytest

import skte

ROOT = Path(__file__).parents[1]  # of the project, which may not be where skte is
ROOMS = [
    "bank", "cli", "datasets", "demo", "estimators", "evaluation", "exceptions",
    "extraction", "features", "metrics", "report", "selection",
]  # fmt: skip
NAMES = [
    "BankEntry", "CCFV", "FeatureBlock", "FeatureSet", "GBC", "LEEP", "LogME", "ModelBank",
    "ModelBankSelector", "SegmentationFeatureExtractor", "TransRate",
    "TransferabilityEstimator", "weighted_kendall_score",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_promised_names_stand_at_the_root(name):
    assert name in skte.__all__
    assert getattr(skte, name).__module__.startswith("skte.")


def test_every_estimator_stands_at_the_root():
    assert set(importlib.import_module("skte.estimators").__all__) <= set(skte.__all__)


def test_dataset_loaders():
    datasets = importlib.import_module("skte.datasets")
    promised = {"load_msd", "load_nnunet_raw", "load_folder", "load_dataset", "make_phantoms"}
    assert promised <= set(datasets.__all__)


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_all_is_sorted_complete_and_documented(room):
    module = importlib.import_module(f"skte.{room}" if room else "skte")
    assert module.__doc__
    assert list(module.__all__) == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_hide_their_files(room):
    folder = Path(skte.__file__).parent / room
    public = [p.name for p in folder.glob("*.py") if not p.name.startswith("_")]
    assert public == []


def test_version_is_in_the_changelog_and_citation():
    assert f"## [{skte.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"version: {skte.__version__}" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_extras_used_by_the_cli_are_in_its_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    assert {r.split(">")[0] for r in extras["cli"]} <= {r.split(">")[0] for r in extras["test"]}


def test_readme_starts_with_the_two_commands():
    blocks = (ROOT / "README.md").read_text("utf-8").split("```bash\n")[1:]
    assert len(blocks) == 2
    assert "skte demo" in blocks[0].split("```")[0]
    assert "pytest" in blocks[1].split("```")[0]
