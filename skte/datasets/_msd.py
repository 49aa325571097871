"""The layout of the Medical Segmentation Decathlon, and dataset.json."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skte.datasets._case import CaseList, make_subject, repeated_ids, stem_case_id
from skte.datasets._folder import ExtraRoots, check_folder, data_roots, finish
from skte.datasets._image_file import file_flaw, find_file, image_stem
from skte.datasets._labels import label_id, parse_labels
from skte.datasets._problem import Flaw, Problem, case_problems, raise_problems
from skte.exceptions import DatasetError

__all__ = [
    "count_notes",
    "describes_files",
    "has_description",
    "is_msd",
    "load_msd",
    "read_description",
    "read_json",
    "resolve_inside",
]

_MOST_BYTES = 16_000_000  # of dataset.json; parsed, it takes up to thirty times as much


def has_description(folder: Path) -> bool:
    """Whether a folder has a ``dataset.json``, be it a link to nothing."""
    path = folder / "dataset.json"
    return path.exists() or path.is_symlink()


def read_description(folder: Path, roots: Sequence[Path]) -> dict[str, Any]:
    """Return the content of a folder's ``dataset.json``, an object."""
    path = folder / "dataset.json"
    if not has_description(folder):
        raise DatasetError(
            f"{folder} has no dataset.json: this layout needs one. Without it, "
            "load_folder(path, images=..., labels=...) reads two folders of files."
        )
    content = read_json(path, roots)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold an object ({{...}}), got {type(content).__name__}.")
    return content


def read_json(path: Path, roots: Sequence[Path]) -> Any:
    """Return what a JSON file of a dataset holds."""
    if flaw := file_flaw(path, roots):
        raise DatasetError(f"{path} cannot be read: {flaw[0]}; {flaw[1]}.")
    if path.stat().st_size > _MOST_BYTES:
        raise DatasetError(f"{path} has more than {_MOST_BYTES} bytes: list fewer cases in it.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}): fix it.") from error


def count_notes(description: Mapping[str, Any], n_cases: int) -> list[Problem]:
    """Note that there are not as many cases as ``numTraining`` says."""
    stated = description.get("numTraining")
    if label_id(stated) in (None, n_cases):
        return []
    what = f"dataset.json: 'numTraining' is {stated!r:.50}, but the number of cases is {n_cases}"
    return [Problem(None, what, "check for missing cases, or correct it")]


def resolve_inside(
    folder: Path, relative: object, roots: Sequence[Path]
) -> tuple[Path, Flaw | None]:
    """Return the path of a file that a description names, and what is wrong with it."""
    if not isinstance(relative, str) or not relative:
        return folder, (f"{relative!r:.200} is not a path", "write the path of a file")
    path = find_file(folder, relative)
    return path, file_flaw(path, roots, name=relative)


def load_msd(path: str | os.PathLike[str], *, extra_roots: ExtraRoots = ()) -> CaseList:
    """Load a dataset in the layout of the Medical Segmentation Decathlon.

    A folder with ``dataset.json``, whose ``training`` lists pairs of ``image`` and
    ``label`` (paths relative to the folder) and whose ``labels`` names the class ids.
    A case is named by its image's file name. A 4-D image has its channels last.

    Parameters
    ----------
    path : path-like
        The folder.
    extra_roots : sequence of path-like, default=()
        Folders outside it that links and paths may lead to.

    Returns
    -------
    CaseList
        Lazy subjects: no volume is read. Each has ``image``, ``label``, ``case_id``,
        ``ignore_label`` (None), ``label_names`` and ``label_ids``.

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
    roots = data_roots(folder, extra_roots)
    description = read_description(folder, roots)
    members, ignore_label, flaws = parse_labels(description.get("labels"))
    problems = case_problems(None, flaws)
    training = description.get("training")
    if not isinstance(training, list):
        remedy = "list objects with 'image' and 'label'"
        problems.append(Problem(None, "dataset.json: key 'training' is not a list", remedy))
        training = []
    elif not training:
        problems.append(Problem(None, "dataset.json: key 'training' lists no case", "add some"))
    found: list[tuple[str, list[Path], Path]] = []
    for index, item in enumerate(training):
        images, label, wrong = _parse_item(folder, item, roots)
        problems += [Problem(None, f"training[{index}]: {what}", do) for what, do in wrong]
        if label is not None and not wrong:
            found.append((stem_case_id(images[0]), images, label))
    problems += repeated_ids(case_id for case_id, _, _ in found)
    raise_problems(f"The dataset {folder} cannot be loaded", problems)
    subjects = [
        make_subject(
            case_id, images, label, roots=roots, ignore_label=ignore_label, members=members
        )
        for case_id, images, label in found
    ]
    notes = count_notes(description, len(found))
    return finish(folder, subjects, notes=notes, read=[folder / "dataset.json"])


def _parse_item(
    folder: Path, item: object, roots: Sequence[Path]
) -> tuple[list[Path], Path | None, list[Flaw]]:
    """Image files, label file and flaws of one entry of ``training``."""
    if not isinstance(item, dict):
        what = f"must be an object with 'image' and 'label', got {item!r:.200}"
        return [], None, [(what, "write one")]
    if missing := [key for key in ("image", "label") if not item.get(key)]:
        keys = " and ".join(map(repr, missing))
        return [], None, [(f"key {keys} is missing", "name the file")]
    listed = item["image"] if isinstance(item["image"], list) else [item["image"]]
    *images, label = (resolve_inside(folder, text, roots) for text in [*listed, item["label"]])
    flaws = [(f"image: {wrong[0]}", wrong[1]) for _, wrong in images if wrong]
    if label[1]:
        flaws.append((f"label: {label[1][0]}", label[1][1]))
    return [file for file, _ in images], label[0], flaws


def is_msd(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether ``dataset.json`` lists files as the Decathlon does."""
    if not has_description(folder):
        return False
    description = read_description(folder, data_roots(folder, extra_roots))
    return describes_files(folder, description)


def describes_files(folder: Path, description: Mapping[str, Any]) -> bool:
    """Whether a description lists files, and not nnU-Net's cases: without their ``_0000``."""
    if {"channel_names", "file_ending", "dataset"} & description.keys():
        return False
    training = description.get("training", ())
    first = training[0] if isinstance(training, list) and training else None
    text = first.get("image") if isinstance(first, dict) else None
    if not isinstance(text, str) or not Path(text).name or os.path.lexists(folder / text):
        return "training" in description
    file = Path(text)
    stem = image_stem(file) or file.stem
    ending = file.name[len(stem) :]
    return not os.path.lexists(find_file(folder, str(file.with_name(f"{stem}_0000{ending}"))))
