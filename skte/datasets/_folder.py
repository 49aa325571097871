"""Two plain folders, and what all layouts of folders share."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from skte.datasets._case import CaseList, make_subject
from skte.datasets._dicom_file import is_series, list_series
from skte.datasets._image_file import IMAGE_ENDINGS, file_flaw, list_images
from skte.datasets._problem import Problem, raise_problems
from skte.exceptions import DatasetError

__all__ = [
    "ExtraRoots",
    "case_file_problems",
    "check_folder",
    "data_roots",
    "is_folder",
    "load_folder",
    "match_files",
]

#: Folders beside the dataset's own that its files may lie in.
ExtraRoots: TypeAlias = Sequence[str | os.PathLike[str]]

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Return the path of a folder that exists and is not empty."""
    folder = Path(path).expanduser().absolute()
    if not folder.exists():
        raise DatasetError(f"The dataset folder {folder} does not exist: check the path.")
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is not a folder: give the folder that holds the dataset, not a file in it."
        )
    if not any(not p.name.startswith(".") for p in folder.iterdir()):
        raise DatasetError(f"The dataset folder {folder} is empty: check the path.")
    return folder


def data_roots(folder: Path, extra_roots: ExtraRoots) -> tuple[Path, ...]:
    """Return the folders in which all files of a dataset must lie."""
    if isinstance(extra_roots, (str, os.PathLike)):
        extra_roots = [os.fspath(extra_roots)]
    return folder, *(Path(root).expanduser().absolute() for root in extra_roots)


def match_files(
    images: Collection[tuple[str, Path]],
    labels: Collection[tuple[str, Path]],
    *,
    n_channels: int | None = None,
) -> tuple[dict[str, tuple[list[Path], Path]], list[Problem]]:
    """Pair images and labels (stem, path): channels and label of each case, and problems."""
    label_of = dict(labels)
    channels: dict[str, dict[int, Path]] = {stem: {} for stem in sorted(label_of)}
    problems = [*_clashes(images), *_clashes(labels)]
    for stem, path in images:
        match = _CHANNEL.fullmatch(stem)
        if stem in label_of:
            case_id, channel = stem, 0
        elif match and match["case"] in label_of:
            case_id, channel = match["case"], int(match["channel"])
        else:
            remedy = f"add {stem} to the labels, or remove the image"
            problems.append(Problem(None, f"image {path.name} has no label", remedy))
            continue
        if channel in channels[case_id] and channels[case_id][channel].name != path.name:
            other = channels[case_id][channel].name
            what = f"it has channel {channel} twice: {path.name} and {other}"
            problems.append(Problem(case_id, what, "keep one"))
        channels[case_id].setdefault(channel, path)
    problems += _channel_problems(channels, label_of, n_channels)
    cases = {
        case_id: ([files[i] for i in sorted(files)], label_of[case_id])
        for case_id, files in channels.items()
        if files
    }
    return cases, problems


def case_file_problems(
    cases: Mapping[str, tuple[Sequence[Path], Path]], roots: Sequence[Path]
) -> list[Problem]:
    """Problems of files that lead out of the roots, or are no files: links to nothing, pipes."""
    return [
        Problem(case_id, *flaw)
        for case_id, (images, label) in cases.items()
        for file in (*images, label)
        if (flaw := file_flaw(file, roots, folders=is_series(file)))
    ]


def _clashes(files: Collection[tuple[str, Path]]) -> list[Problem]:
    by_stem: dict[str, list[str]] = {}
    for stem, path in files:
        by_stem.setdefault(stem, []).append(path.name)
    folder = next((path.parent.name for _, path in files), "")
    return [
        Problem(stem, f"files {', '.join(names)} in {folder}/ share this case id", "keep one")
        for stem, names in by_stem.items()
        if len(names) > 1
    ]


def _channel_problems(
    channels: Mapping[str, Mapping[int, Path]],
    label_of: Mapping[str, Path],
    n_channels: int | None,
) -> list[Problem]:
    problems = []
    for case_id, files in channels.items():
        if not files:
            what = f"label {label_of[case_id].name} has no image"
            problems.append(Problem(case_id, what, "add it, or remove the label"))
            continue
        # Names up to the first gap are enough: a channel 9999 is no reason to list all others.
        missing = sorted(set(range(max(files) + 1)) - set(files))[:5]
        n_channels = n_channels or max(files) + 1
        if missing:
            gaps = ", ".join(f"_{i:04d}" for i in missing)
            problems.append(Problem(case_id, f"it lacks channel {gaps}", "add the file"))
        elif len(files) != n_channels:
            what = f"it has {len(files)} channels where {n_channels} are expected"
            problems.append(Problem(case_id, what, "give every case the same channels"))
    return problems


def load_folder(
    path: str | os.PathLike[str],
    *,
    images: str = "images",
    labels: str = "labels",
    extra_roots: ExtraRoots = (),
) -> CaseList:
    """Load images and labels of the same file names from two folders.

    ``images/a.nii.gz`` belongs to ``labels/a.nii.gz``; the endings may differ. Channels
    of one case are ``images/a_0000.nii.gz``, ``images/a_0001.nii.gz``, ... An image may
    also be a folder ``images/a`` of the DICOM files of one series. Hidden files and files
    that are no images are left out.

    Parameters
    ----------
    path : path-like
        The folder that holds both.
    images, labels : str, default="images", "labels"
        Their names.
    extra_roots : sequence of path-like, default=()
        Folders outside it that links and paths may lead to.

    Returns
    -------
    CaseList
        Subjects sorted by name, lazy: no volume is read. Each has ``image``, ``label``,
        ``case_id``, ``ignore_label`` (None), ``label_names`` and ``label_ids`` (empty).

    Raises
    ------
    DatasetError
        If a folder is missing or empty, or files match nothing; one message lists all
        problems.

    Examples
    --------
    >>> import shutil, tempfile
    >>> from pathlib import Path
    >>> from skte.datasets import load_folder, make_phantoms
    >>> folder = Path(tempfile.mkdtemp())
    >>> for subject in make_phantoms(2, size=(16, 16, 16)):
    ...     for kind in ("image", "label"):
    ...         (folder / f"{kind}s").mkdir(exist_ok=True)
    ...         subject[kind].save(folder / f"{kind}s" / f"{subject['case_id']}.nii.gz")
    >>> [subject["case_id"] for subject in load_folder(folder)]
    ['ellipsoids_000', 'ellipsoids_001']
    >>> shutil.rmtree(folder)
    """
    folder = check_folder(path)
    title = f"The dataset {folder} cannot be loaded"
    remedy = "name the folders with load_folder(path, images=..., labels=...)"
    problems = [
        Problem(None, f"there is no folder {name!r} in it", remedy)
        for name in (images, labels)
        if not (folder / name).is_dir()
    ]
    raise_problems(title, problems)
    image_files, label_files = (
        [*list_images(folder / name), *list_series(folder / name)] for name in (images, labels)
    )
    remedy = f"add some ({', '.join(IMAGE_ENDINGS)})"
    problems = [
        Problem(None, f"folder {name!r} holds no image file", remedy)
        for name, files in ((images, image_files), (labels, label_files))
        if not files
    ]
    raise_problems(title, problems)
    cases, problems = match_files(image_files, label_files)
    roots = data_roots(folder, extra_roots)
    raise_problems(title, problems + case_file_problems(cases, roots))
    return CaseList(make_subject(case_id, *files, roots=roots) for case_id, files in cases.items())


def is_folder(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether one of both folders is there; the loader reports which is missing."""
    return (folder / "images").is_dir() or (folder / "labels").is_dir()
