"""The estimators by name: those of skte, and those that other packages add."""

from __future__ import annotations

import sys
import types
import warnings
from importlib.metadata import EntryPoint

import pytest

from skte import estimators
from skte.estimators import CCFV, TransferabilityEstimator, all_estimators
from skte.exceptions import SkteWarning


class Outside(TransferabilityEstimator):
    def _score_block(self, block):
        return float(block.X.mean())


class Unfinished(TransferabilityEstimator):
    """Without the method that scores."""


@pytest.fixture
def declare(monkeypatch):
    """Let entry points of other packages be declared, in a module that can be imported."""
    module = types.ModuleType("outside")
    module.Outside, module.Unfinished, module.number = Outside, Unfinished, 3
    monkeypatch.setitem(sys.modules, "outside", module)

    def entry_points_are(**values):
        points = [EntryPoint(name, value, "skte.estimators") for name, value in values.items()]
        monkeypatch.setattr(
            "skte._registry.entry_points", lambda group: [p for p in points if p.group == group]
        )

    return entry_points_are


def test_every_export_is_registered_in_lower_case(declare):
    declare()
    found = all_estimators()
    assert found["ccfv"] is CCFV
    assert {cls.__name__: name for name, cls in found.items()} == {
        name: name.lower() for name in estimators.__all__ if name != "TransferabilityEstimator"
    }


def test_other_packages_add_theirs(declare):
    declare(MeanFeature="outside:Outside")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all_estimators()["meanfeature"] is Outside


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("missing", "no_such_module:Thing", "ModuleNotFoundError"),
        ("gone", "outside:Nothing", "AttributeError"),
        ("odd", "outside:number", "3 is not a subclass of TransferabilityEstimator"),
        ("other", "collections:OrderedDict", "is not a subclass of TransferabilityEstimator"),
        ("half", "outside:Unfinished", "does not implement _score_block"),
        ("base", "skte.estimators:TransferabilityEstimator", "does not implement _score_block"),
        ("LogMe", "outside:Outside", "the name 'logme' is taken"),
    ],
)
def test_a_broken_entry_point_is_named_and_costs_nothing_else(declare, name, value, reason):
    declare(**{name: value, "sound": "outside:Outside"})
    with pytest.warns(SkteWarning) as caught:
        found = all_estimators()
    [warning] = [str(one.message) for one in caught]
    assert repr(name) in warning
    assert value in warning
    assert reason in warning
    declare(sound="outside:Outside")
    assert found == all_estimators()


def test_a_module_that_exits_when_imported(declare, tmp_path, monkeypatch):
    (tmp_path / "quits.py").write_text("raise SystemExit(3)\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    declare(quits="quits:Thing")
    with pytest.warns(SkteWarning, match="'quits'.*SystemExit"):
        assert "quits" not in all_estimators()


def test_importing_skte_loads_no_entry_point(declare):
    declare(quits="no_such_module:Thing")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimators.CCFV().tags.labels
