"""Cases in memory as MONAI's data lists have them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte.exceptions import DatasetError

__all__ = ["subject_from_dict"]


def subject_from_dict(item: Any) -> Any:
    """Return the subject of an entry of a MONAI data list."""
    if not isinstance(item, Mapping):
        raise DatasetError(
            "a case is a torchio Subject or a dict with 'image' and 'label', got "
            f"{type(item).__name__}"
        )
    if odd := [key for key in item if not isinstance(key, str)]:
        raise DatasetError(f"keys of a case must be text, got {', '.join(map(repr, odd))}")
    missing = [key for key in ("image", "label") if item.get(key) is None]
    if missing:
        raise DatasetError(f"key {' and '.join(map(repr, missing))} missing")
    affine = item.get("affine")
    label = _as_image(tio.LabelMap, item["label"], affine)
    flat_label = getattr(item["label"], "ndim", 0) == 2
    image = _as_image(tio.ScalarImage, item["image"], affine, channels_first_2d=flat_label)
    rest = {k: v for k, v in item.items() if k not in ("image", "label", "affine")}
    return tio.Subject(image=image, label=label, **rest)


def _as_image(kind: Any, value: Any, affine: Any, *, channels_first_2d: bool = False) -> Any:
    if isinstance(value, tio.Image):
        return value if isinstance(value, kind) else kind(tensor=value.data, affine=value.affine)
    if isinstance(value, (str, os.PathLike)):
        return kind(value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (str, os.PathLike)):
        return kind(list(value) if len(value) > 1 else value[0])
    # MONAI's MetaTensor knows its affine.
    affine = getattr(value, "affine", None) if affine is None else affine
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = _four_axes(np.asarray(value), channels_first_2d)
    affine = None if affine is None else np.asarray(affine, dtype=np.float64)
    return kind(tensor=torch.from_numpy(array), affine=affine)


def _four_axes(array: NDArray[Any], channels_first_2d: bool) -> NDArray[Any]:
    """(channels, x, y, z) in a type torch has, without changing the caller's array."""
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif array.ndim == 3:
        array = array[..., None] if channels_first_2d else array[None]
    if array.ndim != 4:
        raise DatasetError(f"an array of shape {array.shape} is neither 2-D nor 3-D")
    if array.dtype.kind not in "iufbc":
        raise DatasetError(f"an array of type {array.dtype} holds no numbers")
    return np.array(array, dtype=_torch_type(array), order="C")


def _torch_type(array: NDArray[Any]) -> np.dtype[Any]:
    """Return the nearest type that torch has: native byte order, at most 64 bits a number."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "u":
        # Beyond int64 as floats, so that they stay large instead of turning negative.
        beyond = size == 8 and array.size and int(array.max()) >= 2**63
        return np.dtype(np.float64 if beyond else np.int64)
    if kind == "f" and size > 8:
        return np.dtype(np.float64)
    if kind == "c" and size > 16:
        return np.dtype(np.complex128)
    return array.dtype.newbyteorder("=")
