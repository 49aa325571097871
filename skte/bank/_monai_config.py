"""Configurations of MONAI bundles read as data: references are followed, nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from skte.exceptions import BankError

__all__ = ["TARGET", "class_name", "has_expression", "resolve"]

#: The key that names a class.
TARGET = "_target_"

_DEEPEST = 50
_INDEX = re.compile(r"[0-9]{1,6}")
# References to lists of references multiply: with this many values a file describes no model.
_MOST_VALUES = 100_000
# Keys beside the arguments that MONAI's parser looks at.
_ABOUT = ("_desc_", "_disabled_", "_requires_", "_mode_")


def resolve(config: Mapping[str, Any], value: Any) -> Any:
    """Follow the references (``@name``, ``@part::name``) in a value.

    Parameters
    ----------
    config : mapping
        The whole configuration.
    value : object
        A part of it.

    Returns
    -------
    object
        Without references. Expressions (``$...``) are left as text.

    Raises
    ------
    BankError
        If a reference leads nowhere or in a circle, or references stand for far more
        values than a model needs.
    """
    return _resolve(config, value, 0, count(1))


def _resolve(config: Mapping[str, Any], value: Any, depth: int, seen: Iterator[int]) -> Any:
    if next(seen) > _MOST_VALUES:
        raise BankError(
            f"its references (@) stand for more than {_MOST_VALUES} values, which was refused; "
            "write them out, or check where it comes from"
        )
    if depth > _DEEPEST:
        raise BankError(f"references lead in a circle, or too deep: {value!r:.80}")
    if isinstance(value, str) and value.startswith("@"):
        return _resolve(config, _look_up(config, value[1:]), depth + 1, seen)
    if isinstance(value, Mapping):
        return {
            key: _resolve(config, item, depth + 1, seen)
            for key, item in value.items()
            if key not in _ABOUT
        }
    if isinstance(value, list):
        return [_resolve(config, item, depth + 1, seen) for item in value]
    return value


def _look_up(config: Mapping[str, Any], name: str) -> Any:
    found: Any = config
    for part in re.split(r"::|#", name):
        if isinstance(found, list) and _INDEX.fullmatch(part) and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            raise BankError(
                f"the reference '@{name:.100}' leads nowhere: there is no {part[:100]!r}"
            )
    return found


def has_expression(value: Any) -> str | None:
    """Return the first text in a value that MONAI would run or replace (``$`` or ``%``)."""
    if isinstance(value, str):
        return value if value.startswith(("$", "%")) else None
    items: list[Any] = []
    if isinstance(value, Mapping):
        items = [*value.keys(), *value.values()]
    elif isinstance(value, list):
        items = value
    return next((found for item in items if (found := has_expression(item))), None)


def class_name(target: Any, package: str) -> str | None:
    """Return the class that a target names in a package of MONAI, or None.

    Examples
    --------
    >>> class_name("monai.networks.nets.unet.UNet", "monai.networks.nets")
    'UNet'
    >>> class_name("UNet", "monai.networks.nets")
    'UNet'
    >>> class_name("os.system", "monai.networks.nets") is None
    True
    """
    path, _, name = str(target).rpartition(".")
    if path and path != package and not path.startswith(f"{package}."):
        return None
    return name if re.fullmatch(r"[A-Za-z]\w*", name) else None
