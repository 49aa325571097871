"""One door for every form in which a dataset may come."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte.datasets._checks import raise_problems, repeated_ids, structure_problems
from skte.datasets._description import check_folder, read_description
from skte.datasets._filenames import is_file
from skte.datasets._folder import load_folder
from skte.datasets._msd import load_msd
from skte.datasets._nnunet import load_nnunet_raw
from skte.datasets._subject import copy_subject, subject_case_id
from skte.exceptions import DatasetError

__all__ = ["load_dataset"]

_LAYOUTS = (
    "Known layouts are the Medical Segmentation Decathlon's (dataset.json that lists "
    "'training'), nnU-Net raw (dataset.json with 'channel_names' or 'modality', imagesTr/, "
    "labelsTr/), and images/ with labels/ (load_folder takes other names)"
)


def load_dataset(dataset: Any) -> list[Any]:
    """Turn any accepted form of a dataset into a list of subjects.

    Parameters
    ----------
    dataset : path, SubjectsDataset, sequence of Subject, or sequence of dict
        A path is that of a folder in the layout of the Medical Segmentation Decathlon,
        in nnU-Net's raw layout, or with ``images`` and ``labels`` in it. A dict is as
        in MONAI's data lists: ``image`` (a path, a list of paths, an array or tensor)
        and ``label``; optionally ``case_id`` (or ``id``, ``name``, ``subject_id``),
        ``ignore_label``, ``label_names`` and ``affine``. Arrays are ``(x, y, z)``,
        ``(channels, x, y, z)``, ``(x, y)``, or ``(channels, x, y)`` beside a label
        ``(x, y)``.

    Returns
    -------
    list of Subject
        New subjects; those given are never changed. Lazy: no volume is read, unless a
        `SubjectsDataset` has a transform, which must be applied. Each has ``case_id``,
        ``ignore_label`` and ``label_names``. A case without an id is named by its
        image's file name, or else by its position.

    Raises
    ------
    DatasetError
        If the form or layout is unknown, files are missing, cases lack image or label,
        or ids repeat; one message lists all problems.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.datasets import load_dataset
    >>> image = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> cases = load_dataset([{"id": "a", "image": image, "label": image > 1}])
    >>> cases[0]["case_id"]
    'a'
    """
    if isinstance(dataset, (str, os.PathLike)):
        return _load_path(dataset)
    if isinstance(dataset, (tio.Subject, Mapping)):
        raise DatasetError(
            f"A dataset is a list of cases, got a single {type(dataset).__name__}: "
            "put it in a list."
        )
    items = _items(dataset)
    if not items:
        raise DatasetError("The dataset holds no case: give at least two.")
    subjects: list[Any] = []
    problems: list[str] = []
    for index, item in enumerate(items):
        try:
            subject = item if isinstance(item, tio.Subject) else _from_dict(item)
            case_id = subject_case_id(subject, index)
            wrong = structure_problems(case_id, subject)
            subjects += [] if wrong else [copy_subject(subject, case_id)]
            problems += wrong
        except Exception as error:
            problems.append(f"{_name(item, index)}: {error}")
    problems += repeated_ids(subject["case_id"] for subject in subjects)
    raise_problems("The dataset cannot be loaded", problems)
    return subjects


def _load_path(path: str | os.PathLike[str]) -> list[Any]:
    folder = check_folder(path)
    if (folder / "dataset.json").is_file():
        description = read_description(folder)
        if {"channel_names", "file_ending", "dataset"} & description.keys():
            return load_nnunet_raw(folder)
        if "training" in description and not _lists_channels(folder, description["training"]):
            return load_msd(folder)
        if "modality" in description:
            return load_nnunet_raw(folder)
        raise DatasetError(
            f"{folder / 'dataset.json'} has none of the keys 'training', 'channel_names' and "
            f"'modality', so its layout is unknown. {_LAYOUTS}."
        )
    if (folder / "images").is_dir() or (folder / "labels").is_dir():
        return load_folder(folder)
    if (folder / "imagesTr").is_dir():
        hint = " For this folder, load_folder(path, images='imagesTr', labels='labelsTr') may do."
    else:
        hint = ""
    raise DatasetError(f"The layout of {folder} is unknown. {_LAYOUTS}.{hint}")


def _lists_channels(folder: Path, training: object) -> bool:
    """Whether images are listed as in nnU-Net v1: without the ``_0000`` of their files."""
    first = training[0] if isinstance(training, list) and training else None
    text = first.get("image") if isinstance(first, dict) else None
    if not isinstance(text, str) or not Path(text).name or is_file(folder / text):
        return False
    name = Path(text).name
    return is_file((folder / text).with_name(name.replace(".", "_0000.", 1)))


def _items(dataset: Any) -> list[Any]:
    if isinstance(dataset, tio.SubjectsDataset):
        transform = getattr(dataset, "_transform", None)
        if transform is None:
            return list(dataset.dry_iter())
        if random := _random_transforms(transform):
            raise DatasetError(
                f"The SubjectsDataset applies random transforms ({', '.join(random)}), so that "
                "no two looks at a case agree: give a dataset without augmentation."
            )
        return [dataset[i] for i in range(len(dataset))]
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return [dataset[i] for i in range(len(dataset))]
    if isinstance(dataset, Iterable):
        return list(dataset)
    raise DatasetError(
        "A dataset is a path, a SubjectsDataset, or a list of torchio Subjects or dicts with "
        f"'image' and 'label', got {type(dataset).__name__}."
    )


def _random_transforms(transform: Any) -> list[str]:
    if isinstance(transform, tio.Compose):
        return [name for inner in transform.transforms for name in _random_transforms(inner)]
    random = isinstance(transform, tio.transforms.augmentation.RandomTransform)
    return [type(transform).__name__] if random else []


def _from_dict(item: Any) -> Any:
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


def _name(item: Any, index: int) -> str:
    for key in ("case_id", "id", "name", "subject_id"):
        if isinstance(item, Mapping) and item.get(key) is not None:
            return f"Case {item[key]!r}"
    return f"Case at position {index}"
