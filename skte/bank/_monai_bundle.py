"""From a MONAI bundle to the fields of an entry."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from skte._text import clean_text
from skte.bank._documents import check_inside, parse_file
from skte.bank._monai_config import FILES, TARGET, Configuration, refused_in
from skte.bank._monai_transforms import class_name, map_preprocessing
from skte.bank._weights import pick_state_dict, read_checkpoint, state_dict_places
from skte.exceptions import BankError, SkteWarning

_NETS = "monai.networks.nets"
_METADATA = "configs/metadata.json"
# Arguments that let a network fetch weights, from where the file says or by default.
_DOWNLOADS = {
    "pretrained": False,
    "use_pretrained": False,
    "pretrained_url": None,
    "checkpoint": None,
}
# Arguments that MONAI no longer has: what they are called now, and those that change no result.
_RENAMED = {"dimensions": "spatial_dims", "n_classes": "num_classes", "pos_embed": "proj_type"}
_REMOVED = {"SwinUNETR": ("img_size",), "VNet": ("dropout_prob",)}
_WEIGHTS = ("model.pt", "model.pth", "model.safetensors")


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a MONAI bundle."""
    return any((folder / name).is_file() for name in FILES if "common" not in name)


def bundle_fields(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    trusted: bool = False,
    extra_roots: Sequence[str | os.PathLike[str]] = (),
    preprocessing: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Read the fields of a `BankEntry` from a MONAI bundle."""
    folder = Path(folder)
    try:
        _import_nets()
        config = Configuration(folder, extra_roots)
        check_inside(folder, [_METADATA], extra_roots)
        read = _fields(config, name, weights, trusted)
        if preprocessing is None:
            read |= _preprocessing(config, read)
        if not weights:
            check_inside(folder, [read["weights"]], extra_roots)
        state_key = _state_key(read["weights"], trusted)
        return {**read, "state_key": state_key}
    except BankError as error:
        raise BankError(f"MONAI bundle {folder}: {clean_text(error)}") from error


def _fields(
    config: Configuration,
    name: str | None,
    weights: str | os.PathLike[str] | None,
    trusted: bool,
) -> dict[str, Any]:
    arguments: dict[str, Any]
    factory: str | Callable[..., nn.Module]
    if trusted and _refusal(config):
        # Paths, not text: in digests the content of files counts.
        files = [file.absolute() for file in config.files]
        scripts = sorted(config.folder.absolute().rglob("*.py"))
        factory = parsed_network
        arguments = {"files": files, "key": config.network_key, "scripts": scripts}
        n_channels = n_axes = None
    else:
        factory, arguments = _network(config)
        n_channels, n_axes = arguments.get("in_channels"), arguments.get("spatial_dims")
    return {
        "name": name or config.folder.absolute().name,
        "factory": factory,
        "arguments": arguments,
        "weights": Path(weights).absolute() if weights else _weights_file(config.folder),
        "window_size": _window(config, name or config.folder.absolute().name),
        "spatial_dims": n_axes if n_axes in (2, 3) else None,
        "in_channels": n_channels if isinstance(n_channels, int) else None,
        "activation": _activation(config),
        "trusted": trusted,
        "provenance": _metadata(config.folder),
    }


def _preprocessing(config: Configuration, read: Mapping[str, Any]) -> dict[str, Any]:
    """Read the steps; what may move voxels and cannot be done as there is an error."""
    if "preprocessing" not in config.content:
        raise BankError(
            "there is no 'preprocessing': name the list of transforms that prepares images for "
            'inference, such as \'"preprocessing": "%validate::preprocessing"\', in the '
            "configuration, or give the steps yourself, preprocessing=[...] ([] for none)"
        )
    mapped = map_preprocessing(config.get("preprocessing"))
    if mapped.missing:
        raise BankError(
            f"of its preprocessing, {'; '.join(mapped.missing)}. Without it the network would see "
            "images of another geometry or content; give the steps yourself (preprocessing=[...] "
            "in Python or a manifest), or, to do without one, write '\"_disabled_\": true' into it "
            "in the configuration"
        )
    if mapped.left_out:
        warnings.warn(
            f"Entry {read['name']!r}: of the bundle's preprocessing {'; '.join(mapped.left_out)}.",
            SkteWarning,
            stacklevel=4,
        )
    provenance = {**read["provenance"], "preprocessing_left_out": mapped.left_out}
    return {"preprocessing": mapped.steps, "provenance": provenance}


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


def _refusal(config: Configuration) -> str | None:
    """Say why a network is not built from its description; None if it can be."""
    key = config.network_key
    described = config.get(key)
    remedy = (
        "Write the value itself into the file, or, where you trust its origin, pass trusted=True"
    )
    refused = refused_in(described)
    if refused:
        return f"{key}: {refused}. {remedy}"
    if described is None:
        return f"{key} is disabled. {remedy}"
    if _network_class(described[TARGET]) is None:
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


def _network_class(target: Any) -> type[nn.Module] | None:
    """Return a class of MONAI's networks, exported or of one module among them."""
    kind = class_name(target, _NETS)
    if kind is None:
        return None
    found = getattr(_import_nets(), kind, None)
    module = str(target).rpartition(".")[0]
    if found is None and re.fullmatch(rf"{re.escape(_NETS)}\.\w+", module):
        with contextlib.suppress(ImportError):
            found = getattr(importlib.import_module(module), kind, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def _nested_target(value: Any) -> Any:
    if isinstance(value, Mapping):
        if TARGET in value:
            return value[TARGET]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for item in value if (found := _nested_target(item))), None)
    return None


def _network(config: Configuration) -> tuple[str, dict[str, Any]]:
    refusal = _refusal(config)
    if refusal:
        raise BankError(refusal)
    described = config.get(config.network_key)
    network = _network_class(described[TARGET])
    assert network is not None  # else it was refused
    kind = network.__name__
    arguments = {k: v for k, v in described.items() if k != TARGET}
    known = inspect.signature(network).parameters
    for name in set(_REMOVED.get(kind, ())) - known.keys():
        arguments.pop(name, None)
    for old, new in _RENAMED.items():
        if old in arguments.keys() - known.keys() and new in known.keys() - arguments.keys():
            arguments[new] = arguments.pop(old)
    if not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        gone = sorted(arguments.keys() - known.keys())
        if gone:
            raise BankError(
                f"{config.network_key} gives {kind} the arguments {gone}, which it does not have "
                f"in MONAI {version('monai')}: the bundle was written for another version. Remove "
                "or rename them in the file"
            )
    for name, off in _DOWNLOADS.items():  # would be downloaded, and then overwritten
        if name in known and arguments.get(name, known[name].default):
            arguments[name] = off
    module = _NETS if hasattr(_import_nets(), kind) else network.__module__
    return f"{module}:{kind}", arguments


def parsed_network(files: Sequence[Path], key: str, scripts: Sequence[Path]) -> nn.Module:
    """Build a network by MONAI's own parser, which runs what the files (and `scripts`) say."""
    from monai.bundle import ConfigParser

    root = str(files[0].parents[1])
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser["bundle_root"] = root
    sys.path.insert(0, root)  # for the bundle's own scripts
    before = set(sys.modules)
    try:
        network: nn.Module = parser.get_parsed_content(key)
    finally:
        sys.path.remove(root)
        for name in sys.modules.keys() - before:  # those of the next bundle have the same names
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(root):
                del sys.modules[name]
    return network


def _optional(config: Configuration, key: str) -> Mapping[str, Any]:
    """Read a part that a bundle need not have, and that may be of any kind."""
    try:
        found = config.get(key)
    except BankError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _weights_file(folder: Path) -> Path:
    models = folder / "models"
    found = [models / name for name in _WEIGHTS if (models / name).is_file()]
    if not found:
        endings = (".pt", ".pth", ".safetensors")
        found = sorted(p for p in models.glob("[!.]*") if p.suffix in endings)
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
    saved = read_checkpoint(weights, trusted=trusted, lazily=True)
    places = state_dict_places(saved)
    if not places:
        pick_state_dict(saved, weights, None, "")  # says what is wrong with it, if anything is
    return places[0] if len(places) == 1 else None


def _window(config: Configuration, name: str) -> Any:
    size = _optional(config, "inferer").get("roi_size")
    edges = [size] if isinstance(size, int) else size
    whole = isinstance(edges, list) and all(isinstance(edge, int) and edge > 0 for edge in edges)
    if size is not None and not whole:
        shown = clean_text(refused_in(size) or size, 200)
        warnings.warn(
            f"Entry {name!r}: roi_size of its inferer is not taken: {shown}. The window is that of "
            "models without one; to choose it, pass window_size.",
            SkteWarning,
            stacklevel=5,
        )
    return size if whole else None


def _activation(config: Configuration) -> str:
    transforms = _optional(config, "postprocessing").get("transforms")
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
