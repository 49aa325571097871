"""The raw layout of nnU-Net, versions 1 and 2."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from skte.datasets._case import CaseList, make_subject
from skte.datasets._folder import (
    ExtraRoots,
    case_file_problems,
    channel_problems,
    check_folder,
    data_roots,
    finish,
    match_files,
)
from skte.datasets._image_file import image_stem, list_images
from skte.datasets._labels import label_id, parse_labels, relabel_subject
from skte.datasets._labels import merge_regions as plan_regions
from skte.datasets._msd import (
    count_notes,
    describes_files,
    has_description,
    read_description,
    read_json,
    resolve_inside,
)
from skte.datasets._problem import Flaw, Problem, case_problems, few, raise_problems
from skte.datasets._read import ChannelReader
from skte.exceptions import DatasetError

__all__ = ["is_nnunet", "load_nnunet_raw"]

_Cases = dict[str, tuple[list[Path], Path]]
_COMPANIONS = ("splits_final.json", "dataset_fingerprint.json")


def load_nnunet_raw(
    path: str | os.PathLike[str],
    *,
    channels: Sequence[str] | None = None,
    merge_regions: bool = True,
    extra_roots: ExtraRoots = (),
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
        regions become one class. Without that key ids stay as they are. False: ids stay
        in any case.
    extra_roots : sequence of path-like, default=()
        Folders outside it that links and paths may lead to.

    Returns
    -------
    CaseList
        Lazy subjects: no volume is read. Each has ``image``, ``label``, ``case_id``,
        ``ignore_label``, ``label_names`` and ``label_ids``. An id that lies in several
        regions is named by the smallest.

    Raises
    ------
    DatasetError
        If the folder, ``dataset.json`` or files are missing or broken, or a channel is
        unknown; one message lists all problems.

    Notes
    -----
    Paths under ``dataset`` are relative to the folder, or absolute. Unlike nnU-Net, skte
    reads those that lead out of it only where `extra_roots` names their folder.

    Examples
    --------
    >>> from skte.datasets import load_nnunet_raw
    >>> cases = load_nnunet_raw("nnUNet_raw/Dataset004_Hippocampus")  # doctest: +SKIP
    """
    folder = check_folder(path)
    roots = data_roots(folder, extra_roots)
    description = read_description(folder, roots)
    members, ignore_label, flaws = parse_labels(description.get("labels"))
    order = _region_order(description.get("regions_class_order"), members, flaws)
    plan, lost = plan_regions(members, order, ignore_label) if order else (None, [])
    flaws += lost
    names, notes = _channel_names(description, flaws)
    chosen = _choose_channels(channels, names, flaws)
    ending = _file_ending(description, flaws)
    problems = case_problems(None, flaws)
    if "dataset" in description:
        cases, missing = _explicit_cases(folder, description["dataset"], roots)
    else:
        cases, missing = _scan_cases(folder, description, ending)
    missing += case_file_problems(cases, roots)
    miscounted, alpha = channel_problems(cases, roots, len(names)) if names else ([], {})
    missing += _mixed_files(cases, len(names)) if chosen else []
    raise_problems(f"The dataset {folder} cannot be loaded", problems + missing + miscounted)
    subjects = [
        make_subject(
            case_id,
            [images[i] for i in chosen] if len(images) > 1 and chosen else images,
            label,
            roots=roots,
            ignore_label=ignore_label,
            members=members,
            alpha=alpha[case_id],
            calibrated=False,  # nnU-Net knows the spacing of a picture by a JSON file alone
            **({"reader": ChannelReader(tuple(chosen))} if chosen and len(images) == 1 else {}),
        )
        for case_id, (images, label) in cases.items()
    ]
    notes += count_notes(description, len(cases)) + _companion_notes(folder, roots, cases)
    if plan is not None and merge_regions:
        subjects = [relabel_subject(subject, plan) for subject in subjects]
    read = [folder / name for name in ("dataset.json", *_COMPANIONS)]
    read += [file for images, _ in cases.values() for file in images]
    return finish(folder, subjects, notes=notes, read=read)


def is_nnunet(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether ``dataset.json`` is one of nnU-Net, version 1 or 2."""
    if not has_description(folder):
        return False
    description = read_description(folder, data_roots(folder, extra_roots))
    if {"channel_names", "file_ending", "dataset"} & description.keys():
        return True
    return "modality" in description and not describes_files(folder, description)


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
        what = "dataset.json: key 'regions_class_order' has no number of its own for each of"
        remedy = "list a positive id for every label but background and ignore"
        flaws.append((f"{what} {n_regions} regions, but {order!r:.200}", remedy))
        return []
    return numbers


def _mixed_files(cases: _Cases, n_channels: int) -> list[Problem]:
    """Problems of cases whose files hold one channel here and several there."""
    what = "'channels' cannot be chosen among {} files of {} channels"
    return [
        Problem(
            case_id, what.format(len(images), n_channels), "store one in each file, or all in one"
        )
        for case_id, (images, _) in cases.items()
        if len(images) not in (1, n_channels)
    ]


def _companion_notes(folder: Path, roots: Sequence[Path], cases: _Cases) -> list[Problem]:
    """Note what files of nnU-Net beside ``dataset.json`` say otherwise than the folder."""
    notes = []
    for name in _COMPANIONS:
        if not os.path.lexists(folder / name):
            continue
        try:
            content = read_json(folder / name, roots)
        except DatasetError as error:
            notes.append(Problem(None, f"{name} is not used: {error}", "fix or remove it"))
            continue
        if name == "splits_final.json":
            notes += [
                Problem(None, f"{name} {what}", how) for what, how in _split_flaws(content, cases)
            ]
        spacings = content.get("spacings") if isinstance(content, dict) else None
        if isinstance(spacings, list) and len(spacings) != len(cases):
            what = f"{name} is of {len(spacings)} cases, and there are {len(cases)}"
            notes.append(Problem(None, what, "check for missing cases"))
    return notes


def _split_flaws(content: object, cases: _Cases) -> Iterator[Flaw]:
    """Find what is odd in a list of folds, each with the cases to train and to validate on."""
    folds = content if isinstance(content, list) and content else [None]
    pairs: list[list[Any]] = [
        [fold.get("train"), fold.get("val")] for fold in folds if isinstance(fold, dict)
    ]
    if len(pairs) < len(folds) or not all(isinstance(part, list) for p in pairs for part in p):
        yield "is not a list of folds with 'train' and 'val'", "create it again"
        return
    named = [[{unicodedata.normalize("NFC", str(x)) for x in part} for part in p] for p in pairs]
    if lost := sorted(set().union(*chain(*named)) - cases.keys()):
        yield f"names cases that are not there: {few(lost)}", "add their files, or create it again"
    if twice := sorted(set().union(*(train & val for train, val in named))):
        yield f"both trains and validates on {few(twice)}", "create it again"


def _channel_names(
    description: Mapping[str, Any], flaws: list[Flaw]
) -> tuple[list[str], list[Problem]]:
    """Names of the channels in order, and a note where they are the wrong way round."""
    channels = description.get("channel_names", description.get("modality"))
    if not isinstance(channels, (dict, list)) or not channels:
        what = "dataset.json: key 'channel_names' (in version 1 'modality') names no channel"
        flaws.append((what, 'name the channels, {"0": "MRI"} for instance'))
        return [], []
    if isinstance(channels, list):
        return [str(name) for name in channels], []
    notes = []
    turned = {label_id(value): str(name) for name, value in channels.items()}
    if None in map(label_id, channels) and None not in turned:
        what = "dataset.json: 'channel_names' maps names to numbers; it is read in reverse"
        notes.append(Problem(None, what, 'write {"0": "MRI"}, number to name'))
        numbers = turned
    else:
        numbers = {label_id(key): str(name) for key, name in channels.items()}
    wanted = set(range(len(channels)))
    if numbers.keys() != wanted or not all(isinstance(n, str) and n for n in numbers.values()):
        what = (
            f"dataset.json: 'channel_names' does not number its channels from 0: {channels!r:.200}"
        )
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
    what = "'channel_names' of dataset.json has no channel"
    flaws += [(f"{what} {name!r}", remedy) for name in channels if name not in names]
    return [names.index(name) for name in channels if name in names] if len(names) > 1 else []


def _file_ending(description: Mapping[str, Any], flaws: list[Flaw]) -> str:
    ending = description.get("file_ending", ".nii.gz")
    if isinstance(ending, str) and ending.startswith("."):
        return ending
    what = f"dataset.json: key 'file_ending' must be a text such as '.nii.gz', got {ending!r:.200}"
    flaws.append((what, "correct it"))
    return ".nii.gz"


def _explicit_cases(
    folder: Path, listed: object, roots: Sequence[Path]
) -> tuple[_Cases, list[Problem]]:
    """Cases of ``"dataset": {"case": {"images": [...], "label": ...}}``."""
    if not isinstance(listed, dict) or not listed:
        what = "dataset.json: key 'dataset' names no case"
        return {}, [Problem(None, what, "write an object of cases with 'images' and 'label'")]
    cases: _Cases = {}
    problems = []
    for case_id, item in listed.items():
        images = item.get("images") if isinstance(item, dict) else None
        label = item.get("label") if isinstance(item, dict) else None
        images = [images] if isinstance(images, str) else images
        if not images or not isinstance(images, list) or not isinstance(label, str):
            what = "under 'dataset' it lacks 'images' or 'label'"
            problems.append(Problem(case_id, what, "name its files"))
            continue
        resolved = [resolve_inside(folder, text, roots) for text in [*images, label]]
        flaws = [flaw for _, flaw in resolved if flaw]
        problems += case_problems(case_id, flaws)
        files = [file for file, _ in resolved]
        if not flaws:
            cases[str(case_id)] = (files[:-1], files[-1])
    return cases, problems


def _scan_cases(
    folder: Path, description: Mapping[str, Any], ending: str
) -> tuple[_Cases, list[Problem]]:
    """Cases of ``imagesTr`` and ``labelsTr``."""
    problems = [
        Problem(None, f"there is no folder {name!r} in it", "add it, or name paths in 'dataset'")
        for name in ("imagesTr", "labelsTr")
        if not (folder / name).is_dir()
    ]
    if problems:
        return {}, problems
    images, labels = (list_images(folder / name, (ending,)) for name in ("imagesTr", "labelsTr"))
    remedy = "correct key 'file_ending' of dataset.json, or add the files"
    problems = [
        Problem(None, f"folder {name!r} holds no file that ends in {ending!r}", remedy)
        for name, files in (("imagesTr", images), ("labelsTr", labels))
        if not files
    ]
    if problems:
        return {}, problems
    cases, problems = match_files(images, labels)
    return cases, problems + _unlisted(description.get("training"), cases)


def _unlisted(training: object, cases: _Cases) -> list[Problem]:
    """Cases that version 1 lists under ``training`` and that have no files."""
    if not isinstance(training, list):
        return []
    labels = [item.get("label") for item in training if isinstance(item, dict)]
    stems = [image_stem(Path(text)) for text in labels if isinstance(text, str)]
    what = "it is listed under 'training', but its files do not exist"
    return [
        Problem(stem, what, "add them, or remove it from the list")
        for stem in stems
        if stem is not None and stem not in cases
    ]
