"""What an entry's features depend on, as one digest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from dataclasses import fields
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from skte._digests import file_digest, version_of
from skte.bank._entry import BankEntry
from skte.bank._factory import LiveModule, resolve_factory
from skte.bank._stable import UnstableError, describe, describe_module
from skte.exceptions import BankError

__all__ = ["digest_problem", "entry_digest"]

# Described in their own ways, or not at all; every other field counts as it is.
_SPECIAL = (
    "name", "provenance", "factory", "arguments", "weights", "preprocessing", "trusted_packages",
)  # fmt: skip


def entry_digest(entry: BankEntry) -> str | None:
    """Digest all that decides an entry's features: two entries with one digest are alike.

    That is the factory (its name, its code as far as it stands in the module or package
    that is named, the version of its distribution; of skte's own factories and transforms
    a version that changes when their results do), its arguments, the *content* of the
    weights file, the preprocessing and all other settings. Name and provenance do not
    count, but an entry without weights is initialised by its name, so there the name
    does. Of a network at hand classes, settings and all tensors count.

    Parameters
    ----------
    entry : BankEntry
        The recipe. Nothing is built or loaded, and no code but skte's own is imported.

    Returns
    -------
    str or None
        64 hexadecimal digits, the same in every process; None where the entry holds what
        looks different in every process (`digest_problem` says what), so that its
        features cannot be recognised later.

    Raises
    ------
    BankError
        If the weights file cannot be read.

    See Also
    --------
    digest_problem : The reason for None.

    Examples
    --------
    >>> from skte import BankEntry
    >>> from skte.bank import entry_digest
    >>> first = BankEntry("a", "skte.demo:small_unet", preprocessing=["ToCanonical"])
    >>> again = BankEntry("a", "skte.demo:small_unet", preprocessing=["ToCanonical"])
    >>> entry_digest(first) == entry_digest(again)
    True
    >>> print(entry_digest(BankEntry("a", "skte.demo:small_unet", preprocessing=[lambda x: x])))
    None
    """
    try:
        text = json.dumps(_describe(entry), separators=(",", ":"))
    except (UnstableError, RecursionError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def digest_problem(entry: BankEntry) -> str | None:
    """Say why an entry has no digest.

    Parameters
    ----------
    entry : BankEntry
        The recipe.

    Returns
    -------
    str or None
        One clause, with the remedy where there is one; None where it has a digest.

    Examples
    --------
    >>> from skte import BankEntry
    >>> from skte.bank import digest_problem
    >>> digest_problem(BankEntry("a", "skte.demo:small_unet", preprocessing=[lambda x: x]))
    'preprocessing: ...<lambda> has no name that holds in another process: ...'
    """
    try:
        _describe(entry)
    except UnstableError as error:
        return str(error)
    except RecursionError:
        return "something in it holds itself"
    return None


def _describe(entry: BankEntry) -> dict[str, Any]:
    plain = [item.name for item in fields(entry) if item.name not in _SPECIAL]
    description = {name: describe(getattr(entry, name)) for name in plain}
    parts: dict[str, Callable[[], Any]] = {
        "preprocessing": lambda: [describe(step) for step in entry.preprocessing],
        "arguments": lambda: describe(dict(sorted(entry.arguments.items()))),
        "factory": lambda: _describe_factory(entry.factory),
        "weights": lambda: _describe_weights(entry),
    }
    for name, describe_part in parts.items():
        try:
            description[name] = describe_part()
        except UnstableError as error:
            raise UnstableError(f"{name}: {error}") from error
        except OSError as error:
            raise BankError(
                f"Entry {entry.name!r}: {name}: {error.filename} cannot be read "
                f"({error.strerror or error}). Check the path, or get the file again."
            ) from error
    return description


def _describe_weights(entry: BankEntry) -> Any:
    if isinstance(entry.factory, LiveModule):
        return None  # they belong to the network at hand
    if entry.weights is None:
        return ["initialised by", entry.name]
    return ["file", file_digest(entry.weights)]


def _describe_factory(factory: Any) -> Any:
    if isinstance(factory, LiveModule):
        return describe_module(factory.module)
    if not isinstance(factory, str):
        return describe(factory)
    path = factory.partition(":")[0]
    own = _own_version(factory)
    if own is not None:
        return ["name", own]
    return ["name", factory, _version(path), _code_digests(path)]


def _own_version(factory: str) -> str | None:
    """Return the version of one of skte's own factories; None for other code."""
    if factory.partition(".")[0] != "skte":
        return None
    try:
        return version_of(resolve_factory(factory))
    except BankError:  # loading says what is wrong
        return None


def _version(path: str) -> str | None:
    try:
        return importlib.metadata.version(path.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def _code_digests(path: str) -> list[str]:
    """Digest the files of a module or package without importing it."""
    spec = _find(path)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return []
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return [file_digest(origin)]
    # A package's own file mostly just imports from those beside it.
    files = sorted(origin.parent.rglob("*.py"))
    return [f"{file.relative_to(origin.parent).as_posix()} {file_digest(file)}" for file in files]


def _find(path: str) -> ModuleSpec | None:
    name, *rest = path.split(".")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    places = _places(spec)
    for part in rest:  # importlib.util would import the packages above
        name = f"{name}.{part}"
        try:
            spec = PathFinder.find_spec(name, places)
            places = _places(spec)
        except KeyError:  # no __init__: it asks for the package above, which is not imported
            spec, places = None, [str(Path(place, part)) for place in places]
    return spec


def _places(spec: ModuleSpec | None) -> list[str]:
    """Folders of what is in a package; none for a module."""
    return list(spec.submodule_search_locations or ()) if spec is not None else []
