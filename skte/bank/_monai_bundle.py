"""From a MONAI bundle to the fields of an entry."""

from __future__ import annotations

import importlib
import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from skte._text import clean_text
from skte.bank._documents import check_inside, parse_file
from skte.bank._monai_transform import (
    TARGET,
    class_name,
    has_expression,
    map_preprocessing,
    resolve,
)
from skte.bank._weights import read_checkpoint, state_dict_places
from skte.exceptions import BankError, SkteWarning

__all__ = ["bundle_fields", "is_bundle", "parsed_network"]

_NETS = "monai.networks.nets"
_CONFIGS = tuple(
    f"configs/{stem}{suffix}"
    for stem in ("inference", "evaluate", "train")
    for suffix in (".json", ".yaml", ".yml")
)
_METADATA = "configs/metadata.json"
_NETWORK_KEYS = ("network_def", "network", "net", "model")
# Arguments that let a network fetch weights, from where the file says or by default.
_DOWNLOADS = {"pretrained": False, "use_pretrained": False, "pretrained_url": None}
_WEIGHTS = ("model.pt", "model.pth", "model.safetensors")


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a MONAI bundle."""
    return any((folder / name).is_file() for name in _CONFIGS)


def bundle_fields(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    trusted: bool = False,
    extra_roots: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Read the fields of a `BankEntry` from a MONAI bundle."""
    folder = Path(folder)
    try:
        check_inside(folder, [*_CONFIGS, _METADATA], extra_roots)
        read = _fields(folder, name, weights, trusted)
        if not weights:
            check_inside(folder, [read["weights"]], extra_roots)
        state_key = _state_key(read["weights"], trusted)
        return {**read, "state_key": state_key}
    except BankError as error:
        raise BankError(f"MONAI bundle {folder}: {clean_text(error)}") from error


def _fields(
    folder: Path,
    name: str | None,
    weights: str | os.PathLike[str] | None,
    trusted: bool,
) -> dict[str, Any]:
    _import_nets()
    file, config, key = _configuration(folder)
    arguments: dict[str, Any]
    factory: str | Callable[..., nn.Module]
    if trusted and _refusal(config, key):
        factory, arguments = parsed_network, {"file": file, "key": key}
        n_channels = n_axes = None
    else:
        factory, arguments = _network(config, key)
        n_channels, n_axes = arguments.get("in_channels"), arguments.get("spatial_dims")
    steps, left_out = map_preprocessing(_quietly_resolved(config, "preprocessing"))
    name = name or folder.absolute().name
    if left_out:
        warnings.warn(
            f"Entry {name!r}: of the bundle's preprocessing {'; '.join(left_out)}.",
            SkteWarning,
            stacklevel=4,
        )
    file = Path(weights).absolute() if weights else _weights_file(folder)
    return {
        "name": name,
        "factory": factory,
        "arguments": arguments,
        "weights": file,
        "window_size": _window(config),
        "spatial_dims": n_axes if n_axes in (2, 3) else None,
        "in_channels": n_channels if isinstance(n_channels, int) else None,
        "preprocessing": steps,
        "activation": _activation(config),
        "trusted": trusted,
        "provenance": {**_metadata(folder), "preprocessing_left_out": left_out},
    }


def _import_nets() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(_NETS)
    except ImportError as error:
        raise BankError(
            f"its networks come from MONAI, which cannot be imported ({error}): pip install "
            "skte[monai]"
        ) from error


def _configuration(folder: Path) -> tuple[Path, Mapping[str, Any], str]:
    """Return the file that describes the network, its content, and its key."""
    if not folder.is_dir():
        raise BankError("there is no such folder")
    looked_at = []
    for relative in _CONFIGS:
        if not (folder / relative).is_file():
            continue
        content = parse_file(folder / relative, "Configuration")
        looked_at.append(relative)
        for key in _NETWORK_KEYS:
            value = content.get(key) if isinstance(content, Mapping) else None
            if isinstance(value, Mapping) and TARGET in value:
                return folder / relative, content, key
    if not looked_at:
        raise BankError("it has no configs/inference.json (or .yaml); give the bundle's folder")
    raise BankError(
        f"{', '.join(looked_at)} has no network: one of {', '.join(_NETWORK_KEYS)} must hold "
        f"{TARGET!r} and its arguments"
    )


def _refusal(config: Mapping[str, Any], key: str) -> str | None:
    """Say why a network is not built from its description; None if it can be."""
    described = resolve(config, config[key])
    remedy = (
        "Write the value itself into the file, or, where you trust its origin, pass trusted=True"
    )
    expression = has_expression(described)
    if expression:
        return f"{key} holds {expression!r}, which was refused: it would run code. {remedy}"
    kind = class_name(described[TARGET], _NETS)
    found = getattr(_import_nets(), kind, None) if kind else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        return (
            f"{key} names {described[TARGET]!r}, which was refused: importing what a file names "
            f"runs code. Allowed are the classes of {_NETS}. {remedy}"
        )
    nested = _nested_target({k: v for k, v in described.items() if k != TARGET})
    if nested:
        return (
            f"{key} names {nested!r} among its arguments, which was refused: importing what a "
            f"file names runs code. {remedy}"
        )
    return None


def _nested_target(value: Any) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return value[TARGET]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for item in value if (found := _nested_target(item))), None)
    return None


def _network(config: Mapping[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    refusal = _refusal(config, key)
    if refusal:
        raise BankError(refusal)
    described = resolve(config, config[key])
    kind = class_name(described[TARGET], _NETS)
    arguments = {k: v for k, v in described.items() if k != TARGET}
    known = inspect.signature(getattr(_import_nets(), str(kind))).parameters
    for name, off in _DOWNLOADS.items():  # would be downloaded, and then overwritten
        if name in known and arguments.get(name, known[name].default):
            arguments[name] = off
    return f"{_NETS}:{kind}", arguments


def parsed_network(file: str | os.PathLike[str], key: str) -> nn.Module:
    """Build a network by MONAI's own parser, which runs what the file says."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(file))
    parser["bundle_root"] = str(Path(file).parents[1])
    network: nn.Module = parser.get_parsed_content(key)
    return network


def _quietly_resolved(config: Mapping[str, Any], key: str) -> Any:
    """Resolve a part on which nothing depends but what can be reported."""
    try:
        return resolve(config, config.get(key))
    except BankError:
        return config.get(key)


def _weights_file(folder: Path) -> Path:
    models = folder / "models"
    found = [models / name for name in _WEIGHTS if (models / name).is_file()]
    if not found:
        found = sorted(p for p in models.glob("*") if p.suffix in (".pt", ".pth", ".safetensors"))
    if len(found) > 1 and found[0].name not in _WEIGHTS:
        raise BankError(
            f"models holds {[p.name for p in found]}: pass weights=, the path of one of them"
        )
    if not found:
        scripts = [p.name for p in models.glob("*.ts")]
        raise BankError(
            "models/model.pt is missing"
            + (
                f"; {scripts} is TorchScript, whose layers cannot be hooked"
                if scripts
                else ". Large files are often downloaded apart: see the bundle's large_files.yml"
            )
        )
    return found[0].absolute()


def _state_key(weights: Path, trusted: bool) -> str | None:
    places = state_dict_places(read_checkpoint(weights, trusted=trusted, lazily=True))
    return places[0] if len(places) == 1 else None


def _window(config: Mapping[str, Any]) -> Any:
    inferer = _quietly_resolved(config, "inferer")
    size = inferer.get("roi_size") if isinstance(inferer, Mapping) else None
    edges = [size] if isinstance(size, int) else size
    whole = isinstance(edges, list) and all(isinstance(edge, int) and edge > 0 for edge in edges)
    return size if whole else None


def _activation(config: Mapping[str, Any]) -> str:
    described = _quietly_resolved(config, "postprocessing")
    transforms = described.get("transforms") if isinstance(described, Mapping) else None
    for transform in transforms if isinstance(transforms, list) else []:
        if isinstance(transform, Mapping) and transform.get("sigmoid") is True:
            return "sigmoid"
    return "softmax"


def _metadata(folder: Path) -> dict[str, Any]:
    """Return what the bundle says of itself."""
    found: dict[str, Any] = {"format": "MONAI bundle"}
    file = folder / _METADATA
    if file.is_file():
        content = parse_file(file, "Metadata")
        if isinstance(content, Mapping):
            keys = ("version", "task", "description", "data_source", "data_type", "license")
            found |= {key: content[key] for key in keys if key in content}
    return found
