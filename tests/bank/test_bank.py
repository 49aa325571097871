"""Banks: order, names, and everything that can become one."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from skte import BankEntry, ModelBank
from skte.bank import load_bank
from skte.exceptions import BankError

A, B = (BankEntry(name, "skte.demo:small_unet") for name in "ab")


def test_a_bank_is_a_sequence_found_by_name_too():
    bank = ModelBank([B, A])
    assert bank.names == ("b", "a")
    assert list(bank) == [B, A]
    assert len(bank) == 2
    assert bank["a"] is A
    assert bank[np.int64(-1)] is A
    assert bank[:1] == ModelBank([B])
    assert "a" in bank
    assert A in bank
    assert "c" not in bank
    assert repr(bank) == "ModelBank(['b', 'a'])"
    assert pickle.loads(pickle.dumps(bank)) == bank
    assert copy.deepcopy(bank)[0] is B
    assert hash(bank) == hash(ModelBank([B, A]))
    assert bank != [B, A]


def test_an_unknown_name_gets_near_matches():
    bank = ModelBank([BankEntry("heart-unet", "skte.demo:small_unet"), A])
    with pytest.raises(BankError, match="no entry 'hart-unet'; did you mean 'heart-unet'"):
        bank["hart-unet"]
    with pytest.raises(IndexError):
        bank[7]


def test_duplicate_names_are_named():
    with pytest.raises(BankError, match=r"distinct; repeated: \['a'\]"):
        ModelBank([A, B, A])


@pytest.mark.parametrize("empty", [[], {}, ()])
def test_an_empty_bank_is_an_error(empty):
    with pytest.raises(BankError, match="at least one entry"):
        load_bank(empty)


def test_strangers_are_named():
    with pytest.raises(BankError, match=r"got Conv2d, int\. Wrap .*from_module"):
        ModelBank([A, nn.Conv2d(1, 1, 1), 3])
    with pytest.raises(BankError, match="load_bank makes one of a dict"):
        ModelBank({"a": nn.Conv3d(1, 2, 1)})


def test_everything_that_can_be_a_bank(tmp_path):
    network = nn.Conv2d(1, 2, 1)
    bank = ModelBank([A, B])
    assert load_bank(bank) is bank
    assert load_bank([A, B]) == bank
    assert load_bank((A, B)) == bank
    assert load_bank(A).names == ("a",)
    assert load_bank({"x": network})["x"].load() is network
    assert ModelBank.from_modules({"x": network}) == load_bank({"x": network})
    renamed = load_bank({"a": A, "c": B})
    assert renamed.names == ("a", "c")
    assert renamed["a"] is A
    path = tmp_path / "bank.json"
    path.write_text(
        json.dumps([{"name": "a", "factory": "skte.demo:small_unet", "weights": "none"}])
    )
    assert load_bank(path) == load_bank(str(path)) == ModelBank([A])


@pytest.mark.parametrize(
    ("bank", "match"),
    [
        (3, "Cannot make a bank of int"),
        (nn.Conv2d(1, 1, 1), "dict of names to networks"),
        ({"a": 3}, r"Entry 'a': expected an nn.Module or BankEntry, got int\.$"),
        ({"a": nn.Identity}, r"got the class Identity; call it: Identity\(\.\.\.\)"),
        (
            {"a": nn.Conv3d(1, 2, 1).state_dict()},
            "got OrderedDict; build the network, and call its load_state_dict with this",
        ),
        ({"a": "x.pt"}, r"got str; give BankEntry\('a', factory, weights='x.pt'\), where"),
        ({"a": Path("x.pt")}, r"Path; give BankEntry\('a', factory, weights='x.pt'\), where"),
        ({3: nn.Conv2d(1, 1, 1)}, "name must be text"),
        ("none.yaml", r"no manifest none\.yaml"),
        ("none", "no manifest none"),
        (__file__, r"must be a \.yaml, \.yml or \.json file"),
    ],
)
def test_what_cannot(bank, match):
    with pytest.raises(BankError, match=match):
        load_bank(bank)
