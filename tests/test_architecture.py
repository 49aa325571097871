"""Imports between rooms go one way, and never to another room's private file."""

import ast
from pathlib import Path

import pytest

import skte

ROOT = Path(skte.__file__).parent
BELOW = {  # what a room may import; skte/exceptions.py and skte/_*.py serve all
    "metrics": set(),
    "datasets": set(),
    "bank": {"datasets"},
    "features": set(),
    "extraction": {"datasets", "bank", "features"},
    "estimators": {"features"},
    "selection": {"metrics", "datasets", "bank", "features", "extraction", "estimators"},
}
BELOW["evaluation"] = set(BELOW)
BELOW["report"] = set(BELOW)
BELOW["demo"] = set(BELOW)
BELOW["cli"] = set(BELOW)
HEAVY = {"torch", "torchio"}
LIGHT_ROOMS = {"metrics", "features", "estimators"}
FILES = sorted(p for room in BELOW for p in (ROOT / room).rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for module in imported(path):
        head, *rest = module.split(".")
        assert not (room in LIGHT_ROOMS and head in HEAVY), module
        if head == "skte" and rest and rest[0] in BELOW and rest[0] != room:
            assert rest[0] in BELOW[room], f"{room} must not import {module}"
            assert len(rest) == 1, f"{module} is private to its room"


def test_every_room_is_known():
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert rooms == set(BELOW)
