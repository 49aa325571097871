"""Transforms of a MONAI bundle as steps of preprocessing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torchio as tio

from skte._digests import versioned
from skte.bank._monai_config import TARGET, Refused, refused_in

_PACKAGE = "monai.transforms"
_MOST_COPIES = 100
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
_OTHERS = frozenset({"Compose", "ConcatItems", "CropForeground"})
# Modules of MONAI whose transforms leave voxels where they are.
_IN_PLACE = ("monai.transforms.intensity", "monai.transforms.post")
# Arguments that say where results go, or that are about the label.
_OTHER_ARGUMENTS = ("keys", "allow_missing_keys", "meta_keys", "meta_key_postfix", "image_only")
# Said outright, because MONAI warns that the default is about to change.
_DEFAULTS = {"Orientation": {"labels": (("L", "R"), ("P", "A"), ("I", "S"))}}
# Scale or place what a crop has left.
_SIZED = ("BorderPad", "DivisiblePad", "Resize", "SpatialPad")
_STATISTICS = ("NormalizeIntensity", "ScaleIntensity", "ScaleIntensityRangePercentiles")


@versioned("transform of MONAI", 1)
class MonaiTransform(tio.SpatialTransform):
    """One of MONAI's array transforms; its affine is followed."""

    def __init__(self, kind: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind = kind
        self.options = dict(options)
        self.channels = None  # which digests hold
        self.args_names = ["kind", "options"]

    def build(self) -> Any:
        """Make MONAI's transform."""
        if self.kind not in _MAPPED:
            raise ValueError(f"{self.kind!r} is not a transform of MONAI that skte uses")
        return getattr(importlib.import_module(_PACKAGE), self.kind)(**self.options)

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Apply it to every image."""
        from monai.data import MetaTensor

        transform = self.build()
        for image in self.get_images(subject):
            affine = torch.as_tensor(np.asarray(image.affine), dtype=torch.float64)
            data = image.data.float()
            parts = data.unbind(-1) if self._is_of_slices() else [data]
            results = [transform(MetaTensor(part, affine=affine)) for part in parts]
            whole = [result.as_tensor().clone() for result in results]
            image.set_data(torch.stack(whole, -1) if self._is_of_slices() else whole[0])
            image.affine = np.asarray(results[0].affine, dtype=np.float64)
        return subject

    def _is_of_slices(self) -> bool:
        """Whether it says how large slices are to be, as in bundles of 2-D networks."""
        sizes = (self.options.get(name) for name in ("spatial_size", "pixdim"))
        return any(isinstance(size, (list, tuple)) and len(size) == 2 for size in sizes)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.args_names)

    def __hash__(self) -> int:
        return hash(self.kind)


@dataclass
class MappedSteps:
    """Steps of preprocessing, and clauses on why others are not among them.

    Those in `left_out` keep voxels where they are; those in `missing` may not.
    """

    steps: list[MonaiTransform] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def map_preprocessing(described: Any) -> MappedSteps:
    """Turn the preprocessing of a bundle into steps."""
    mapped = MappedSteps()
    if described is None:
        mapped.left_out.append("'preprocessing' is empty: images are given as they are stored")
        return mapped
    transforms = _flattened(described)
    if isinstance(transforms, str):
        mapped.missing.append(transforms)
        return mapped
    reader = _Reader(transforms, mapped)
    for transform in transforms:
        reader.add(transform)
    if reader.cropped:
        followers = [step.kind for step in mapped.steps if step.kind in _STATISTICS]
        if followers:
            mapped.left_out.append(f"{followers} therefore look at the whole image")
    return mapped


def _flattened(described: Any) -> list[Any] | str:
    """List transforms without those that compose others; or say why they cannot be listed."""
    inner = described.get("transforms") if isinstance(described, Mapping) else described
    if not isinstance(inner, list):
        inner = described if isinstance(described, Mapping) and inner is None else inner
        if isinstance(inner, Refused):
            return str(inner)
        return f"{inner!r:.80} is not a list of transforms"
    found: list[Any] = []
    for transform in inner:
        if isinstance(transform, Mapping) and _kind(transform) == "Compose":
            nested = _flattened(transform)
            if isinstance(nested, str):
                return nested
            found += nested
        else:
            found.append(transform)
    return found


class _Reader:
    """Maps one transform after another; knows by which keys the image goes."""

    def __init__(self, transforms: Sequence[Any], mapped: MappedSteps) -> None:
        self.mapped = mapped
        self.cropped = False  # by a step that is left out
        self.key = _first_key(transforms)
        self.copies: list[Any] = []  # keys of copies of the image

    def add(self, transform: Any) -> None:
        """Map a transform to a step, or to a clause on why there is none."""
        kind = _kind(transform)
        keys = _keys(transform, self.key)
        copy = next((one for one in self.copies if one in keys), None)
        if kind is None:
            named = transform.get(TARGET) if isinstance(transform, Mapping) else transform
            strange = f"{named!r:.80} is not a transform of {_PACKAGE} and was not run"
            self.mapped.missing.append(str(named) if isinstance(named, Refused) else strange)
        elif (found := refused_in(keys)) is not None:
            self.mapped.missing.append(f"what {kind} is applied to is unknown: {found}")
        elif kind == "CopyItems":
            self._follow(transform, keys)
        elif copy is not None and kind not in _READING:
            copied = f"is applied to {copy!r:.80}, a copy of the image, which is not followed"
            self.mapped.missing.append(f"{kind} {copied}")
        elif kind == "ConcatItems":
            self.mapped.missing.append(
                "ConcatItems joins channels that are read apart, which is not followed: store the "
                "channels of each case in one file"
            )
        elif kind not in _READING and self.key in keys:
            self._add(kind, _options(transform, keys, self.key))

    def _follow(self, transform: Mapping[str, Any], keys: list[Any]) -> None:
        """Note under which keys copies of the image go."""
        times = transform.get("times", 1)
        n_times = min(times, _MOST_COPIES) if isinstance(times, int) else 1
        usual = [f"{key}_{i}" for key in keys for i in range(n_times)]
        names = usual if transform.get("names") is None else _listed(transform["names"])
        for i, name in enumerate(names):
            if keys and keys[i % len(keys)] in [self.key, *self.copies]:
                self.copies.append(name)

    def _add(self, kind: str, options: dict[str, Any]) -> None:
        if kind == "CropForeground":
            self.cropped = True
            self.mapped.left_out.append(
                "CropForeground is left out, so that voxels sampled in the background are found; "
                "values of the foreground are the same"
            )
            return
        step = MonaiTransform(kind, {**_DEFAULTS.get(kind, {}), **options})
        known = getattr(importlib.import_module(_PACKAGE), kind, None)
        in_place = str(getattr(known, "__module__", "")).startswith(_IN_PLACE)
        harmless = in_place or kind.startswith("Rand")
        reason = _problem(step)
        if self.cropped and kind in _SIZED:
            reason = "CropForeground before it is left out, so it would act on the whole image"
        if reason is None:
            self.mapped.steps.append(step)
        elif harmless:
            self.mapped.left_out.append(f"{kind} is left out: {reason}")
        else:
            self.mapped.missing.append(f"{kind} cannot be taken: {reason}")


def _problem(step: MonaiTransform) -> str | None:
    """Say why a step is not taken."""
    if step.kind not in _MAPPED:
        return "it has no counterpart"
    refused = refused_in(step.options)
    if refused:
        return str(refused)
    try:
        step.build()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _kind(transform: Any) -> str | None:
    """Name the transform of arrays that a description stands for; None for what is not MONAI's."""
    name = class_name(transform.get(TARGET), _PACKAGE) if isinstance(transform, Mapping) else None
    known = _MAPPED | _READING | _OTHERS
    inner = ((name or "").removesuffix(suffix) for suffix in ("Dict", "d", "D"))
    return next((one for one in inner if one in known), name)


def _keys(transform: Any, default: str = "image") -> list[Any]:
    return _listed(transform.get("keys", default) if isinstance(transform, Mapping) else default)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _first_key(transforms: Sequence[Any]) -> str:
    """Return the first key that is read."""
    for transform in transforms:
        keys = transform.get("keys") if isinstance(transform, Mapping) else None
        if isinstance(keys, (str, list)) and keys:
            return str(keys if isinstance(keys, str) else keys[0])
    return "image"


def _options(transform: Mapping[str, Any], keys: list[Any], key: str) -> dict[str, Any]:
    """Return the arguments of a transform for one of its keys."""
    return {
        name: _of_key(value, keys, key)
        for name, value in transform.items()
        if name != TARGET and name not in _OTHER_ARGUMENTS
    }


def _of_key(value: Any, keys: list[Any], key: str) -> Any:
    """Take a key's own out of one value per key, as ``mode: [bilinear, nearest]`` has it."""
    per_key = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if per_key and len(value) == len(keys):
        return value[keys.index(key)]
    return value


def class_name(target: Any, package: str) -> str | None:
    """Return the class that a target names in a package of MONAI, or None."""
    path, _, name = str(target).rpartition(".")
    if path and path != package and not path.startswith(f"{package}."):
        return None
    return name if re.fullmatch(r"[A-Za-z]\w*", name) else None
