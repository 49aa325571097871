"""Each reader of models: an example, a broken one, a row in the docs; and foreign readers."""

import importlib.metadata
import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from skte import BankEntry, ModelBank
from skte.bank import Reader, all_readers
from skte.cli import main
from skte.exceptions import BankError, SkteWarning
from tests.bank.test_nnssl import write_nnssl
from tests.model_folders import require_dna, require_monai, write_bundle, write_nnunet

DOCS = (Path(__file__).parents[2] / "docs/how-to/banks.md").read_text("utf-8")


def write_manifest(folder):
    model = {"name": "unet", "factory": "skte.demo:small_unet", "weights": "none"}
    (folder / "bank.yaml").write_text(json.dumps({"models": [model]}))
    return folder / "bank.yaml"


def write_exported(folder):
    program = torch.export.export(nn.Sequential(nn.Conv2d(1, 2, 1)), (torch.zeros(1, 1, 8, 8),))
    torch.export.save(program, folder / "program.pt2")
    return folder / "program.pt2"


def write_nnunet_folder(folder):
    require_dna()
    return write_nnunet(folder)[0]


def write_nnssl_folder(folder):
    require_dna()
    return write_nnssl(folder)[0]


def write_monai_bundle(folder):
    require_monai()
    return write_bundle(folder)[0]


#: A new reader needs a line here: writes an example and returns its place; breaks it; what the
#: message says then.
EXAMPLES = {
    "manifest bank.yaml": (
        write_manifest,
        lambda path: path.write_text('{"models": [{"name": "unet"}]}'),
        "'factory' is missing",
    ),
    "nnssl": (
        write_nnssl_folder,
        lambda path: (path / "adaptation_plan.json").write_text("{}"),
        "not of the form that nnssl writes",
    ),
    "nnU-Net v2": (
        write_nnunet_folder,
        lambda path: (path / "plans.json").write_text("{}"),
        "no 'configurations'",
    ),
    "MONAI bundle": (
        write_monai_bundle,
        lambda path: (path / "configs/inference.json").write_text("{}"),
        "has no network",
    ),
    "exported program": (
        write_exported,
        lambda path: path.write_bytes(b"PK"),
        "the file is truncated",
    ),
}

NAMES = [
    pytest.param(name, marks=[pytest.mark.dna] if name == "nnU-Net v2" else [])
    for name in all_readers()
]


def example_of(name):
    if name not in EXAMPLES:
        pytest.fail(f"add an example of {name!r} to EXAMPLES of {__file__}", pytrace=False)
    return EXAMPLES[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_reader_has_an_example_that_loads(name, tmp_path):
    place = example_of(name)[0](tmp_path)
    trusted = [place.relative_to(tmp_path).as_posix()] if place.suffix == ".pt2" else []
    (entry,) = ModelBank.from_folder(tmp_path, trusted=trusted)
    assert isinstance(entry.load(), nn.Module)
    told = "format" in entry.provenance or name == "manifest bank.yaml"
    assert told, "skte bank list shows provenance['format'] of an entry: give it one"


@pytest.mark.parametrize("name", NAMES)
def test_every_reader_says_what_is_wrong(name, tmp_path):
    write, damage, message = example_of(name)
    place = write(tmp_path)
    damage(place)
    where = place.relative_to(tmp_path).as_posix()
    trusted = [where] if place.suffix == ".pt2" else []
    with pytest.raises(BankError, match=rf"(?s)- {where}: .*{message}"):
        ModelBank.from_folder(tmp_path, trusted=trusted)


@pytest.mark.parametrize("name", all_readers())
def test_every_reader_is_in_the_table_of_the_docs(name):
    table = DOCS.partition("## What is found")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| (.*?) \|", table, re.M)
    assert name in listed, f"add a row for {name!r} under 'What is found' of docs/how-to/banks.md"


@pytest.mark.parametrize("name", all_readers())
def test_every_reader_is_in_the_help_of_the_shell(name, capsys):
    with pytest.raises(SystemExit):
        main(["bank", "add", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert name in shown.replace("- ", "-")  # lines end after a hyphen


def test_a_folder_without_models_names_all_formats(tmp_path):
    with pytest.raises(BankError) as error:
        ModelBank.from_folder(tmp_path)
    assert all(f"no {name}" in str(error.value) for name in all_readers())


class Tool:
    """A reader as another package would have it."""

    name = "my tool"

    def matches(self, path):
        if path.name == "fails":
            raise ValueError("bad luck")
        return path.suffix == ".mytool"

    def read(self, path, options):
        text = path.read_text()
        if text == "broken":
            raise BankError("model.mytool is broken; write it again")
        if text == "one":
            return BankEntry("one", "skte.demo:small_unet")
        if text == "text":
            return ["a model"]
        if text == "own code":
            return [BankEntry(text, lambda: nn.Conv2d(1, 2, 1))]
        weights = path.parent / f"{text}.pt" if text in ("weights", "gone") else None
        return [BankEntry(text, "skte.demo:small_unet", weights=weights, trusted=options.trusted)]


def declare(monkeypatch, **values):
    """Let other packages declare these entry points."""
    points = []
    for name, value in values.items():
        point = importlib.metadata.EntryPoint(name, f"{__name__}:{value}", "skte.readers")
        points.append(point)
    monkeypatch.setattr("skte._registry.entry_points", lambda group: points)


tool, not_a_reader = Tool(), object()


def test_a_reader_of_another_package_is_asked(tmp_path, monkeypatch):
    assert isinstance(tool, Reader)
    declare(monkeypatch, mine="tool")
    assert list(all_readers())[-1] == "my tool"
    (tmp_path / "model.mytool").write_text("foreign")
    bank = ModelBank.from_folder(tmp_path, trusted=["model.mytool"])
    assert bank.names == ("foreign",)
    assert bank["foreign"].trusted
    (tmp_path / "other.mytool").write_text("broken")
    (tmp_path / "fails").mkdir()
    with pytest.warns(
        SkteWarning, match=r"(?s)write it again.*fails: its reader 'my tool'.*bad luck"
    ):
        assert ModelBank.from_folder(tmp_path).names == ("foreign",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one", "'BankEntry' object is not iterable"),
        ("text", "returned 'a model', which is not a BankEntry"),
        ("weights", "weights.pt leads to .*outside the folder"),
    ],
)
def test_what_a_reader_of_another_package_returns_is_checked(text, message, tmp_path, monkeypatch):
    declare(monkeypatch, mine="tool")
    bank, outside = tmp_path / "bank", tmp_path / "outside.pt"
    bank.mkdir()
    (bank / "model.mytool").write_text(text)
    torch.save({"w": torch.zeros(1)}, outside)
    (bank / "weights.pt").symlink_to(outside)
    with pytest.raises(BankError, match=rf"model\.mytool: .*{message}"):
        ModelBank.from_folder(bank)
    (bank / "model.mytool").write_text("foreign")
    with pytest.warns(SkteWarning, match="weights.pt"):  # a link that leads out
        assert ModelBank.from_folder(bank).names == ("foreign",)


@pytest.mark.parametrize("text", ["own code", "gone"])  # no digest; no file
def test_a_foreign_model_that_cannot_be_compared_is_added(text, tmp_path, monkeypatch, capsys):
    declare(monkeypatch, mine="tool")
    for folder in ("bank", "source"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.mytool").write_text(text)
    assert main(["bank", "add", str(tmp_path / "bank"), str(tmp_path / "source")]) == 0
    assert capsys.readouterr().out == f"added {text}\n"


@pytest.mark.parametrize("value", ["not_a_reader", "missing"])
def test_a_broken_entry_point_is_one_warning_that_names_it(value, tmp_path, monkeypatch):
    declare(monkeypatch, theirs=value)
    write_manifest(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ModelBank.from_folder(tmp_path).names == ("unet",)
    (warning,) = [w for w in caught if issubclass(w.category, SkteWarning)]
    assert f"'theirs' of the group 'skte.readers' ({__name__}:{value})" in str(warning.message)


def test_no_reader_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "reader_of_nobody.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr("skte._registry.entry_points", lambda group: [])
    own = all_readers()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    point = importlib.metadata.EntryPoint("x", "reader_of_nobody:reader", "skte.readers")
    monkeypatch.setattr("skte._registry.entry_points", lambda group: [point])
    with pytest.warns(SkteWarning, match="would be imported from the current folder"):
        found = all_readers()
    assert list(found) == list(own)
