"""The raw layout of nnU-Net, versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skte.datasets._channels import match_files
from skte.datasets._checks import raise_problems
from skte.datasets._description import check_folder, read_description
from skte.datasets._filenames import image_stem, is_file, list_images
from skte.datasets._label_names import parse_labels
from skte.datasets._subject import make_subject

__all__ = ["load_nnunet_raw"]

_Cases = dict[str, tuple[list[Path], Path]]


def load_nnunet_raw(path: str | os.PathLike[str]) -> list[Any]:
    """Load a dataset in the raw layout of nnU-Net (version 1 or 2).

    A folder with ``dataset.json``, ``imagesTr/case_0000.nii.gz`` (one file a channel)
    and ``labelsTr/case.nii.gz``. From ``dataset.json`` are read ``channel_names`` (or
    ``modality``), ``labels`` (an integer each, or a list of them for a region; the
    label named ``ignore`` is left out of every score), ``file_ending`` and, where
    given, ``dataset`` with the paths of each case.

    Parameters
    ----------
    path : path-like
        The folder, ``Dataset001_Name`` for instance.

    Returns
    -------
    list of Subject
        Lazy: no volume is read. Each has ``image``, ``label``, ``case_id``,
        ``ignore_label`` and ``label_names``. An id that lies in several regions is
        named by the smallest.

    Raises
    ------
    DatasetError
        If the folder, ``dataset.json`` or files are missing or broken; one message
        lists all problems.

    Notes
    -----
    As in nnU-Net, paths under ``dataset`` are relative to the folder and may lead out
    of it, or be absolute.

    Examples
    --------
    >>> from skte.datasets import load_nnunet_raw
    >>> cases = load_nnunet_raw("nnUNet_raw/Dataset004_Hippocampus")  # doctest: +SKIP
    """
    folder = check_folder(path)
    description = read_description(folder)
    names, ignore_label, problems = parse_labels(description.get("labels"))
    channels = description.get("channel_names", description.get("modality"))
    if not isinstance(channels, (dict, list)) or not channels:
        problems.append(
            "key 'channel_names' (in version 1 'modality') must name the channels, "
            'for instance {"0": "MRI"}'
        )
        channels = []
    ending = description.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending.startswith("."):
        problems.append(f"key 'file_ending' must be a text such as '.nii.gz', got {ending!r}")
        ending = ".nii.gz"
    if "dataset" in description:
        cases, wrong = _explicit_cases(folder, description["dataset"], len(channels))
    else:
        cases, wrong = _scan_cases(folder, description, ending, len(channels))
    raise_problems(f"The dataset {folder} cannot be loaded", problems + wrong)
    return [
        make_subject(case_id, images, label, ignore_label=ignore_label, label_names=names)
        for case_id, (images, label) in cases.items()
    ]


def _explicit_cases(folder: Path, listed: object, n_channels: int) -> tuple[_Cases, list[str]]:
    """Cases of ``"dataset": {"case": {"images": [...], "label": ...}}``."""
    if not isinstance(listed, dict) or not listed:
        return {}, ["key 'dataset' must be an object of cases with 'images' and 'label'"]
    cases: _Cases = {}
    problems = []
    for case_id, item in listed.items():
        images = item.get("images") if isinstance(item, dict) else None
        label = item.get("label") if isinstance(item, dict) else None
        images = [images] if isinstance(images, str) else images
        if not images or not isinstance(images, list) or not isinstance(label, str):
            problems.append(f"case {case_id!r} under 'dataset' needs 'images' and 'label'")
            continue
        files = [Path(os.path.normpath(folder / str(text))) for text in [*images, label]]
        problems += [
            f"case {case_id!r}: the file {file!s:.400} does not exist"
            for file in files
            if not is_file(file)
        ]
        if n_channels and len(images) != n_channels:
            problems.append(
                f"case {case_id!r} has {len(images)} images, 'channel_names' has {n_channels}"
            )
        cases[str(case_id)] = (files[:-1], files[-1])
    return cases, problems


def _scan_cases(
    folder: Path, description: dict[str, Any], ending: str, n_channels: int
) -> tuple[_Cases, list[str]]:
    """Cases of ``imagesTr`` and ``labelsTr``."""
    problems = [
        f"there is no folder {name!r} in it"
        for name in ("imagesTr", "labelsTr")
        if not (folder / name).is_dir()
    ]
    if problems:
        return {}, problems
    images, labels = (list_images(folder / name, (ending,)) for name in ("imagesTr", "labelsTr"))
    problems = [
        f"folder {name!r} holds no file that ends in {ending!r} (key 'file_ending')"
        for name, files in (("imagesTr", images), ("labelsTr", labels))
        if not files
    ]
    if problems:
        return {}, problems
    cases, problems = match_files(images, labels, n_channels=n_channels or None)
    return cases, problems + _unlisted(description.get("training"), cases)


def _unlisted(training: object, cases: _Cases) -> list[str]:
    """Cases that version 1 lists under ``training`` and that have no files."""
    if not isinstance(training, list):
        return []
    labels = [item.get("label") for item in training if isinstance(item, dict)]
    stems = [image_stem(Path(text)) for text in labels if isinstance(text, str)]
    return [
        f"case {stem!r} is listed under 'training', but its files do not exist"
        for stem in stems
        if stem is not None and stem not in cases
    ]
