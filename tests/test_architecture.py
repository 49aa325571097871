"""Imports go one way: between rooms, and between the files of a room."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import skte

ROOT = Path(skte.__file__).parent
ORDER = [  # from the bottom; a room may import those before it. All may import skte/_*.py
    "metrics", "datasets", "bank", "features", "extraction", "estimators", "selection",
    "evaluation", "report", "demo", "cli",
]  # fmt: skip
NARROWER = {
    "datasets": set(),
    "bank": {"datasets"},
    "features": set(),
    "extraction": {"datasets", "bank", "features"},
    "estimators": {"features"},
}
BELOW = {room: NARROWER.get(room, set(ORDER[:i])) for i, room in enumerate(ORDER)}
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
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for module in imported(path):
        head, *rest = module.split(".")
        assert not (room in LIGHT_ROOMS and head in HEAVY), module
        if head == "skte" and rest and rest[0] in BELOW and rest[0] != room:
            assert rest[0] in BELOW[room], f"{room} must not import {module}"
            private = [name for name in rest if name.startswith("_")]
            assert not private, f"{module} is private to its room"


@pytest.mark.parametrize("path", sorted(ROOT.glob("_[a-z]*.py")), ids=lambda p: p.name)
def test_what_all_rooms_may_import_imports_none(path):
    rooms = {f"skte.{room}" for room in BELOW}
    assert not [m for m in imported(path) if ".".join(m.split(".")[:2]) in rooms]


@pytest.mark.slow
def test_no_file_imports_itself_by_way_of_others():
    """Imports inside functions and for type checkers count too."""
    modules = {module_of(path): path for path in ROOT.rglob("*.py") if path.name != "__init__.py"}
    graph = {
        name: {other for other in imported(path) if other in modules}
        for name, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


def test_every_room_is_known():
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert rooms == set(BELOW)
