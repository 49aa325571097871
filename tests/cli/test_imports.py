"""What a command line that does no work leaves unloaded."""

import json
import subprocess
import sys

import pytest

import skte
from skte import _registry  # held to the registries here
from skte.bank import all_readers
from skte.datasets._layouts import LAYOUTS
from skte.estimators import all_estimators

HEAVY = {"matplotlib", "nibabel", "numpy", "scipy", "SimpleITK", "sklearn", "torch", "torchio"}
# Help of every command and wrong usage, one after the other in one process.
SCRIPT = """
import contextlib, io, json, sys
from skte.cli import main
from skte.cli._main import _parsers, build_parser

def run(*words):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
    return [code, sorted(set(sys.argv[1:]) & set(sys.modules))]

found = {" ".join(words): run(*words) for words in (
    *([*parser.prog.split()[1:], "--help"] for parser in list(_parsers(build_parser()))),
    ["--version"],
    ["guess"],
    ["rank", "--bank", "bank.yaml", "--data", "data", "--estimator", "ccfv,logm"],
    ["rank", "--bank", "bank.yaml", "--data", "data", "--estimator", "ccfv", "--layout", "nnunt"],
)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    command = [sys.executable, "-c", SCRIPT, *sorted(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_help_and_wrong_usage_load_no_library(found):
    assert len(found) > 15
    for words, (code, loaded) in found.items():
        assert loaded == [], f"skte {words}"
        assert code == (2 if words.startswith(("guess", "rank --bank")) else 0), words


def test_names_are_those_of_the_registries(monkeypatch):
    monkeypatch.setattr("skte._registry.entry_points", lambda group: [])
    where = "skte/_registry.py must name them, in this order"
    assert tuple(layout.name for layout in LAYOUTS) == _registry.LAYOUTS, where
    assert tuple(all_readers()) == _registry.READERS, where
    assert tuple(all_estimators()) == _registry.ESTIMATORS, where


def test_all_names_of_the_root_are_listed_and_load():
    assert set(skte.__all__) <= set(dir(skte))
    space = {}
    exec("from skte import *", space)
    assert set(skte.__all__) <= set(space)
    with pytest.raises(AttributeError, match="'skte' has no attribute 'CCVF'"):
        _ = skte.CCVF
