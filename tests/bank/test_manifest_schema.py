"""The published JSON Schema and the reader of manifests agree."""

import json
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from skte import BankEntry, ModelBank
from skte.cli import main
from skte.exceptions import BankError

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "_schema.py"  # the sdist has no docs
if not SCRIPT.exists():
    pytest.skip("the docs are not here", allow_module_level=True)
SCHEMA = Draft202012Validator(runpy.run_path(str(SCRIPT))["manifest_schema"]())
SMALL = {"name": "a", "factory": "skte.demo:small_unet", "weights": "none"}


def examples():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        blocks = re.findall(r"^```(?:yaml|json)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
        yield from (yaml.safe_load(block) for block in blocks if "models:" in block)


def refused(manifest, folder):
    """Whether reading refuses a manifest; every file that it names is there."""
    (folder / "a.pt").touch()
    (folder / "bank.json").write_text(json.dumps(manifest))
    try:
        ModelBank.from_manifest(folder / "bank.json", trusted_packages=["a"])
    except BankError:
        return True
    return False


def test_the_schema_is_one_and_published():
    Draft202012Validator.check_schema(SCHEMA.schema)
    published = json.loads((ROOT / "docs" / "_static" / "bank.schema.json").read_text("utf-8"))
    assert published == SCHEMA.schema, "run python docs/_schema.py"


def test_every_field_is_described():
    described = SCHEMA.schema["$defs"]["model"]["properties"]
    assert [*described] == [item.name for item in fields(BankEntry) if "trusted" not in item.name]
    assert all(len(field["description"]) > 20 for field in described.values())


def test_examples_of_the_documentation_are_accepted():
    found = list(examples())
    assert found
    for manifest in found:
        SCHEMA.validate(manifest)


def test_what_the_shell_writes_is_accepted(tmp_path, capsys):
    assert main(["bank", "init", str(tmp_path / "bank")]) == 0
    (example,) = (tmp_path / "bank").glob("*.yaml*")
    SCHEMA.validate(yaml.safe_load(example.read_text("utf-8")))


@pytest.mark.parametrize(
    "manifest",
    [
        [SMALL],
        {"models": [SMALL]},
        {"version": 1, "description": ["x"], "defaults": None, "models": [SMALL]},
        {"defaults": {"factory": "a.b:C", "weights": "none"}, "models": [{"name": "a"}]},
        {"defaults": {"weights": None}, "models": [SMALL]},
        *(
            {"models": [{**SMALL, **more}]}
            for more in (
                {"weights": "a.pt", "state_key": "model", "prefix": "net."},
                {"weights": "a.pt", "rename": {"^": "net.", ".fc1.": ".linear1."}},
                {"state_key": None, "activation": None, "window_size": None},
                {"layers": "encoder"},
                {"layers": ["a", "b"], "window_size": [8, 8], "spatial_dims": 2, "in_channels": 1},
                {"preprocessing": ["ToCanonical", {"name": "Resample", "target": [1, 1, 2]}]},
                {"preprocessing": [{"transform": "Clamp", "out_min": 0}, ["Pad", {"padding": 1}]]},
                {"arguments": {"x": [1]}, "provenance": {"y": None}, "source_head": False},
            )
        ),
    ],
    ids=lambda manifest: json.dumps(manifest)[:60],
)
def test_both_accept(manifest, tmp_path):
    SCHEMA.validate(manifest)
    assert not refused(manifest, tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {},
        {"models": []},
        {"models": {"a": SMALL}},
        {"models": [SMALL], "model": []},
        {"version": 2, "models": [SMALL]},
        {"defaults": [], "models": [SMALL]},
        {"defaults": {"name": "a"}, "models": [SMALL]},
        {"models": [{"name": "a"}]},
        [{"name": "a"}],
        [{"name": "a", "factory": "a:b"}],
        {"models": [{"name": "a", "factory": "a:b"}]},
        {"models": [{"factory": "a:b"}]},
        *(
            {"models": [{**SMALL, **more}]}
            for more in (
                {"wieghts": "a.pt"},
                {"trusted": True},
                {"name": " "},
                {"factory": "small_unet"},
                {"arguments": [1]},
                {"weights": ""},
                {"weights": None},
                {"weights": "a.pt", "state_key": 1},
                {"weights": "a.pt", "prefix": None},
                {"weights": "a.pt", "rename": {"": "net."}},
                {"weights": "a.pt", "rename": {"net.": None}},
                {"weights": "a.pt", "rename": {"a" * 301: ""}},
                {"weights": "a.pt", "rename": ["net."]},
                {"layers": "decoder"},
                {"layers": []},
                {"layers": ["a", "a"]},
                {"window_size": 0},
                {"window_size": [8]},
                {"window_size": 65_537},
                {"spatial_dims": 4},
                {"in_channels": 0},
                {"preprocessing": "ToCanonical"},
                {"preprocessing": ["Flip"]},
                {"preprocessing": [{"name": "Clamp", "out_mix": 0}]},
                {"preprocessing": [["Pad", {"pad": 1}]]},
                {"preprocessing": [1]},
                {"source_head": "yes"},
                {"activation": "relu"},
                {"provenance": "CT"},
            )
        ),
    ],
    ids=lambda manifest: json.dumps(manifest)[:90],
)
def test_both_refuse(manifest, tmp_path):
    assert not SCHEMA.is_valid(manifest)
    assert refused(manifest, tmp_path)
