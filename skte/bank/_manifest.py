"""The manifest of a bank: a YAML or JSON file, checked as a whole."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from skte.bank._checks import did_you_mean, field_problems
from skte.bank._entry import BankEntry
from skte.bank._parse import holds_itself, parse_file
from skte.exceptions import BankError

__all__ = ["FIELDS", "VERSION", "read_manifest"]

VERSION = 1
_TOP = ("version", "description", "defaults", "models")
FIELDS = tuple(item.name for item in fields(BankEntry) if item.name != "trusted")
_REQUIRED = ("name", "factory")


def read_manifest(path: str | os.PathLike[str]) -> list[BankEntry]:
    """Read the entries of a manifest.

    Parameters
    ----------
    path : path-like
        A ``.yaml``, ``.yml`` or ``.json`` file. Paths in it are relative to its folder
        and may not leave it.

    Returns
    -------
    list of BankEntry
        In the order of the file. Nothing is imported, built or loaded.

    Raises
    ------
    BankError
        If the file cannot be read, or with every problem there is in it.
    """
    path = Path(path)
    content = parse_file(path)
    models, defaults, problems = _top_level(content)
    names: Counter[str] = Counter()
    recipes = []
    for number, model in enumerate(models, start=1):
        label = f"model {number}"
        if not isinstance(model, Mapping):
            problems.append(f"{label}: must map fields to values, got {model!r}")
            continue
        if holds_itself(model):
            problems.append(f"{label}: holds itself: an alias (*) stands within its own anchor (&)")
            continue
        recipe = {**defaults, **model}
        if isinstance(recipe.get("name"), str):
            names[recipe["name"]] += 1
            label = f"model {number} ({recipe['name']!r})"
        problems += [f"{label}: {text}" for text in _recipe_problems(recipe, path.parent)]
        recipes.append(recipe)
    repeated = [name for name, n in names.items() if n > 1]
    if repeated:
        problems.append(f"names must be distinct; repeated: {repeated}")
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise BankError(f"Manifest {path} has {count}:\n{listed}")
    return [_entry(recipe, path.parent) for recipe in recipes]


def _top_level(content: Any) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Models, defaults, and what is wrong around them."""
    if isinstance(content, list):  # a bare list of models
        content = {"models": content}
    if not isinstance(content, Mapping):
        return [], {}, ["must hold a list of models under the key 'models'"]
    problems = [
        f"unknown key {key!r}; {did_you_mean(str(key), _TOP)}" for key in content if key not in _TOP
    ]
    if content.get("version", VERSION) != VERSION:
        problems.append(
            f"version is {content['version']!r}; this release of skte reads version {VERSION}"
        )
    defaults = {} if content.get("defaults") is None else content["defaults"]
    if holds_itself(defaults):
        problems.append("defaults holds itself: an alias (*) stands within its own anchor (&)")
        defaults = {}
    if not isinstance(defaults, Mapping):
        problems.append(f"defaults must map fields to values, got {defaults!r}")
        defaults = {}
    if "name" in defaults:
        problems.append("defaults cannot set 'name': every model needs its own")
    models = content.get("models")
    if not isinstance(models, list) or not models:
        problems.append(f"models must be a list of at least one model, got {models!r}")
        models = []
    return models, dict(defaults), problems


def _recipe_problems(recipe: Mapping[str, Any], folder: Path) -> list[str]:
    problems = [f"{key!r} is missing" for key in _REQUIRED if key not in recipe]
    problems += [
        f"unknown key {key!r}; {did_you_mean(str(key), FIELDS)}"
        for key in recipe
        if key not in (*FIELDS, "trusted")
    ]
    if "trusted" in recipe:
        problems.append(
            "'trusted' is refused: no file can say of itself that it is to be trusted; say so "
            "on the shell, --trusted NAME, or in Python: dataclasses.replace(bank[name], "
            "trusted=True)"
        )
    problems += field_problems({key: recipe[key] for key in FIELDS if key in recipe})
    weights = recipe.get("weights")
    if isinstance(weights, str) and weights:
        problems += _path_problems(weights, folder)
    return problems


def _path_problems(weights: str, folder: Path) -> list[str]:
    # Both conventions on every system: a manifest travels.
    forms = (PurePosixPath(weights), PureWindowsPath(weights))
    if any(form.is_absolute() or form.anchor or ".." in form.parts for form in forms):
        return [
            f"weights {weights!r} is refused: a path must stay inside the manifest's folder, "
            "so that a manifest from elsewhere cannot reach your other files; move the file "
            "there, or name it in Python: BankEntry(..., weights=path)"
        ]
    try:
        found = (folder / weights).is_file()
    except (OSError, ValueError):  # a name that no file can have, too long for instance
        found = False
    if not found:
        return [f"weights {weights!r:.200}: there is no such file in the manifest's folder"]
    return []


def _entry(recipe: Mapping[str, Any], folder: Path) -> BankEntry:
    values = dict(recipe)
    if values.get("weights") is not None:
        # Absolute, so that the recipe holds in a worker with another current folder.
        values["weights"] = (folder / values["weights"]).absolute()
    return BankEntry(values.pop("name"), values.pop("factory"), **values)
