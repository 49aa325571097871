"""Write the manifest's JSON Schema beside the site's other static files: python docs/_schema.py."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from skte import BankEntry
from skte.bank._entry import LARGEST_EDGE
from skte.bank._factory import FACTORY_NAME
from skte.bank._manifest import FIELDS, VERSION
from skte.bank._preprocessing import ALLOWED

FILE = Path(__file__).parent / "_static" / "bank.schema.json"
_TEXT = {"type": "string", "minLength": 1}
_SOMEWHERE = ("factory", "weights")  # in a model, or in the defaults
_EDGE = {"type": "integer", "minimum": 1, "maximum": LARGEST_EDGE}


def manifest_schema() -> dict[str, Any]:
    """Describe a bank's manifest as a JSON Schema (draft 2020-12).

    It accepts all that `ModelBank.from_manifest` reads; what it cannot know, such as whether a
    file exists, is left to reading.
    """
    fields = _fields()
    shared = {name: value for name, value in fields.items() if name != "name"}
    shared["weights"] = {**fields["weights"], "type": ["string", "null"]}
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
        # A list is a list of models. Factory and weights may be in the defaults.
        "minItems": 1,
        "items": {"$ref": "#/$defs/model", "required": list(_SOMEWHERE)},
        "allOf": [
            {
                "anyOf": [
                    {"type": "array"},
                    {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]},
                    {"properties": {"models": {"items": {"required": [key]}}}},
                ]
            }
            for key in _SOMEWHERE
        ],
        "$defs": {"model": model, "step": {"anyOf": _steps()}},
    }


def _fields() -> dict[str, Any]:
    kinds: dict[str, Any] = {
        "name": {"type": "string", "pattern": r"\S"},
        "factory": {"type": "string", "pattern": f"^{FACTORY_NAME.pattern}$"},
        "arguments": {"type": "object"},
        "weights": _TEXT,
        "state_key": {"type": ["string", "null"]},
        "prefix": {"type": "string"},
        "rename": {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": 300},
            "propertyNames": {"minLength": 1, "maxLength": 300},
            "maxProperties": 50,
        },
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
        "output": {"type": ["string", "integer", "null"], "minLength": 1},
        "source_head": {"type": "boolean"},
        "activation": {"enum": ["softmax", "sigmoid", None]},
        "provenance": {"type": "object"},
    }
    described = _descriptions()
    return {name: {"description": described.get(name, ""), **kinds[name]} for name in FIELDS}


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


if __name__ == "__main__":
    FILE.write_text(json.dumps(manifest_schema(), indent=1) + "\n", "utf-8")
