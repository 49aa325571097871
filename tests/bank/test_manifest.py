"""Manifests: the whole of a good one, every problem of a bad one."""

import builtins
import json
import os
import time

import pytest
import torch

from skte import ModelBank
from skte.demo import small_unet
from skte.exceptions import BankError

FULL = """
version: 1
description: Small networks.
defaults:
  factory: skte.demo:small_unet
  arguments: {widths: [4, 8]}
  preprocessing:
    - ToCanonical
    - {name: Resample, target: [1.0, 1.0, 2.0]}
    - name: ZNormalization
      masking_method: mean
models:
  - name: heart
    weights: weights/heart.pt
    state_key: state_dict
    prefix: net.
    layers: [decoder.0]
    window_size: [16, 16, 8]
    spatial_dims: 3
    in_channels: 1
    source_head: false
    activation: sigmoid
    provenance: {dataset: hearts, licence: CC0}
  - name: scratch
    weights: none
    preprocessing: []
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "weights").mkdir()
    state = {f"net.{k}": v for k, v in small_unet(widths=(4, 8)).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "weights" / "heart.pt")
    return tmp_path


def read(folder, text, name="bank.yaml"):
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return ModelBank.from_manifest(path)


def problems(folder, text, **kwargs):
    with pytest.raises(BankError) as caught:
        read(folder, text, **kwargs)
    return str(caught.value)


def model(**fields):
    known = {"name": "a", "factory": "skte.demo:small_unet", "weights": "none"}
    return {"models": [{**known, **fields}]}


def as_json(content, folder, name="bank.json"):
    return problems(folder, content, name=name)


def test_a_full_manifest(folder, monkeypatch):
    bank = read(folder, FULL)
    assert bank.names == ("heart", "scratch")
    heart = bank["heart"]
    assert heart.weights == folder / "weights" / "heart.pt"
    assert heart.window_size == (16, 16, 8)
    assert heart.layers == ("decoder.0",)
    assert (heart.spatial_dims, heart.in_channels) == (3, 1)
    assert (heart.source_head, heart.activation) == (False, "sigmoid")
    assert heart.provenance == {"dataset": "hearts", "licence": "CC0"}
    assert [name for name, _ in heart.preprocessing] == [
        "ToCanonical",
        "Resample",
        "ZNormalization",
    ]
    assert heart.transform()[1].target == (1.0, 1.0, 2.0)
    assert bank["scratch"].transform() is None
    assert bank["scratch"].weights is None
    state = torch.load(folder / "weights" / "heart.pt", weights_only=True)["state_dict"]
    monkeypatch.chdir(os.sep)  # paths hold wherever a worker runs
    assert torch.equal(heart.load().head.weight, state["net.head.weight"])


def test_relative_manifests_give_absolute_paths(folder, monkeypatch):
    (folder / "bank.yaml").write_text(FULL)
    monkeypatch.chdir(folder)
    assert ModelBank.from_manifest("bank.yaml")["heart"].weights.is_absolute()


def test_json_says_the_same(folder):
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load(FULL)
    assert read(folder, content, name="bank.json") == read(folder, FULL)
    assert read(
        folder,
        content["defaults"] and [{**content["defaults"], **m} for m in content["models"]],
        name="list.json",
    ) == read(folder, FULL)


def test_every_problem_is_listed_at_once(folder):
    content = {
        "version": 2,
        "modles": [],
        "defaults": {"name": "x"},
        "models": [
            {"factory": "skte.demo:small_unet", "weigths": "a.pt", "name": "a"},
            {"name": "a", "weights": "weights/none.pt"},
            {
                "name": "b",
                "factory": "skte.demo.small_unet",
                "window_size": 0,
                "preprocessing": [
                    "ToCanonicl",
                    {"name": "RandomFlip"},
                    {"name": "Resample", "targt": 1},
                    {"name": "Clamp", "out_min": 3, "out_max": 1},
                ],
            },
            "c",
            {"name": 4, "factory": "skte.demo:small_unet"},
        ],
    }
    message = as_json(content, folder)
    for part in (
        "has 18 problems",
        "version is 2; this release of skte reads version 1",
        "unknown key 'modles'; did you mean 'models'?",
        "defaults cannot set 'name'",
        "model 1 ('a'): unknown key 'weigths'; did you mean 'weights'?",
        "model 1 ('a'): 'weights' is missing: name their file, or write 'weights: none'",
        "model 2 ('a'): 'factory' is missing",
        "model 2 ('a'): weights 'weights/none.pt': there is no such file",
        "model 3 ('b'): factory 'skte.demo.small_unet' must read 'package.module:function'",
        "model 3 ('b'): window_size must be",
        "unknown transform 'ToCanonicl'; did you mean 'ToCanonical'",
        "'RandomFlip' is refused: it is a random augmentation",
        "preprocessing Resample: unknown parameter 'targt'; did you mean 'target'?",
        "preprocessing Clamp: ",
        "model 4: must map fields to values, got 'c'",
        "name must be text that is not empty, got 4",
        "names must be distinct; repeated: ['a']",
    ):
        assert part in message
    assert str(folder / "bank.json") in message


@pytest.mark.parametrize(
    "weights",
    ["../secret.pt", "weights/../../x.pt", "/etc/passwd", "C:\\x.pt", "..\\x.pt", "\\\\host\\x"],
)
def test_paths_may_not_leave_the_folder(folder, weights):
    message = as_json(model(weights=weights), folder)
    assert "is refused: a path must stay inside the manifest's folder" in message
    assert "BankEntry(..., weights=path)" in message


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({}, "models must be a list of at least one model, got None"),
        ({"models": []}, "at least one model"),
        ({"models": {"a": {}}}, "models must be a list"),
        ([], "at least one model"),
        (3, "under the key 'models'"),
        ({"defaults": [1], **model()}, "defaults must map"),
        (model(name=None), "name must be text"),
        (model(factory="os:system"), "standard library"),
        (model(preprocessing=5), "preprocessing must be a list"),
        (model(preprocessing=[5]), "5 is not a step"),
        (model(weights=None), "'weights' is missing: .* write 'weights: none' if"),
        (model(layers="decoder.0"), r"write \['decoder.0'\]"),
    ],
)
def test_single_problems(folder, content, match):
    with pytest.raises(BankError, match=match):
        read(folder, content, name="bank.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [("bank.yaml", "models: [a: {"), ("bank.json", "{"), ("bank.yml", "when: 2001-99-99")],
)
def test_files_that_do_not_parse(folder, name, text):
    assert "is not valid" in problems(folder, text, name=name)


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("bank.yaml", "models:\n- {name: a, factory: 'x:y', name: b}", "name"),
        ("bank.yaml", "models: []\nmodels: []", "models"),
        ("bank.json", '{"models": [{"name": "a", "factory": "x:y", "name": "b"}]}', "name"),
    ],
)
def test_a_key_may_not_stand_twice(folder, name, text, key):
    assert f"the key '{key}' occurs twice" in problems(folder, text, name=name)


@pytest.mark.parametrize(
    "text",
    [
        "defaults: &base {factory: skte.demo:small_unet}\nmodels: [{<<: *base, name: x}]",
        "models:\n- {name: a, factory: skte.demo:small_unet, arguments: &a {widths: *a}}",
        "defaults: &d {arguments: *d}\nmodels: [c]",
    ],
)
def test_aliases_are_refused_with_what_to_write_instead(folder, text):
    assert "aliases (*) are not read; write the value out, or use 'defaults'" in problems(
        folder, text
    )


@pytest.mark.parametrize("name", ["bank.json", "bank.yaml"])
def test_a_byte_order_mark_is_skipped(folder, name):
    assert read(folder, "\ufeff" + json.dumps(model()), name=name).names == ("a",)


@pytest.mark.parametrize("weights", ["a" * 5000, "a\0b", "\ud800"])
def test_weights_of_a_name_that_no_file_can_have(folder, weights):
    message = as_json(model(weights=weights), folder)
    assert "there is no such file in the manifest's folder" in message
    assert len(message) < 600


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "bank.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BankError, match="cannot be read"):
        ModelBank.from_manifest(path)
    with pytest.raises(BankError, match="name the file in this folder"):
        ModelBank.from_manifest(tmp_path)
    for name in ("bank", "bank.txt", "bank.json"):  # what is missing needs no better ending
        with pytest.raises(BankError, match=f"There is no manifest .*{name}"):
            ModelBank.from_manifest(tmp_path / "nowhere" / name)


def test_yaml_tags_run_nothing(folder):
    text = "models: !!python/object/apply:os.mkdir [was_run]"
    assert "is not valid YAML" in problems(folder, text)


def test_without_pyyaml_the_extra_is_named(folder, monkeypatch):
    original = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == "yaml":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    assert r"pip install skte[cli]" in problems(folder, FULL)
    assert read(folder, model(), name="bank.json").names == ("a",)


def test_reading_imports_and_builds_nothing(folder):
    path = folder / "bank.json"
    path.write_text(json.dumps(model(factory="no.such.package:build")))
    entry = ModelBank.from_manifest(path, trusted_packages=["no.such"])["a"]
    with pytest.raises(BankError, match=r"Entry 'a': .*no module 'no'"):
        entry.load()


def keys(n):
    return "{" + ",".join(f'"{i}":1' for i in range(n)) + "}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("bank.json", keys(300_000), "unknown key '0'"),
        ("bank.json", "{" + " " * 2**22 + "}", "far more than a description needs"),
        ("bank.json", keys(300_000)[:-1] + ',"7":1}', "the key '7' occurs twice"),
        ("bank.json", '{"' + "k" * 10**6 + '": 1}', "unknown key 'kkk"),
        ("bank.json", "[" * 10**6, "nested too deep"),
        ("bank.json", '{"a":' * 200 + "1" + "}" * 200, "nested deeper than 100"),
        ("bank.json", "9" * 10**6, "is not valid JSON"),
        ("bank.json", "[" + "{}," * 10**6 + "{}]", "more than 50 problems"),
        ("bank.json", json.dumps({"models": ["x" * 10**6] * 4}), "must map fields"),
        ("bank.json", json.dumps({"models": [{}] * 50_000}), "more than 50 problems"),
        ("bank.json", json.dumps({"version": "x" * 10**6, "models": []}), "version is"),
        ("bank.yaml", "a: " + ":".join(["1"] * 90_000), "a number of"),
        ("bank.yaml", "a: " + ":".join(["1"] * 400) + ".5", "is not valid YAML"),
        ("bank.yaml", "# " + "x" * 10**6, "far more than a description needs"),
        ("bank.yaml", "[" * 100_000, "nested too deep"),
    ],
    ids=lambda value: str(value)[:40],  # workers and reports carry them
)
def test_a_hostile_description_ends_in_a_short_message(folder, name, text, match):
    message = problems(folder, text, name=name)
    assert match in message
    assert len(message) < 60_000


def test_a_repeated_key_is_found_in_linear_time(folder):
    """Processor time, not the clock's: a comparison per pair of keys takes minutes of it."""
    text = json.dumps({str(i): i for i in range(60_000)})
    start = time.process_time()
    assert "occurs twice" in problems(folder, text[:-1] + ', "0": 0}', name="bank.json")
    assert time.process_time() - start < 10


def test_defaults_are_not_copied_without_end(folder):
    content = {
        "defaults": {"arguments": {"x": list(range(20_000))}, "factory": "skte.demo:small_unet"},
        "models": [{"name": str(i)} for i in range(100)],
    }
    assert "defaults hold too many values" in as_json(content, folder)


def test_what_is_no_regular_file_is_refused(folder):
    os.mkfifo(folder / "bank.json")
    with pytest.raises(BankError, match="is not a regular file"):
        ModelBank.from_manifest(folder / "bank.json")
