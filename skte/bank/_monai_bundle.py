"""From a MONAI bundle to the fields of an entry; its transforms as steps of preprocessing."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torch import nn

from skte._digests import versioned
from skte._text import clean_text
from skte.bank._documents import check_inside, parse_file
from skte.bank._weights import read_checkpoint, state_dict_places
from skte.exceptions import BankError, SkteWarning

__all__ = ["MonaiTransform", "bundle_fields", "is_bundle", "parsed_network"]

TARGET = "_target_"  # the key that names a class
_NETS = "monai.networks.nets"
_CONFIGS = tuple(
    f"configs/{stem}{suffix}"
    for stem in ("inference", "common", "evaluate", "train")
    for suffix in (".json", ".yaml", ".yml")
)
_METADATA = "configs/metadata.json"
_NETWORK_KEYS = ("network_def", "network", "net", "model")
# Arguments that let a network fetch weights, from where the file says or by default.
_DOWNLOADS = {"pretrained": False, "use_pretrained": False, "pretrained_url": None}
# Arguments that MONAI no longer has; they changed nothing but checks of the image's size.
_REMOVED = {"SwinUNETR": ("img_size",)}
_WEIGHTS = ("model.pt", "model.pth", "model.safetensors")


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a MONAI bundle."""
    return any((folder / name).is_file() for name in _CONFIGS if "common" not in name)


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
    looked_at: list[str] = []
    merged: dict[str, Any] = {}  # what is in an earlier file counts
    for relative in _CONFIGS:
        if not (folder / relative).is_file():
            continue
        content = parse_file(folder / relative, "Configuration")
        looked_at.append(relative)
        merged = {**content, **merged} if isinstance(content, Mapping) else merged
        for key in _NETWORK_KEYS:
            value = merged.get(key)
            if isinstance(value, Mapping) and TARGET in value:
                return folder / relative, merged, key
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
    for name in set(_REMOVED.get(str(kind), ())) - known.keys():
        arguments.pop(name, None)
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


# Deterministic, and keeping the affine true.
_MAPPED = frozenset(
    {
        "AdjustContrast", "BorderPad", "ClipIntensityPercentiles", "DivisiblePad", "Flip",
        "GaussianSmooth", "HistogramNormalize", "NormalizeIntensity", "Orientation", "Resize",
        "Rotate90", "ScaleIntensity", "ScaleIntensityRange", "ScaleIntensityRangePercentiles",
        "ShiftIntensity", "Spacing", "SpatialPad", "ThresholdIntensity",
    }
)  # fmt: skip
# What reading a case does already.
_READING = frozenset(
    {
        "AddChannel", "AsChannelFirst", "CastToType", "CopyItems", "DataStats", "DeleteItems",
        "EnsureChannelFirst", "EnsureType", "Identity", "LoadImage", "SelectItems", "SqueezeDim",
        "ToDevice", "ToTensor",
    }
)  # fmt: skip
# Arguments that say where results go, or that are about the label.
_OTHER_ARGUMENTS = ("keys", "allow_missing_keys", "meta_keys", "meta_key_postfix", "image_only")
# Said outright, because MONAI warns that the default is about to change.
_DEFAULTS = {"Orientation": {"labels": (("L", "R"), ("P", "A"), ("I", "S"))}}
_STATISTICS = ("NormalizeIntensity", "ScaleIntensity", "ScaleIntensityRangePercentiles")


@versioned("transform of MONAI", 1)
class MonaiTransform(tio.SpatialTransform):
    """One of MONAI's array transforms; its affine is followed."""

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind = kind
        self.options = dict(options)
        self.args_names = ["kind", "options"]

    def build(self) -> Any:
        """Make MONAI's transform."""
        if self.kind not in _MAPPED:
            raise ValueError(f"{self.kind!r} is not a transform of MONAI that skte uses")
        return getattr(importlib.import_module("monai.transforms"), self.kind)(**self.options)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Apply it to every image."""
        from monai.data import MetaTensor

        transform = self.build()
        for image in self.get_images(subject):
            affine = torch.as_tensor(np.asarray(image.affine), dtype=torch.float64)
            result = transform(MetaTensor(image.data.float(), affine=affine))
            image.set_data(result.as_tensor().clone())
            image.affine = np.asarray(result.affine, dtype=np.float64)
        return subject

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.kind, self.options) == (other.kind, other.options)

    def __hash__(self) -> int:
        return hash(self.kind)


def map_preprocessing(described: Any) -> tuple[list[MonaiTransform], list[str]]:
    """Turn the preprocessing of a bundle into steps."""
    if described is None:
        return [], ["there is no 'preprocessing': images are given as they are stored"]
    transforms = described.get("transforms") if isinstance(described, Mapping) else described
    if not isinstance(transforms, list):
        return [], [f"preprocessing {described!r:.80} is not a list of transforms"]
    image_key = _image_key(transforms)
    steps, left_out = [], []
    for transform in transforms:
        step = _map(transform, image_key)
        if isinstance(step, MonaiTransform):
            steps.append(step)
        elif step is not None:
            left_out.append(step)
    if any(text.startswith("CropForeground") for text in left_out):
        followers = [step.kind for step in steps if step.kind in _STATISTICS]
        if followers:
            left_out.append(f"{followers} therefore look at the whole image")
    return steps, left_out


def _image_key(transforms: list[Any]) -> str:
    """Return the first key that is read."""
    for transform in transforms:
        keys = transform.get("keys") if isinstance(transform, Mapping) else None
        if isinstance(keys, (str, list)) and keys:
            return str(keys if isinstance(keys, str) else keys[0])
    return "image"


def _map(transform: Any, image_key: str) -> MonaiTransform | str | None:
    """Return a step, a clause on why there is none, or None where none is needed."""
    shown = transform.get(TARGET) if isinstance(transform, Mapping) else transform
    name = class_name(shown, "monai.transforms") if isinstance(transform, Mapping) else None
    if name is None:
        return f"{shown!r:.80} is not a transform of monai.transforms and was not run"
    kind = _array_name(name)
    keys = transform.get("keys", image_key)
    if image_key not in ([keys] if isinstance(keys, str) else keys) or kind in _READING:
        return None
    if kind == "CropForeground":
        return (
            "CropForeground is left out, so that voxels sampled in the background are found; "
            "values of the foreground are the same"
        )
    if kind not in _MAPPED:
        return f"{kind} has no counterpart and is left out"
    options = {
        key: _of_image(value, keys, image_key)
        for key, value in transform.items()
        if key != TARGET and key not in _OTHER_ARGUMENTS
    }
    expression = has_expression(options)
    if expression:
        return f"{kind} is left out: {expression!r} would run code"
    step = MonaiTransform(kind, {**_DEFAULTS.get(kind, {}), **options})
    try:
        step.build()
    except Exception as error:
        return f"{kind} is left out: {type(error).__name__}: {error}"
    return step


def _array_name(name: str) -> str:
    """Return the name of the transform of arrays that one of dictionaries applies."""
    for suffix in ("Dict", "d", "D"):
        if name.endswith(suffix) and name.removesuffix(suffix) in _MAPPED | _READING | {
            "CropForeground"
        }:
            return name.removesuffix(suffix)
    return name


def _of_image(value: Any, keys: Any, image_key: str) -> Any:
    """Take the image's own out of one value a key, as ``mode: [bilinear, nearest]`` has it."""
    per_key = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if per_key and isinstance(keys, list) and len(value) == len(keys):
        return value[keys.index(image_key)]
    return value


_DEEPEST = 50
_OWN_MACRO = re.compile(r"%(?!.*\.(json|ya?ml))[^%]+", re.DOTALL)  # of no other file
_INDEX = re.compile(r"[0-9]{1,6}")
# References to lists of references multiply: with this many values a file describes no model.
_MOST_VALUES = 100_000
# Keys beside the arguments that MONAI's parser looks at.
_ABOUT = ("_desc_", "_disabled_", "_requires_", "_mode_")


def resolve(config: Mapping[str, Any], value: Any) -> Any:
    """Follow the references (``@name``, ``@part::name``) in a value."""
    return _resolve(config, value, 0, count(1))


def _resolve(config: Mapping[str, Any], value: Any, depth: int, seen: Iterator[int]) -> Any:
    if next(seen) > _MOST_VALUES:
        raise BankError(
            f"its references (@) stand for more than {_MOST_VALUES} values, which was refused; "
            "write them out, or check where it comes from"
        )
    if depth > _DEEPEST:
        raise BankError(f"references lead in a circle, or too deep: {value!r:.80}")
    if isinstance(value, str) and (value.startswith("@") or _OWN_MACRO.fullmatch(value)):
        return _resolve(config, _look_up(config, value[1:], value[0]), depth + 1, seen)
    if isinstance(value, Mapping):
        return {
            key: _resolve(config, item, depth + 1, seen)
            for key, item in value.items()
            if key not in _ABOUT
        }
    if isinstance(value, list):
        used = (item for item in value if not _is_disabled(item))
        return [_resolve(config, item, depth + 1, seen) for item in used]
    return value


def _is_disabled(value: Any) -> bool:
    """Whether MONAI would leave a component out of a list."""
    flag = value.get("_disabled_", False) if isinstance(value, Mapping) else False
    return flag.strip().lower() == "true" if isinstance(flag, str) else bool(flag)


def _look_up(config: Mapping[str, Any], name: str, mark: str) -> Any:
    found: Any = config
    for part in re.split(r"::|#", name):
        if isinstance(found, list) and _INDEX.fullmatch(part) and int(part) < len(found):
            found = found[int(part)]
        elif isinstance(found, Mapping) and part in found:
            found = found[part]
        else:
            raise BankError(
                f"the reference '{mark}{name:.100}' leads nowhere: there is no {part[:100]!r}"
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
    """Return the class that a target names in a package of MONAI, or None."""
    path, _, name = str(target).rpartition(".")
    if path and path != package and not path.startswith(f"{package}."):
        return None
    return name if re.fullmatch(r"[A-Za-z]\w*", name) else None
