"""The manifest of a bank: a YAML or JSON file, checked as a whole, and whom its user trusts."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from skte._files import outside_problem, write_text_atomically
from skte._text import clean_text, did_you_mean
from skte.bank._documents import parse_file
from skte.bank._entry import BankEntry, field_problems
from skte.bank._factory import package_problem
from skte.bank._weights import weight_file
from skte.exceptions import BankError

#: Names of manifests that are looked for in a folder.
MANIFESTS = ("bank.yaml", "bank.yml", "bank.json")
VERSION = 1
_TOP = ("version", "description", "defaults", "models")
# What only the user can say: a file that could, would trust itself.
_OF_THE_USER = {
    "trusted": "'trusted' is refused: a file cannot declare itself trusted; do so "
    "on the shell, --trusted NAME, or in Python: dataclasses.replace(bank[name], trusted=True)",
    "trusted_packages": "'trusted_packages' is refused: a file cannot declare itself trusted; "
    "do so on the shell, --trust-package NAME, or in Python: load_bank(path, "
    "trusted_packages=[...])",
}
FIELDS = tuple(item.name for item in fields(BankEntry) if item.name not in _OF_THE_USER)
_REQUIRED = ("name", "factory")
_WITHOUT = (
    "'weights' is missing: name their file, or write 'weights: none' if the network is meant to "
    "be untrained"
)
_MOST_SHOWN = 50  # problems
_MOST_COPIED = 10_000_000  # characters of all that models share


def read_manifest(
    path: str | os.PathLike[str],
    *,
    roots: Sequence[str | os.PathLike[str]] = (),
    trusted_packages: Collection[str] = (),
) -> list[BankEntry]:
    """Read the entries of a manifest."""
    path = Path(path)
    packages = check_packages(trusted_packages)
    content = parse_file(path)
    packages = tuple(dict.fromkeys((*packages, *kept_trust(path))))
    models, defaults, problems = _top_level(content)
    names: Counter[str] = Counter()
    recipes = []
    for number, model in enumerate(models, start=1):
        if len(problems) > _MOST_SHOWN:  # of a file that is not a manifest at all
            break
        label = f"model {number}"
        if not isinstance(model, Mapping):
            problems.append(
                f"{label}: must map fields to values, got {clean_text(repr(model), 100)}"
            )
            continue
        recipe = {**defaults, **model}
        if isinstance(recipe.get("name"), str):
            names[recipe["name"]] += 1
            label = f"model {number} ({clean_text(repr(recipe['name']), 100)})"
        found = [_WITHOUT] if recipe.get("weights") is None else []
        if str(recipe.get("weights")).lower() == "none":
            recipe["weights"] = None
        found += [*_recipe_problems(recipe, packages), *_path_problems(recipe, path.parent, roots)]
        problems += [f"{label}: {text}" for text in found]
        recipes.append({**recipe, "trusted_packages": packages})
    repeated = [name for name, n in names.items() if n > 1]
    if repeated:
        shown = clean_text(repeated, 300)
        problems.append(f"names must be distinct; repeated: {shown}; give each its own")
    if problems:
        raise BankError(_listed(path, problems))
    return [_entry(recipe, path.parent) for recipe in recipes]


def _listed(path: Path, problems: list[str]) -> str:
    more = len(problems) - _MOST_SHOWN
    number = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    number = number if more <= 0 else f"more than {_MOST_SHOWN} problems"
    text = "\n".join(f"  - {clean_text(problem, 1000)}" for problem in problems[:_MOST_SHOWN])
    return f"Manifest {path} has {number}:\n{text}"


def _top_level(content: Any) -> tuple[list[Any], dict[str, Any], list[str]]:
    """Models, defaults, and what is wrong around them."""
    if isinstance(content, list):  # a bare list of models
        content = {"models": content}
    if not isinstance(content, Mapping):
        return [], {}, ["must hold a list of models under the key 'models'"]
    problems = _unknown_keys(content, _TOP)
    if content.get("version", VERSION) != VERSION:
        shown = clean_text(repr(content["version"]), 100)
        problems.append(f"version is {shown}; this release of skte reads version {VERSION}")
    defaults = {} if content.get("defaults") is None else content["defaults"]
    if not isinstance(defaults, Mapping):
        problems.append(
            f"defaults must map fields to values, got {clean_text(repr(defaults), 100)}"
        )
        defaults = {}
    if "name" in defaults:
        problems.append("defaults cannot set 'name': every model needs its own")
    models = content.get("models")
    if not isinstance(models, list) or not models:
        shown = clean_text(repr(models), 100)
        problems.append(f"models must be a list of at least one model, got {shown}")
        models = []
    if len(repr(defaults)) * len(models) > _MOST_COPIED:  # every model gets a copy
        problems.append(
            "defaults hold too many values for this number of models; write out what differs"
        )
        defaults = {}
    return models, dict(defaults), problems


def _unknown_keys(content: Mapping[Any, Any], known: Sequence[str]) -> list[str]:
    """Name the first of the keys that nobody knows, with what they could have meant."""
    unknown = itertools.islice((str(key) for key in content if key not in known), _MOST_SHOWN)
    return [
        f"unknown key {clean_text(repr(key), 100)}; {did_you_mean(key[:100], known)}"
        for key in unknown
    ]


def _recipe_problems(recipe: Mapping[str, Any], packages: Sequence[str]) -> list[str]:
    problems = [f"{key!r} is missing" for key in _REQUIRED if key not in recipe]
    problems += _unknown_keys(recipe, (*FIELDS, *_OF_THE_USER))
    problems += [remedy for key, remedy in _OF_THE_USER.items() if key in recipe]
    fields = {key: recipe[key] for key in FIELDS if key in recipe}
    return problems + field_problems({**fields, "trusted_packages": packages})


def _path_problems(
    recipe: Mapping[str, Any], folder: Path, roots: Sequence[str | os.PathLike[str]]
) -> list[str]:
    weights = recipe.get("weights")
    if not isinstance(weights, str) or not weights:
        return []
    shown = clean_text(repr(weights), 200)
    # Both conventions on every system: a manifest travels.
    forms = (PurePosixPath(weights), PureWindowsPath(weights))
    leaves = any(form.is_absolute() or form.anchor or ".." in form.parts for form in forms)
    try:
        problem = outside_problem(folder / weights, [*roots] if leaves else [folder, *roots])
        found = weight_file(folder / weights).is_file()
    except (OSError, ValueError):  # a name that no file can have, too long for instance
        return [f"weights {shown}: there is no such file in the manifest's folder"]
    if leaves and problem:
        return [
            f"weights {shown} is refused: a path must stay inside the manifest's folder, so that "
            "a manifest from elsewhere cannot reach your other files; move the file there, name "
            "it in Python: BankEntry(..., weights=path), or allow its folder with --allow-root "
            "DIR or extra_roots=[...]"
        ]
    if problem:
        return [f"weights {shown} {problem}"]
    if not found:
        return [f"weights {shown}: there is no such file in the manifest's folder"]
    return []


def _entry(recipe: Mapping[str, Any], folder: Path) -> BankEntry:
    values = dict(recipe)
    if values.get("weights") is not None:
        # Absolute, so that the recipe holds in a worker with another current folder.
        values["weights"] = (folder / values["weights"]).absolute()
    return BankEntry(values.pop("name"), values.pop("factory"), **values)


def check_packages(packages: Collection[str]) -> tuple[str, ...]:
    """Return the packages that a user trusts."""
    if isinstance(packages, str):
        raise BankError(f"trusted_packages must be a list: write [{packages!r}].")
    problems = [problem for item in packages if (problem := package_problem(item))]
    if problems:
        raise BankError(f"trusted_packages: {'; '.join(problems)}.")
    return tuple(packages)


def keep_trust(bank: str | os.PathLike[str], packages: Iterable[str]) -> Path:
    """Note for this user and machine that a bank's factories may come from packages."""
    path = _trust_file()
    notes = _read_trust(path)
    key = os.path.realpath(bank)
    notes[key] = sorted({*notes.get(key, ()), *check_packages(tuple(packages))})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(notes, indent=1) + "\n")
    except OSError as error:
        raise BankError(f"The trust in {packages} cannot be kept in {path}: {error}.") from error
    return path


def kept_trust(manifest: Path) -> tuple[str, ...]:
    """Return the packages that this user trusts for a manifest."""
    notes = _read_trust(_trust_file())
    real = os.path.realpath(manifest)
    found = list(notes.get(real, ()))
    if os.path.basename(real) in MANIFESTS:
        found += notes.get(os.path.dirname(real), ())
    return tuple(dict.fromkeys(found))


def _trust_file() -> Path:
    base = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME")
    if not base or not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".config")
    return Path(base, "skte", "trusted.json")


def _read_trust(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BankError(
            f"{path}, where trust in packages is kept, cannot be read ({error}); fix or remove it."
        ) from error
    if not isinstance(content, dict) or any(
        not isinstance(packages, list) or any(map(package_problem, packages))
        for packages in content.values()
    ):
        raise BankError(
            f"{path}, where trust in packages is kept, must map banks to lists of packages; fix "
            "or remove it."
        )
    return content
