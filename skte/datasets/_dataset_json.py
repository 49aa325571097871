"""Layouts that ``dataset.json`` describes: the Decathlon's, and nnU-Net's raw one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skte.datasets._assembly import Assembly, Draft, ExtraRoots, check_folder, data_roots
from skte.datasets._case import CaseList, stem_case_id
from skte.datasets._folder import pair_files
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


def _check_count(found: Assembly, description: Mapping[str, Any]) -> None:
    """Note that there are not as many cases as ``numTraining`` says."""
    stated, n_cases = description.get("numTraining"), len(found.sound())
    if label_id(stated) not in (None, n_cases):
        what = f"{_NAME}: 'numTraining' is {stated!r:.50}, but the number of cases is {n_cases}"
        found.notes.append(Problem(None, what, "check for missing cases, or correct it"))


def _resolve(found: Assembly, relative: object) -> tuple[Path, Flaw | None]:
    """Return the path of a file that a description names, and what is wrong with it."""
    if not isinstance(relative, str) or not relative:
        return found.place, (f"{relative!r:.200} is not a path", "write the path of a file")
    path = find_file(found.place, relative)
    return path, file_flaw(path, found.roots, name=relative)


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
    found = Assembly(check_folder(path), extra_roots, skip=skip_incomplete)
    description = _read_description(found.place, found.roots)
    members, ignore_label, flaws = parse_labels(description.get("labels"))
    found.problems += case_problems(None, flaws)
    training = description.get("training")
    if not isinstance(training, list):
        found.fail(
            f"{_NAME}: key 'training' is not a list", "list objects with 'image' and 'label'"
        )
    elif not training:
        found.fail(f"{_NAME}: key 'training' lists no case", "add some")
    for index, item in enumerate(training if isinstance(training, list) else ()):
        draft = _add_item(found, item)
        draft.where = f"training[{index}]: " if draft.flaws else ""
        draft.options = {"ignore_label": ignore_label, "members": members}
    _check_count(found, description)
    return found.finish(read=[found.place / _NAME])


def _add_item(found: Assembly, item: object) -> Draft:
    """Add the case of one entry of ``training``, nameless where something is wrong with it."""
    if not isinstance(item, dict):
        draft = found.add("", [], None)
        what = f"must be an object with 'image' and 'label', got {item!r:.200}"
        draft.flaws.append((what, "write one"))
        return draft
    if missing := [key for key in ("image", "label") if not item.get(key)]:
        draft = found.add("", [], None)
        what = f"key {' and '.join(map(repr, missing))} is missing"
        draft.flaws.append((what, "name the file"))
        return draft
    listed = item["image"] if isinstance(item["image"], list) else [item["image"]]
    named = [("image", text) for text in listed] + [("label", item["label"])]
    resolved = [(key, *_resolve(found, text)) for key, text in named]
    *images, label = (file for _, file, _ in resolved)
    flaws = [(f"{key}: {flaw[0]}", flaw[1]) for key, _, flaw in resolved if flaw]
    draft = found.add("" if flaws else stem_case_id(images[0]), images, label)
    draft.flaws, draft.checked = flaws, True
    return draft


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
    found = Assembly(check_folder(path), extra_roots, skip=skip_incomplete)
    description = _read_description(found.place, found.roots)
    members, ignore_label, flaws = parse_labels(description.get("labels"))
    order = _region_order(description.get("regions_class_order"), members, flaws)
    plan, lost = plan_regions(members, order, ignore_label) if order else (None, [])
    flaws += lost
    names, notes = _channel_names(description, flaws)
    found.notes += notes
    chosen = _choose_channels(channels, names, flaws)
    ending = _file_ending(description, flaws)
    found.problems += case_problems(None, flaws)
    if "dataset" in description:
        _add_listed(found, description["dataset"])
    else:
        _add_scanned(found, description, ending)
    found.check_files()
    if names:
        for draft, flaw in [*found.check_channels(len(names))]:
            draft.flaws.append(flaw)
    for draft in found.sound():
        # nnU-Net knows the spacing of a picture by a JSON file alone
        options = {"ignore_label": ignore_label, "members": members, "calibrated": False}
        draft.options |= options
        if chosen:
            _choose(draft, chosen, len(names))
    _check_count(found, description)
    cases = found.finish(read=[found.place / _NAME])
    if plan is None or not merge_regions:
        return cases
    return cases.like(relabel_subject(subject, plan) for subject in cases)


def _choose(draft: Draft, chosen: Sequence[int], n_channels: int) -> None:
    """Read some channels of a case: of one file that holds all, or of one file for each."""
    n_files = len(draft.images)
    if n_files == 1:
        draft.options["reader"] = ChannelReader(tuple(chosen))
    elif n_files == n_channels:
        draft.others = [file for i, file in enumerate(draft.images) if i not in chosen]
        draft.images = [draft.images[i] for i in chosen]
    else:
        what = f"'channels' cannot be chosen among {n_files} files of {n_channels} channels"
        draft.flaws.append((what, "store one in each file, or all in one"))


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


def _add_listed(found: Assembly, listed: object) -> None:
    """Add the cases of ``"dataset": {"case": {"images": [...], "label": ...}}``."""
    if not isinstance(listed, dict) or not listed:
        remedy = "write an object of cases with 'images' and 'label'"
        found.fail(f"{_NAME}: key 'dataset' names no case", remedy)
        return
    for case_id, item in listed.items():
        given = item if isinstance(item, dict) else {}
        images, label = given.get("images"), given.get("label")
        images = [images] if isinstance(images, str) else images
        if not images or not isinstance(images, list) or not isinstance(label, str):
            what = "under 'dataset' it lacks 'images' or 'label'"
            found.add(str(case_id), [], None).flaws.append((what, "name its files"))
            continue
        resolved = [_resolve(found, text) for text in [*images, label]]
        *files, target = (file for file, _ in resolved)
        draft = found.add(str(case_id), files, target)
        draft.flaws, draft.checked = [flaw for _, flaw in resolved if flaw], True


def _add_scanned(found: Assembly, description: Mapping[str, Any], ending: str) -> None:
    """Add the cases of ``imagesTr`` and ``labelsTr``."""
    names = ("imagesTr", "labelsTr")
    missing = [name for name in names if not (found.place / name).is_dir()]
    for name in missing:
        found.fail(f"there is no folder {name!r} in it", "add it, or name paths in 'dataset'")
    if missing:
        return
    images, labels = (list_images(found.place / name, (ending,)) for name in names)
    for name, files in zip(names, (images, labels), strict=True):
        if not files:
            what = f"folder {name!r} holds no file that ends in {ending!r}"
            found.fail(what, f"correct key 'file_ending' of {_NAME}, or add the files")
    if not (images and labels):
        return
    pair_files(found, images, labels)
    # Cases that version 1 lists under "training" and that have no files.
    training = description.get("training")
    items = training if isinstance(training, list) else []
    listed = [item.get("label") for item in items if isinstance(item, dict)]
    stems = [image_stem(Path(text)) for text in listed if isinstance(text, str)]
    for stem in stems:
        if stem is not None and stem not in {
            draft.case_id for draft in found.drafts if draft.images
        }:
            what = "it is listed under 'training', but its files do not exist"
            remedy = "add them, or remove it from the list"
            found.add(stem, [], None).flaws.append((what, remedy))
