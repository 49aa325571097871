"""Whatever text comes in, what goes out is clean; and all of it goes out by one module."""

import ast
from pathlib import Path

import pytest

import skte

pytest.importorskip("benchmarks", reason="not part of a source distribution")
from benchmarks.reliability import _text

SOURCE = Path(skte.__file__).parent
ATTACKS = {attack.__name__[1:]: attack for attack in _text._ATTACKS}


def prints(tree):
    """Lines that print, or write to standard output or error, by themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "pprint", "rich.print") or called.startswith(
                ("sys.stdout.write", "sys.stderr.write", "sys.__std")
            ):
                yield node.lineno


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE))
)
def test_nothing_prints_but_the_module_of_text(path):
    found = list(prints(ast.parse(path.read_text(encoding="utf-8"))))
    if path.name == "_text.py" and path.parent == SOURCE:
        assert len(found) == 2  # text and JSON
    else:
        assert found == [], f"use say, say_json or complain of skte._text, lines {found}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_hostile_text_comes_out_clean(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = _text._tried(ATTACKS[name], _text.payloads(5, seed=len(name)), tmp_path)
    assert found
    assert [problem for problem in found if problem] == []


@pytest.mark.parametrize(
    "text", ["a\x1b[2Kb", "a\u202eb", "ok\nskte: FORGED", "a\rb", "x" * 30_000, "\udc80"]
)
def test_the_benchmark_sees_text_that_is_not_clean(text):
    assert _text.flaws(text)
