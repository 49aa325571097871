"""Layouts that ``dataset.json`` describes: the Decathlon's, and nnU-Net's raw one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skte.datasets._case import CaseList, make_subject, repeated_ids, stem_case_id
from skte.datasets._folder import (
    CaseFiles,
    ExtraRoots,
    case_file_problems,
    channel_problems,
    check_folder,
    complete_cases,
    data_roots,
    finish,
    match_files,
)
from skte.datasets._image_file import file_flaw, find_file, image_stem, list_images
from skte.datasets._labels import label_id, parse_labels, relabel_subject
from skte.datasets._labels import merge_regions as plan_regions
from skte.datasets._problem import Flaw, Problem, case_problems
from skte.datasets._read import ChannelReader
from skte.exceptions import DatasetError

_NAME = "dataset.json"
_MOST_BYTES = 16_000_000  # of it; parsed, it takes up to thirty times as much
_OF_NNUNET = {"channel_names", "file_ending", "dataset"}


def has_description(folder: Path) -> bool:
    """Whether a folder has a ``dataset.json``, be it a link to nothing."""
    return os.path.lexists(folder / _NAME)


def _read_description(folder: Path, roots: Sequence[Path]) -> dict[str, Any]:
    path = folder / _NAME
    if not has_description(folder):
        raise DatasetError(
            f"{folder} has no {_NAME}: this layout needs one. Without it, "
            "load_folder(path, images=..., labels=...) reads two folders of files."
        )
    if flaw := file_flaw(path, roots):
        raise DatasetError(f"{path} cannot be read: {flaw[0]}; {flaw[1]}.")
    if path.stat().st_size > _MOST_BYTES:
        raise DatasetError(f"{path} has more than {_MOST_BYTES} bytes: list fewer cases in it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}): fix it.") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold an object ({{...}}), got {type(content).__name__}.")
    return content


def _count_notes(description: Mapping[str, Any], n_cases: int) -> list[Problem]:
    """Note that there are not as many cases as ``numTraining`` says."""
    stated = description.get("numTraining")
    if label_id(stated) in (None, n_cases):
        return []
    what = f"{_NAME}: 'numTraining' is {stated!r:.50}, but the number of cases is {n_cases}"
    return [Problem(None, what, "check for missing cases, or correct it")]


def _resolve(folder: Path, relative: object, roots: Sequence[Path]) -> tuple[Path, Flaw | None]:
    """Return the path of a file that a description names, and what is wrong with it."""
    if not isinstance(relative, str) or not relative:
        return folder, (f"{relative!r:.200} is not a path", "write the path of a file")
    path = find_file(folder, relative)
    return path, file_flaw(path, roots, name=relative)


def is_msd(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether ``dataset.json`` lists files as the Decathlon does."""
    return _lists_files(folder, extra_roots) is True


def is_nnunet(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether ``dataset.json`` is one of nnU-Net, version 1 or 2."""
    return _lists_files(folder, extra_roots) is False


def _lists_files(folder: Path, extra_roots: ExtraRoots) -> bool | None:
    """Whether a description lists files, or (False) nnU-Net's cases; None: neither."""
    if not has_description(folder):
        return None
    description = _read_description(folder, data_roots(folder, extra_roots))
    if _OF_NNUNET & description.keys():
        return False
    training = description.get("training", ())
    first = training[0] if isinstance(training, list) and training else None
    text = first.get("image") if isinstance(first, dict) else None
    if isinstance(text, str) and Path(text).name and not os.path.lexists(folder / text):
        file = Path(text)
        stem = image_stem(file) or file.stem
        channel = file.with_name(f"{stem}_0000{file.name[len(stem) :]}")
        if os.path.lexists(find_file(folder, str(channel))):
            return False if "modality" in description else None
    if "training" in description:
        return True
    return False if "modality" in description else None


def load_msd(
    path: str | os.PathLike[str], *, extra_roots: ExtraRoots = (), skip_incomplete: bool = False
) -> CaseList:
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
    skip_incomplete : bool, default=False
        As for `load_dataset`.

    Returns
    -------
    CaseList
        Lazy subjects, as `load_dataset` returns them.

    Raises
    ------
    DatasetError
        If the folder, ``dataset.json`` or files are missing or broken; it lists all problems.

    Examples
    --------
    >>> from skte.datasets import load_msd
    >>> cases = load_msd("Task04_Hippocampus")  # doctest: +SKIP
    >>> cases[0]["label_names"]  # doctest: +SKIP
    {0: 'background', 1: 'Anterior', 2: 'Posterior'}
    """
    folder = check_folder(path)
    roots = data_roots(folder, extra_roots)
    description = _read_description(folder, roots)
    members, ignore_label, flaws = parse_labels(description.get("labels"))
    problems = case_problems(None, flaws)
    training = description.get("training")
    if not isinstance(training, list):
        remedy = "list objects with 'image' and 'label'"
        problems.append(Problem(None, f"{_NAME}: key 'training' is not a list", remedy))
        training = []
    elif not training:
        problems.append(Problem(None, f"{_NAME}: key 'training' lists no case", "add some"))
    subjects, incomplete, read = [], list[Problem](), [folder / _NAME]
    for index, item in enumerate(training):
        files, wrong = _parse_item(folder, item, roots)
        read += files if wrong else []
        incomplete += [Problem(None, f"training[{index}]: {what}", do) for what, do in wrong]
        if not wrong:
            *images, label = files
            subjects.append(
                make_subject(
                    stem_case_id(images[0]),
                    images,
                    label,
                    roots=roots,
                    ignore_label=ignore_label,
                    members=members,
                )
            )
    problems += repeated_ids(subject["case_id"] for subject in subjects)
    cases = {subject["case_id"]: subject for subject in subjects}
    _, notes = complete_cases(folder, cases, incomplete, problems, skip=skip_incomplete)
    notes += _count_notes(description, len(subjects))
    return finish(folder, subjects, notes=notes, read=read)


def _parse_item(folder: Path, item: object, roots: Sequence[Path]) -> tuple[list[Path], list[Flaw]]:
    """Files (the label last) and flaws of one entry of ``training``."""
    if not isinstance(item, dict):
        what = f"must be an object with 'image' and 'label', got {item!r:.200}"
        return [], [(what, "write one")]
    if missing := [key for key in ("image", "label") if not item.get(key)]:
        return [], [(f"key {' and '.join(map(repr, missing))} is missing", "name the file")]
    listed = item["image"] if isinstance(item["image"], list) else [item["image"]]
    named = [("image", text) for text in listed] + [("label", item["label"])]
    found = [(key, *_resolve(folder, text, roots)) for key, text in named]
    flaws = [(f"{key}: {flaw[0]}", flaw[1]) for key, _, flaw in found if flaw]
    return [file for _, file, _ in found], flaws


def load_nnunet_raw(
    path: str | os.PathLike[str],
    *,
    channels: Sequence[str] | None = None,
    merge_regions: bool = True,
    extra_roots: ExtraRoots = (),
    skip_incomplete: bool = False,
) -> CaseList:
    """Load a dataset in the raw layout of nnU-Net (version 1 or 2).

    A folder with ``dataset.json``, ``imagesTr/case_0000.nii.gz`` (one file per channel)
    and ``labelsTr/case.nii.gz``. From ``dataset.json`` are read ``channel_names`` (or
    ``modality``), ``labels`` (an integer each, or a list of them for a region; the
    label named ``ignore`` is left out of every score), ``regions_class_order``,
    ``file_ending`` and, where given, ``dataset`` with the paths of each case.

    Parameters
    ----------
    path : path-like
        The folder, ``Dataset001_Name`` for instance.
    channels : sequence of str, optional
        Names of the channels to read, in order; all of them by default.
    merge_regions : bool, default=True
        Number the classes as ``regions_class_order`` does: ids that lie in the same
        regions become one class. Without that key, or if False, ids stay as they are.
    extra_roots : sequence of path-like, default=()
        Folders outside it that links and the paths under ``dataset`` may lead to.
    skip_incomplete : bool, default=False
        As for `load_dataset`.

    Returns
    -------
    CaseList
        Lazy subjects, as `load_dataset` returns them. An id that lies in several regions is
        named by the smallest.

    Raises
    ------
    DatasetError
        If the folder, ``dataset.json`` or files are missing or broken, or a channel is
        unknown; it lists all problems.

    Examples
    --------
    >>> from skte.datasets import load_nnunet_raw
    >>> cases = load_nnunet_raw("nnUNet_raw/Dataset004_Hippocampus")  # doctest: +SKIP
    """
    folder = check_folder(path)
    roots = data_roots(folder, extra_roots)
    description = _read_description(folder, roots)
    members, ignore_label, flaws = parse_labels(description.get("labels"))
    order = _region_order(description.get("regions_class_order"), members, flaws)
    plan, lost = plan_regions(members, order, ignore_label) if order else (None, [])
    flaws += lost
    names, notes = _channel_names(description, flaws)
    chosen = _choose_channels(channels, names, flaws)
    ending = _file_ending(description, flaws)
    if "dataset" in description:
        cases, missing = _explicit_cases(folder, description["dataset"], roots)
    else:
        cases, missing = _scan_cases(folder, description, ending)
    missing += case_file_problems(cases, roots)
    miscounted, alpha = channel_problems(cases, roots, len(names)) if names else ([], {})
    missing += _mixed_files(cases, len(names)) if chosen else []
    missing += miscounted
    cases, left = complete_cases(
        folder, cases, missing, case_problems(None, flaws), skip=skip_incomplete
    )
    subjects = []
    for case_id, (images, label) in cases.items():
        options: dict[str, Any] = {"alpha": alpha[case_id]}
        if chosen and len(images) == 1:
            options["reader"] = ChannelReader(tuple(chosen))
        subject = make_subject(
            case_id,
            [images[i] for i in chosen] if len(images) > 1 and chosen else images,
            label,
            roots=roots,
            ignore_label=ignore_label,
            members=members,
            calibrated=False,  # nnU-Net knows the spacing of a picture by a JSON file alone
            **options,
        )
        if plan is not None and merge_regions:
            subject = relabel_subject(subject, plan)
        subjects.append(subject)
    notes += left + _count_notes(description, len(cases))
    read = [folder / _NAME, *(file for images, _ in cases.values() for file in images)]
    return finish(folder, subjects, notes=notes, read=read)


def _region_order(
    order: object, members: Mapping[str, Sequence[int]], flaws: list[Flaw]
) -> list[int]:
    """Numbers of the regions, in the order of ``labels``; empty where there are none."""
    if order is None:
        return []
    ids = [label_id(one) for one in order] if isinstance(order, list) else []
    n_regions = sum(name != "background" for name in members)
    numbers = [i for i in ids if i is not None and i > 0]
    if len(numbers) != n_regions or len(set(numbers)) != n_regions or None in ids:
        what = f"{_NAME}: key 'regions_class_order' has no number of its own for each of"
        remedy = "list a positive id for every label but background and ignore"
        flaws.append((f"{what} {n_regions} regions, but {order!r:.200}", remedy))
        return []
    return numbers


def _mixed_files(cases: CaseFiles, n_channels: int) -> list[Problem]:
    """Problems of cases whose files hold one channel here and several there."""
    what = "'channels' cannot be chosen among {} files of {} channels"
    remedy = "store one in each file, or all in one"
    return [
        Problem(case_id, what.format(len(images), n_channels), remedy)
        for case_id, (images, _) in cases.items()
        if len(images) not in (1, n_channels)
    ]


def _channel_names(
    description: Mapping[str, Any], flaws: list[Flaw]
) -> tuple[list[str], list[Problem]]:
    """Names of the channels in order, and a note where they are the wrong way round."""
    channels = description.get("channel_names", description.get("modality"))
    if not isinstance(channels, (dict, list)) or not channels:
        what = f"{_NAME}: key 'channel_names' (in version 1 'modality') names no channel"
        flaws.append((what, 'name the channels, {"0": "MRI"} for instance'))
        return [], []
    if isinstance(channels, list):
        return [str(name) for name in channels], []
    notes = []
    turned = {label_id(value): str(name) for name, value in channels.items()}
    if None in map(label_id, channels) and None not in turned:
        what = f"{_NAME}: 'channel_names' maps names to numbers; it is read in reverse"
        notes.append(Problem(None, what, 'write {"0": "MRI"}, number to name'))
        numbers = turned
    else:
        numbers = {label_id(key): str(name) for key, name in channels.items()}
    if numbers.keys() != set(range(len(channels))) or not all(numbers.values()):
        what = f"{_NAME}: 'channel_names' does not number its channels from 0: {channels!r:.200}"
        flaws.append((what, 'name the channels, {"0": "T1", "1": "T2"} for instance'))
        return [], notes
    return [numbers[i] for i in range(len(channels))], notes


def _choose_channels(
    channels: Sequence[str] | None, names: Sequence[str], flaws: list[Flaw]
) -> list[int]:
    """Positions of the channels to read; empty for all."""
    if channels is None or not names:
        return []
    remedy = f"choose among {', '.join(names)}"
    what = f"'channel_names' of {_NAME} has no channel"
    flaws += [(f"{what} {name!r}", remedy) for name in channels if name not in names]
    return [names.index(name) for name in channels if name in names] if len(names) > 1 else []


def _file_ending(description: Mapping[str, Any], flaws: list[Flaw]) -> str:
    ending = description.get("file_ending", ".nii.gz")
    if isinstance(ending, str) and ending.startswith("."):
        return ending
    what = f"{_NAME}: key 'file_ending' must be a text such as '.nii.gz', got {ending!r:.200}"
    flaws.append((what, "correct it"))
    return ".nii.gz"


def _explicit_cases(
    folder: Path, listed: object, roots: Sequence[Path]
) -> tuple[CaseFiles, list[Problem]]:
    """Cases of ``"dataset": {"case": {"images": [...], "label": ...}}``."""
    if not isinstance(listed, dict) or not listed:
        what = f"{_NAME}: key 'dataset' names no case"
        return {}, [Problem(None, what, "write an object of cases with 'images' and 'label'")]
    cases: CaseFiles = {}
    problems = []
    for case_id, item in listed.items():
        given = item if isinstance(item, dict) else {}
        images, label = given.get("images"), given.get("label")
        images = [images] if isinstance(images, str) else images
        if not images or not isinstance(images, list) or not isinstance(label, str):
            what = "under 'dataset' it lacks 'images' or 'label'"
            problems.append(Problem(case_id, what, "name its files"))
            continue
        resolved = [_resolve(folder, text, roots) for text in [*images, label]]
        flaws = [flaw for _, flaw in resolved if flaw]
        problems += case_problems(case_id, flaws)
        files = [file for file, _ in resolved]
        if not flaws:
            cases[str(case_id)] = (files[:-1], files[-1])
    return cases, problems


def _scan_cases(
    folder: Path, description: Mapping[str, Any], ending: str
) -> tuple[CaseFiles, list[Problem]]:
    """Cases of ``imagesTr`` and ``labelsTr``."""
    names = ("imagesTr", "labelsTr")
    remedy = "add it, or name paths in 'dataset'"
    problems = [
        Problem(None, f"there is no folder {name!r} in it", remedy)
        for name in names
        if not (folder / name).is_dir()
    ]
    if problems:
        return {}, problems
    images, labels = (list_images(folder / name, (ending,)) for name in names)
    remedy = f"correct key 'file_ending' of {_NAME}, or add the files"
    problems = [
        Problem(None, f"folder {name!r} holds no file that ends in {ending!r}", remedy)
        for name, files in zip(names, (images, labels), strict=True)
        if not files
    ]
    if problems:
        return {}, problems
    cases, problems = match_files(images, labels)
    return cases, problems + _unlisted(description.get("training"), cases)


def _unlisted(training: object, cases: CaseFiles) -> list[Problem]:
    """Cases that version 1 lists under ``training`` and that have no files."""
    items = training if isinstance(training, list) else []
    labels = [item.get("label") for item in items if isinstance(item, dict)]
    stems = [image_stem(Path(text)) for text in labels if isinstance(text, str)]
    what = "it is listed under 'training', but its files do not exist"
    return [
        Problem(stem, what, "add them, or remove it from the list")
        for stem in stems
        if stem is not None and stem not in cases
    ]
