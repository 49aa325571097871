"""The layout of the Medical Segmentation Decathlon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skte.datasets._checks import raise_problems, repeated_ids
from skte.datasets._description import check_folder, read_description, resolve_inside
from skte.datasets._filenames import image_stem
from skte.datasets._label_names import parse_labels
from skte.datasets._subject import make_subject

__all__ = ["load_msd"]


def load_msd(path: str | os.PathLike[str]) -> list[Any]:
    """Load a dataset in the layout of the Medical Segmentation Decathlon.

    A folder with ``dataset.json``, whose ``training`` lists pairs of ``image`` and
    ``label`` (paths relative to the folder) and whose ``labels`` names the class ids.
    A case is named by its image's file name. A 4-D image has its channels last.

    Parameters
    ----------
    path : path-like
        The folder.

    Returns
    -------
    list of Subject
        Lazy: no volume is read. Each has ``image``, ``label``, ``case_id``,
        ``ignore_label`` (None) and ``label_names``.

    Raises
    ------
    DatasetError
        If the folder, ``dataset.json`` or files are missing or broken; one message
        lists all problems.

    Examples
    --------
    >>> from skte.datasets import load_msd
    >>> cases = load_msd("Task04_Hippocampus")  # doctest: +SKIP
    >>> cases[0]["label_names"]  # doctest: +SKIP
    {0: 'background', 1: 'Anterior', 2: 'Posterior'}
    """
    folder = check_folder(path)
    description = read_description(folder)
    names, ignore_label, problems = parse_labels(description.get("labels"))
    training = description.get("training")
    if not isinstance(training, list):
        problems.append("key 'training' must list objects with 'image' and 'label'")
        training = []
    elif not training:
        problems.append("key 'training' lists no case")
    found: list[tuple[str, list[Path], Path]] = []
    for index, item in enumerate(training):
        images, label, wrong = _parse_item(folder, item)
        problems += [f"training[{index}]: {text}" for text in wrong]
        if label is not None and not wrong:
            stem = image_stem(images[0]) or images[0].name
            found.append((stem.removesuffix("_0000"), images, label))
    problems += repeated_ids(case_id for case_id, _, _ in found)
    raise_problems(f"The dataset {folder} cannot be loaded", problems)
    return [
        make_subject(case_id, images, label, ignore_label=ignore_label, label_names=names)
        for case_id, images, label in found
    ]


def _parse_item(folder: Path, item: object) -> tuple[list[Path], Path | None, list[str]]:
    """Image files, label file and problems of one entry of ``training``."""
    if not isinstance(item, dict):
        return [], None, [f"must be an object with 'image' and 'label', got {item!r}"]
    problems = [f"key {key!r} is missing" for key in ("image", "label") if not item.get(key)]
    if problems:
        return [], None, problems
    listed = item["image"] if isinstance(item["image"], list) else [item["image"]]
    *images, label = (resolve_inside(folder, text) for text in [*listed, item["label"]])
    problems = [f"image: {wrong}" for _, wrong in images if wrong]
    if label[1]:
        problems.append(f"label: {label[1]}")
    return [file for file, _ in images], label[0], problems
