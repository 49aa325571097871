"""Every package that skte imports is one that it asks for."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import skte

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def distribution(text):
    """Name of a requirement, spelled as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", text)[0]).lower()


CORE = {distribution(text) for text in PROJECT["dependencies"]}
EXTRAS = {
    distribution(text)
    for name, texts in PROJECT["optional-dependencies"].items()
    if name not in ("dev", "docs", "test")
    for text in texts
}


def imports(nodes):
    """Top-level packages that statements import, functions and ``if TYPE_CHECKING`` aside."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@cache
def trees():
    files = Path(skte.__file__).parent.rglob("*.py")
    return {file.name: ast.parse(file.read_text("utf-8")) for file in files}


def packages(at_import):
    """Files by the packages that they import."""
    return {
        name: file
        for file, tree in trees().items()
        for name in imports(tree.body if at_import else ast.walk(tree))
        if name != "skte" and name not in sys.stdlib_module_names
    }


@cache
def distributions():
    return packages_distributions()


def asked_for(name, declared):
    return any(distribution(d) in declared for d in distributions().get(name, [name]))


def unasked(found, declared):
    return {name: file for name, file in found.items() if not asked_for(name, declared)}


def test_what_is_imported_with_skte_is_a_dependency():
    found = packages(at_import=True)
    assert {"numpy", "torch"} <= set(found)
    assert unasked(found, CORE) == {}


def test_what_is_imported_when_needed_is_a_dependency_or_an_extra():
    known = unasked(packages(at_import=False), CORE | EXTRAS)
    assert set(known) <= {"pandas"}  # the Ranking knows it where the user has it


@pytest.mark.slow
def test_every_dependency_is_imported():
    used = packages(at_import=False)
    unused = {name for name in CORE if not any(asked_for(found, {name}) for found in used)}
    assert unused == set()


def test_the_conda_recipe_asks_for_the_same():
    text = (ROOT / ".ci" / "conda" / "recipe.yaml").read_text("utf-8")
    recipe = yaml.safe_load(text.replace("${{ python_min }}", "3.11"))
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # as conda-forge has them

    def for_conda(texts):
        return {re.sub(r"^\w+", lambda m: names.get(m[0], m[0]), text.lower()) for text in texts}

    def asked(section):
        return {text.replace(" ", "", 1) for text in recipe["requirements"][section]}

    python = {"python" + PROJECT["requires-python"]}
    assert asked("run") == for_conda(PROJECT["dependencies"]) | python
    assert asked("run_constraints") == for_conda(PROJECT["optional-dependencies"]["cli"])
    assert recipe["context"]["version"] == skte.__version__
