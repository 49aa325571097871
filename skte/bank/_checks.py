"""The door of a bank's entries: every wrong field of a recipe, at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from skte._text import clean_text, name_problem
from skte.bank._factory import LiveModule, factory_name_problem, package_problem
from skte.bank._preprocessing import normalize_steps, step_problems

__all__ = ["LARGEST_EDGE", "did_you_mean", "field_problems"]

LARGEST_EDGE = 65_536  # no volume is as long, and a slip of the pen would fill the memory


def field_problems(values: Mapping[str, Any]) -> list[str]:
    """List everything wrong with the fields of an entry; empty if nothing is.

    Parameters
    ----------
    values : mapping of str to object
        Fields of a `BankEntry` by name; fields that are missing are not checked.

    Returns
    -------
    list of str
        One clause each, naming the field.
    """
    problems = []
    for field, value in values.items():
        problem = _CHECKS[field](value) if field in _CHECKS else None
        if problem:
            problems.append(problem if field in problem else f"{field} {problem}")
    packages = values.get("trusted_packages", ())
    if isinstance(values.get("factory"), str) and _packages(packages) is None:
        problem = factory_name_problem(values["factory"], packages)
        problems += [problem] if problem else []
    steps = values.get("preprocessing", ())
    if _steps(steps) is None:
        problems += step_problems(normalize_steps(steps))
    if isinstance(values.get("factory"), LiveModule):
        given = [f for f in ("arguments", "weights", "state_key", "prefix") if values.get(f)]
        if given:
            problems.append(f"{', '.join(given)} cannot be set for a network that is at hand")
    elif not values.get("weights") and (values.get("state_key") or values.get("prefix")):
        problems.append("state_key and prefix say where in a weights file to look: set weights")
    return problems


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Hint at near matches, or at all that is known."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known: {', '.join(known)}"


def _name(value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return f"must be text that is not empty, got {value!r}"
    problem = name_problem(value)
    if problem:
        return f"name {problem}, got {clean_text(repr(value), 100)}; rename the model"
    return None


def _factory(value: Any) -> str | None:
    if isinstance(value, nn.Module):
        return "is a network; use BankEntry.from_module(name, network) for one at hand"
    if not isinstance(value, str) and not callable(value):
        return f"must be a callable or 'package.module:function', got {value!r}"
    return None


def _packages(value: Any) -> str | None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"must be a list of names of packages, got {value!r:.200}"
    return next((problem for item in value if (problem := package_problem(item))), None)


def _mapping(value: Any) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        return f"must map names to values, got {value!r}"
    return None


def _path(value: Any) -> str | None:
    if value is None or (isinstance(value, (str, os.PathLike)) and str(value)):
        return None
    return f"must be the path of a file, got {value!r}"


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be text, got {value!r}"
    return None


def _optional_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _layers(value: Any) -> str | None:
    if isinstance(value, str):
        if value in ("auto", "encoder"):
            return None
        return f'must be "auto", "encoder" or a list; write [{value!r}]'
    if (
        not isinstance(value, Sequence)
        or not value
        or not all(isinstance(item, str) and item for item in value)
    ):
        return f'must be "auto", "encoder" or a list of module names, got {value!r}'
    if len(set(value)) < len(value):
        return f"names a layer twice: {list(value)}"
    return None


def _window(value: Any) -> str | None:
    edges = [value] if isinstance(value, int) else value
    if edges is None:
        return None
    if (
        isinstance(edges, str)
        or not isinstance(edges, Sequence)
        or not (isinstance(value, int) or len(edges) in (2, 3))
        or not all(_is_count(edge) for edge in edges)
    ):
        return f"must be one, two or three positive integers (voxels), got {value!r}"
    if max(edges) > LARGEST_EDGE:
        return f"must be edges in voxels, at most {LARGEST_EDGE}, got {value!r}"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _channels(value: Any) -> str | None:
    if value is not None and not _is_count(value):
        return f"must be a positive integer or left out, got {value!r}"
    return None


def _dims(value: Any) -> str | None:
    if value is not None and not (_is_count(value) and value in (2, 3)):
        return f"must be 2, 3 or left out, got {value!r}"
    return None


def _steps(value: Any) -> str | None:
    # A string or one mapping in place of a list is the usual slip.
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        return f"must be a list of steps, got {value!r}"
    return None


def _flag(value: Any) -> str | None:
    if not isinstance(value, bool):
        return f"must be true or false, got {value!r}"
    return None


def _activation(value: Any) -> str | None:
    if value not in ("softmax", "sigmoid", None):
        return f"must be 'softmax', 'sigmoid' or null, got {value!r}"
    return None


_CHECKS = {
    "name": _name,
    "factory": _factory,
    "arguments": _mapping,
    "weights": _path,
    "state_key": _optional_text,
    "prefix": _text,
    "layers": _layers,
    "window_size": _window,
    "spatial_dims": _dims,
    "in_channels": _channels,
    "preprocessing": _steps,
    "source_head": _flag,
    "activation": _activation,
    "trusted": _flag,
    "trusted_packages": _packages,
    "provenance": _mapping,
}
