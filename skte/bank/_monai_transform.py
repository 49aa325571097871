"""MONAI's own transforms as steps of an entry's preprocessing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
import torch
import torchio as tio

from skte._digests import versioned
from skte.exceptions import BankError

__all__ = [
    "MonaiTransform",
    "TARGET",
    "class_name",
    "has_expression",
    "map_preprocessing",
    "resolve",
]

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
    name = class_name(transform.get(TARGET), "monai.transforms") if _is_map(transform) else None
    if name is None:
        shown = transform.get(TARGET) if _is_map(transform) else transform
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


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


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


#: The key that names a class.
TARGET = "_target_"

_DEEPEST = 50
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
    """Return the class that a target names in a package of MONAI, or None."""
    path, _, name = str(target).rpartition(".")
    if path and path != package and not path.startswith(f"{package}."):
        return None
    return name if re.fullmatch(r"[A-Za-z]\w*", name) else None
