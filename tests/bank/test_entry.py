"""Entries: recipes that validate, load the same network anywhere, and copy cheaply."""

import copy
import pickle
import signal

import numpy as np
import pytest
import torch
import torchio as tio
from sklearn.base import clone
from torch import nn

from skte import BankEntry
from skte.exceptions import BankError, SkteError

FACTORY = "skte.demo:small_unet"


class Reader:
    """Stands for an estimator that holds an entry."""

    def __init__(self, entry=None):
        self.entry = entry

    def get_params(self, deep=True):
        return {"entry": self.entry}


def build(width=2, *, fail=False):
    if fail:
        raise RuntimeError("out of luck")
    return nn.Conv2d(1, width, 1)


def test_every_wrong_field_is_listed_at_once():
    with pytest.raises(BankError) as caught:
        BankEntry(
            "bad",
            "no-colon",
            arguments=[1],
            weights=3,
            state_key=1,
            prefix=None,
            layers="dec1",
            window_size=(8, 0),
            spatial_dims=4,
            in_channels=True,
            preprocessing="ToCanonical",
            source_head="yes",
            activation="relu",
            provenance="web",
        )
    message = str(caught.value)
    assert message.startswith("Entry 'bad': ")
    for part in (
        "factory 'no-colon' must read 'package.module:function'",
        "arguments must map names to values, got [1]",
        "weights must be the path of a file",
        "state_key must be text",
        "prefix must be text",
        'layers must be "auto", "encoder" or a list; write [\'dec1\']',
        "window_size must be one, two or three positive integers (voxels), got (8, 0)",
        "spatial_dims must be 2, 3 or left out",
        "in_channels must be a positive integer or left out, got True",
        "preprocessing must be a list of steps, got 'ToCanonical'",
        "source_head must be true or false",
        "activation must be 'softmax', 'sigmoid' or null",
        "provenance must map names to values",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"name": ""}, "name must be text that is not empty"),
        ({"name": 3}, "name must be text"),
        ({"name": "\ud800"}, r"name holds control, .* characters, got '\\ud800'"),
        ({"name": "a\nb"}, r"name holds control, .* characters, got 'a\\nb'; rename"),
        ({"name": "a\u202eb"}, "name holds control, .* characters"),
        ({"name": "a" * 501}, "name is longer than 500 characters"),
        ({"factory": nn.Identity()}, r"BankEntry\.from_module"),
        ({"factory": 3}, "must be a callable"),
        ({"layers": []}, "layers must be"),
        ({"layers": ["a", "a"]}, "names a layer twice"),
        ({"layers": [1]}, "list of module names"),
        ({"layers": "decoder"}, "decoder is chosen for all models alike, with --layers decoder or"),
        ({"window_size": (8, 8, 8, 8)}, "window_size"),
        ({"window_size": 0}, "window_size"),
        ({"window_size": "8"}, "window_size"),
        ({"spatial_dims": True}, "spatial_dims"),
        ({"spatial_dims": 3.0}, "spatial_dims must be 2, 3 or left out, got 3.0"),
        ({"window_size": 10**9}, "window_size must be edges in voxels, at most 65536"),
        ({"window_size": (8.7, 8, 8)}, "window_size must be one, two or three positive"),
        ({"state_key": "model"}, "set weights"),
        ({"prefix": "module."}, "set weights"),
        ({"arguments": {1: 2}}, "arguments"),
    ],
)
def test_wrong_fields(fields, match):
    with pytest.raises(BankError, match=match):
        BankEntry(**{"name": "a", "factory": build, **fields})


@pytest.mark.parametrize("size", [None, 8, (8, 8), [8, 8, 4]])
def test_windows_are_kept_as_tuples(size):
    expected = tuple(size) if isinstance(size, list) else size
    assert BankEntry("a", build, window_size=size).window_size == expected


def test_recipes_do_not_change_with_what_they_were_made_of():
    arguments, layers = {"width": 2}, ["x"]
    entry = BankEntry("a", build, arguments=arguments, layers=layers)
    arguments["width"] = 3
    layers.append("y")
    assert entry.load().out_channels == 2
    assert entry.layers == ("x",)
    with pytest.raises(AttributeError):
        entry.name = "b"


def test_load_builds_anew_and_the_same_whatever_the_seed():
    entry = BankEntry("a", FACTORY, arguments={"widths": (2, 4)})
    torch.manual_seed(1)
    first = entry.load()
    state = torch.get_rng_state()
    second = entry.load()
    assert torch.equal(state, torch.get_rng_state())
    assert first is not second
    assert torch.equal(first.head.weight, second.head.weight)
    other = BankEntry("b", FACTORY, arguments={"widths": (2, 4)}).load()
    assert not torch.equal(first.head.weight, other.head.weight)


def test_load_gives_eval_mode_and_float32():
    network = BankEntry("a", lambda: nn.Sequential(build(), nn.Dropout()).double()).load()
    assert not network.training
    assert network[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("factory", "arguments", "match"),
    [
        (build, {"fail": True}, "Entry 'a': factory build failed .*RuntimeError: out of luck"),
        (build, {"widht": 3}, "TypeError.*widht"),
        (dict, {}, "returned a dict, not an nn.Module"),
        ("skte.demo:small_unit", {}, r"has no 'small_unit' \(did you mean 'small_unet'"),
        ("skte.dmeo:small_unet", {}, r"part of skte, .* \(did you mean 'skte.demo'"),
        ("torhc.nn:Conv2d", {}, r"'torhc.nn' is not a network .*did you mean 'torch.nn'"),
        ("timm.modelz:a", {}, r"did you mean 'timm.models'"),
        ("skte.demo:deeper.still", {}, "only public classes"),
    ],
)
def test_factories_that_fail_say_why(factory, arguments, match):
    with pytest.raises(BankError, match=match):
        BankEntry("a", factory, arguments=arguments).load()


@pytest.mark.parametrize("body", ["import missing_thing", "1 / 0"])
def test_a_module_that_cannot_be_imported(tmp_path, monkeypatch, body):
    (tmp_path / "my_models.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BankError, match=r"missing_thing|ZeroDivisionError"):
        BankEntry("a", "my_models:build", trusted_packages=["my_models"]).load()


@pytest.mark.parametrize("code", ["sys.exit(0)", "raise SystemExit"])
def test_factories_that_exit_end_no_run(tmp_path, monkeypatch, code):
    text = f"import sys\ndef build():\n    {code}\n"
    (tmp_path / "exit_called.py").write_text(text)
    (tmp_path / "exit_imported.py").write_text(text + "build()\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("exit_called", "exit_imported"):
        with pytest.raises(BankError, match=f"Entry 'a': factory .*{module}:build.* SystemExit"):
            BankEntry("a", f"{module}:build", trusted_packages=[module]).load()


def test_the_user_s_interrupt_passes_and_a_factory_s_own_is_its_failure():
    # A suite in the background ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted():
        signal.raise_signal(signal.SIGINT)

    def interrupting():
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            BankEntry("a", interrupted).load()
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(SkteError, match="Entry 'a': the model raised KeyboardInterrupt"):
        BankEntry("a", interrupting).load()


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "builtins:exec", "posix:mkdir"])
def test_the_standard_library_is_refused_unseen(name):
    with pytest.raises(BankError, match="standard library"):
        BankEntry("a", name, arguments={"command": "true"})


@pytest.mark.parametrize("name", ["torch.hub:os.system", "torch.hub:shutil.rmtree"])
def test_the_standard_library_is_refused_through_other_modules(name):
    with pytest.raises(BankError, match="standard library"):
        BankEntry("a", name, trusted_packages=["torch.hub"]).load()
    with pytest.raises(BankError, match="not a network library"):
        BankEntry("a", name)


@pytest.mark.parametrize("name", ["a", "a:", ":b", "a:b:c", "a b:c", "a:b()", "../a:b", "a.:b"])
def test_ill_formed_names(name):
    with pytest.raises(BankError, match=r"package\.module:function"):
        BankEntry("x", name)


def test_a_class_or_method_may_be_a_factory(tmp_path, monkeypatch):
    text = """
import functools
from torch import nn
class Net(nn.Conv2d):
    @classmethod
    def small(cls):
        return cls(1, 2, 1)
wide = functools.partial(nn.Conv2d, 1, 9)
"""
    (tmp_path / "own_models.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    trust = {"trusted_packages": ["own_models"]}
    assert BankEntry("a", "own_models:Net.small", **trust).load().out_channels == 2
    entry = BankEntry("a", "own_models:wide", arguments={"kernel_size": 1}, **trust)
    assert entry.load().out_channels == 9


def test_a_live_module_is_returned_as_it_is():
    network = nn.Sequential(build(), nn.Dropout()).double().train()
    before = copy.deepcopy(network.state_dict())
    entry = BankEntry.from_module("a", network, layers=["0"], window_size=8)
    assert entry.load() is network
    assert entry.factory() is network
    assert network.training
    assert network[0].weight.dtype == torch.float64
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert entry.layers == ("0",)
    assert "Sequential at hand" in repr(entry)


@pytest.mark.parametrize("field", ["arguments", "weights", "state_key", "prefix"])
def test_a_live_module_takes_no_weights(field):
    value = {"a": 1} if field == "arguments" else "x"
    with pytest.raises(BankError, match=f"{field} cannot be set"):
        BankEntry.from_module("a", build(), **{field: value})


@pytest.mark.parametrize(
    ("network", "match"),
    [
        (nn.Sequential(nn.LazyConv2d(2, 1)), "lazy modules.*run the network once"),
        (nn.Conv2d(1, 2, 1, device="meta"), "meta device"),
    ],
    ids=["lazy", "meta"],
)
def test_networks_without_weights_are_refused(network, match):
    with pytest.raises(BankError, match=f"Entry 'a': .*{match}"):
        BankEntry.from_module("a", network)
    with pytest.raises(BankError, match=f"Entry 'a': .*{match}"):
        BankEntry("a", lambda: network).load()


def test_from_module_wants_a_module():
    with pytest.raises(BankError, match=r"expected an nn\.Module, got function"):
        BankEntry.from_module("a", build)


def test_copies_are_the_entry_itself_and_clone_works():
    entry = BankEntry.from_module("a", build())
    assert copy.deepcopy(entry) is entry
    assert copy.deepcopy([entry])[0] is entry
    assert clone(Reader(entry)).entry is entry


def test_entries_travel():
    entry = BankEntry(
        "a",
        FACTORY,
        arguments={"widths": (2, 4)},
        preprocessing=["ToCanonical", tio.Clamp(0, 1), np.abs],
        provenance={"source": "here"},
    )
    other = pickle.loads(pickle.dumps(entry))
    assert torch.equal(other.load().head.weight, entry.load().head.weight)
    assert len(other.transform()) == 3
    live = BankEntry.from_module("live", build(3))
    loaded = pickle.loads(pickle.dumps(live)).load()
    assert torch.equal(loaded.weight, live.load().weight)


def test_equality_and_hash():
    network = build()
    live = BankEntry.from_module("a", network)
    assert live == BankEntry.from_module("a", network)
    assert live != BankEntry.from_module("a", build())
    assert len({live.factory, BankEntry.from_module("b", network).factory}) == 1
    assert len({live, BankEntry.from_module("a", network)}) == 1
    assert BankEntry("a", build) != BankEntry("a", build, window_size=8)
    named = BankEntry("a", FACTORY, preprocessing=["ToCanonical"])
    assert named == pickle.loads(pickle.dumps(named))
    assert named == BankEntry("a", FACTORY, preprocessing=[{"name": "ToCanonical"}])


def test_arrays_among_the_arguments_are_compared_as_wholes():
    def make(widths, more=()):
        return BankEntry("a", FACTORY, arguments={"widths": widths, "more": [*more]})

    entry = make(np.array([4, 8]), [torch.ones(2), {"x": np.eye(2)}])
    assert entry == make(np.array([4, 8]), [torch.ones(2), {"x": np.eye(2)}])
    assert entry in [make(np.array([4, 8])), entry]
    for other in (
        make(np.array([4, 9]), [torch.ones(2), {"x": np.eye(2)}]),
        make(np.array([4.0, 8]), [torch.ones(2), {"x": np.eye(2)}]),
        make(np.array([4, 8]), [torch.ones(2), {"x": np.eye(3)}]),
        make([4, 8], [torch.ones(2), {"x": np.eye(2)}]),
        make(np.array([4, 8])),
        "a",
    ):
        assert entry != other
