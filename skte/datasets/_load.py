"""One door for every form in which a dataset may come."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torchio as tio

from skte.datasets._case_list import CaseList
from skte.datasets._checks import repeated_ids, structure_problems
from skte.datasets._description import ExtraRoots
from skte.datasets._from_dict import subject_from_dict
from skte.datasets._label_scheme import Labels, relabel_subjects
from skte.datasets._layouts import load_path
from skte.datasets._problem import Problem, raise_problems
from skte.datasets._subject import copy_subject, subject_case_id
from skte.exceptions import DatasetError

__all__ = ["DatasetLike", "as_subjects", "load_dataset"]

#: Type of what is taken as a dataset: a path, a `SubjectsDataset`, subjects or dicts (mappings
#: both); see `load_dataset`.
DatasetLike: TypeAlias = (
    str | os.PathLike[str] | Iterable[Mapping[str, Any]] | torch.utils.data.Dataset[Any]
)


def load_dataset(
    dataset: DatasetLike,
    *,
    labels: Labels | None = None,
    channels: Sequence[str] | None = None,
    layout: str | None = None,
    extra_roots: ExtraRoots = (),
) -> CaseList:
    """Turn any accepted form of a dataset into a list of subjects.

    Parameters
    ----------
    dataset : path, SubjectsDataset, sequence of Subject, or sequence of dict
        A path is that of a folder in one of the layouts below, or of a CSV file. A dict
        is as in MONAI's data lists: ``image`` (a path, a list of paths, an array or
        tensor) and ``label``; optionally ``case_id`` (or ``id``, ``name``,
        ``subject_id``), ``ignore_label``, ``label_names`` and ``affine``. Arrays are
        ``(x, y, z)``, ``(channels, x, y, z)``, ``(x, y)``, or ``(channels, x, y)``
        beside a label ``(x, y)``.
    labels : mapping, optional
        The classes to rank for, made of the dataset's labels by name or id:
        ``{"heart": ["LV", "RV", "MYO"]}``. They are numbered from 1 in the order given;
        everything else becomes background. Where classes overlap, the later one wins,
        as in nnU-Net's ``regions_class_order``. The name ``background`` adds to the
        background, the name ``ignore`` to what is left out of every score; what the
        dataset itself ignores stays ignored. None: the dataset's own classes.
    channels : sequence of str, optional
        Channels to read, in order: names in nnU-Net's ``channel_names``, suffixes of
        BIDS (``["T1w", "FLAIR"]``), columns of a CSV, or series folders of DICOM. Other
        forms have no names. None: all of them.
    layout : {"msd", "nnunet", "bids", "folder", "dicom", "csv"}, optional
        How a path is read; None: found by itself, an error where it could be several.
    extra_roots : sequence of path-like, default=()
        Folders that links and paths may lead to. By default all files lie in the folder that
        is given, or that of the CSV file. Paths in a list of subjects or dicts may lead
        anywhere; what a detached header (``.mhd``, ``.nhdr``) names lies beside it, or in
        these folders.

    Returns
    -------
    CaseList
        New subjects; those given are never changed. Lazy: no volume is read, unless a
        `SubjectsDataset` has a transform, which must be applied. Each has ``case_id``,
        ``ignore_label``, ``label_names`` (by id) and ``label_ids`` (by name, regions
        included). A case without an id is named by its image's file name, or else by
        its position.

    Raises
    ------
    DatasetError
        If the form or layout is unknown, files are missing, cases lack image or label,
        ids repeat, or `labels` or `channels` names what is not there; one message lists
        all problems.

    See Also
    --------
    inspect_dataset : What is in a dataset, and what is wrong with it.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.datasets import load_dataset, read_case
    >>> image = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> label = np.arange(512).reshape(8, 8, 8) % 4
    >>> names = {0: "background", 1: "LV", 2: "RV", 3: "MYO"}
    >>> item = {"id": "a", "image": image, "label": label, "label_names": names}
    >>> cases = load_dataset([item], labels={"ventricle": ["LV", "RV"], "wall": "MYO"})
    >>> cases[0]["case_id"], cases[0]["label_names"]
    ('a', {0: 'background', 1: 'ventricle', 2: 'wall'})
    >>> read_case(cases[0]).label[0, 0].tolist()
    [0, 1, 1, 2, 0, 1, 1, 2]
    """
    if isinstance(dataset, (str, os.PathLike)):
        subjects = load_path(
            dataset, layout, channels, merge_regions=labels is None, extra_roots=extra_roots
        )
        return CaseList(relabel_subjects(subjects, labels))
    if channels is not None or layout is not None:
        raise DatasetError("channels and layout say how files are read: give a path with them.")
    if isinstance(dataset, (tio.Subject, Mapping)):
        raise DatasetError(
            f"A dataset is a list of cases, got a single {type(dataset).__name__}: "
            "put it in a list."
        )
    items = _items(dataset)
    if not items:
        raise DatasetError("The dataset holds no case: give at least two.")
    return CaseList(relabel_subjects(_subjects(items, extra_roots), labels))


def as_subjects(dataset: DatasetLike) -> list[Any]:
    """Return subjects as they are, whatever is wrong with them, and load all else."""
    if isinstance(dataset, Sequence) and all(isinstance(one, tio.Subject) for one in dataset):
        return list(dataset)
    return load_dataset(dataset)


def _subjects(items: Sequence[Any], extra_roots: ExtraRoots) -> list[Any]:
    subjects: list[Any] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        try:
            subject = item if isinstance(item, tio.Subject) else subject_from_dict(item)
            case_id = subject_case_id(subject, index)
            wrong = structure_problems(case_id, subject)
            subjects += [] if wrong else [copy_subject(subject, case_id, extra_roots)]
            problems += wrong
        except Exception as error:
            problems.append(Problem(_name(item, index), str(error), "mend it or leave it out"))
    problems += repeated_ids(subject["case_id"] for subject in subjects)
    raise_problems("The dataset cannot be loaded", problems)
    return subjects


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


def _name(item: Any, index: int) -> str:
    for key in ("case_id", "id", "name", "subject_id"):
        if isinstance(item, Mapping) and item.get(key) is not None:
            return str(item[key])
    return f"at position {index}"
