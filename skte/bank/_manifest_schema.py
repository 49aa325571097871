"""The manifest as a JSON Schema, for editors and for tools that write manifests."""

from __future__ import annotations

import inspect
import re
from typing import Any

from skte.bank._checks import LARGEST_EDGE
from skte.bank._entry import BankEntry
from skte.bank._factory import FACTORY_NAME
from skte.bank._manifest import FIELDS, VERSION
from skte.bank._preprocessing import ALLOWED

__all__ = ["manifest_schema"]

_TEXT = {"type": "string", "minLength": 1}
_EDGE = {"type": "integer", "minimum": 1, "maximum": LARGEST_EDGE}


def manifest_schema() -> dict[str, Any]:
    """Describe a bank's manifest as a JSON Schema (draft 2020-12).

    Editors complete and check manifests by it. It accepts all that `ModelBank.from_manifest`
    reads; what it cannot know, such as whether a file exists, is left to reading.

    Returns
    -------
    dict
        What JSON can hold.

    See Also
    --------
    skte.ModelBank.from_manifest : Reads a manifest, and names every problem in it.

    Examples
    --------
    >>> from skte.bank import manifest_schema
    >>> sorted(manifest_schema()["properties"])
    ['defaults', 'description', 'models', 'version']
    """
    fields = _fields()
    shared = {name: value for name, value in fields.items() if name != "name"}
    model = {"required": ["name"], **_object(fields)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Models for skte to rank",
        "type": ["object", "array"],
        "properties": {
            "version": {"const": VERSION},
            "description": {},
            "defaults": {"description": "Fields of all models.", **_object(shared, null=True)},
            "models": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/model"}},
        },
        "additionalProperties": False,
        "required": ["models"],
        # A list is a list of models. A factory may stand in the defaults.
        "minItems": 1,
        "items": {"$ref": "#/$defs/model", "required": ["factory"]},
        "anyOf": [
            {"type": "array"},
            {"properties": {"defaults": {"required": ["factory"]}}, "required": ["defaults"]},
            {"properties": {"models": {"items": {"required": ["factory"]}}}},
        ],
        "$defs": {"model": model, "step": {"anyOf": _steps()}},
    }


def _fields() -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "name": {"type": "string", "pattern": r"\S"},
        "factory": {"type": "string", "pattern": f"^{FACTORY_NAME.pattern}$"},
        "arguments": {"type": "object"},
        "weights": {"type": ["string", "null"], "minLength": 1},
        "state_key": {"type": ["string", "null"]},
        "prefix": {"type": "string"},
        "layers": {
            "anyOf": [
                {"enum": ["auto", "encoder"]},
                {"type": "array", "items": _TEXT, "minItems": 1, "uniqueItems": True},
            ]
        },
        "window_size": {
            "anyOf": [
                {"type": "null"},
                _EDGE,
                {"type": "array", "items": _EDGE, "minItems": 2, "maxItems": 3},
            ]
        },
        "spatial_dims": {"enum": [2, 3, None]},
        "in_channels": {"type": ["integer", "null"], "minimum": 1},
        "preprocessing": {"type": "array", "items": {"$ref": "#/$defs/step"}},
        "source_head": {"type": "boolean"},
        "activation": {"enum": ["softmax", "sigmoid", None]},
        "provenance": {"type": "object"},
    }
    told = _descriptions()
    return {name: {"description": told.get(name, ""), **kinds[name]} for name in FIELDS}


def _steps() -> list[dict[str, Any]]:
    """Describe the forms of a step: a name, a mapping with parameters, or a pair of both."""
    steps: list[dict[str, Any]] = [{"enum": list(ALLOWED)}]
    for name, allowed in ALLOWED.items():
        parameters: dict[str, Any] = {parameter: {} for parameter in allowed}
        steps += [
            {**_object({key: {"const": name}, **parameters}), "required": [key]}
            for key in ("name", "transform")
        ]
        pair = [{"const": name}, _object(parameters)]
        steps.append({"type": "array", "prefixItems": pair, "minItems": 2, "maxItems": 2})
    return steps


def _object(properties: dict[str, Any], *, null: bool = False) -> dict[str, Any]:
    kind: Any = ["object", "null"] if null else "object"
    return {"type": kind, "properties": properties, "additionalProperties": False}


def _descriptions() -> dict[str, str]:
    """Take what `BankEntry` says of each field from its docstring, as plain text."""
    found = re.findall(r"^(\w+) : .*\n((?:    .*\n)+)", inspect.getdoc(BankEntry) or "", re.M)
    return {name: " ".join(text.replace("`", "").split()) for name, text in found}
