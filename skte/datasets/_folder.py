"""Two plain folders, and what all layouts of folders share."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from skte._text import clean_text
from skte.datasets._case import CaseList, make_subject
from skte.datasets._dicom_file import is_series, list_series
from skte.datasets._image_file import (
    IMAGE_ENDINGS,
    file_flaw,
    image_paths,
    image_stem,
    list_images,
    spacing_files,
)
from skte.datasets._problem import Problem, Skipped, few, raise_problems
from skte.datasets._read import count_channels
from skte.exceptions import DatasetError, SkteWarning

__all__ = [
    "ExtraRoots",
    "case_file_problems",
    "channel_problems",
    "check_folder",
    "data_roots",
    "finish",
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
) -> tuple[dict[str, tuple[list[Path], Path]], list[Problem]]:
    """Pair images and labels (stem, path): files and label of each case, and problems."""
    # 3D Slicer writes c.seg.nrrd beside the c.nrrd that it segments.
    images = [(s, path) for s, path in images if not is_segmentation(path)] or images
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
    problems += _gaps(channels, label_of)
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


def _gaps(
    channels: Mapping[str, Mapping[int, Path]], label_of: Mapping[str, Path]
) -> list[Problem]:
    problems = []
    for case_id, files in channels.items():
        if not files:
            what = f"label {label_of[case_id].name} has no image"
            problems.append(Problem(case_id, what, "add it, or remove the label"))
            continue
        # Names up to the first gap are enough: a channel 9999 is no reason to list all others.
        if missing := sorted(set(range(max(files) + 1)) - set(files))[:5]:
            gaps = ", ".join(f"_{i:04d}" for i in missing)
            problems.append(Problem(case_id, f"it lacks channel {gaps}", "add the file"))
    return problems


def channel_problems(
    cases: Mapping[str, tuple[Sequence[Path], Path]],
    roots: Sequence[Path],
    n_channels: int | None = None,
) -> tuple[list[Problem], dict[str, bool]]:
    """Problems of channels, of which a file may hold several; and by case whether alpha is one."""
    n_files = {len(images) for images, _ in cases.values()}
    if n_channels is None and len(n_files) < 2:
        return [], {}
    problems: list[Problem] = []
    with_alpha: dict[str, bool] = {}
    for case_id, (images, _) in cases.items():
        found = count_channels(images, roots=roots) or len(images)
        n_channels = n_channels or found
        with_alpha[case_id] = found < n_channels == count_channels(images, roots=roots, alpha=True)
        if found != n_channels and not with_alpha[case_id]:
            what = f"it has {found} channels where {n_channels} are expected"
            problems.append(Problem(case_id, what, "give every case the same channels"))
    return problems, with_alpha


def is_segmentation(path: Path) -> bool:
    """Whether a file has the name that 3D Slicer gives to segmentations."""
    return path.name.lower().endswith((".seg.nrrd", ".seg.nhdr"))


_MOST_LISTED = 100_000
_SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "icon\r")
_TEST = ("imagests", "labelsts", "inferts", "imagesval", "test")
_TEXTS = (
    ".json", ".txt", ".md", ".rst", ".tsv", ".csv", ".xlsx", ".pdf", ".html", ".yaml", ".yml",
    ".xml", ".py", ".sh", ".pkl", ".bval", ".bvec", ".sha256", ".md5", ".log",
)  # fmt: skip
_DATA = (".raw", ".zraw", ".img", ".img.gz", ".raw.gz")


def finish(
    folder: Path,
    subjects: Iterable[Any],
    *,
    notes: Iterable[Problem] = (),
    read: Iterable[Path] = (),
    quiet: bool = False,
) -> CaseList:
    """Cases with every file of the folder that is used in none, told in a warning and notes.

    `read` are files that are used otherwise; `quiet` where most files are expected to be left.
    """
    subjects, notes = list(subjects), list(notes)
    used = {Path(os.path.normpath(path)) for path in read} | {
        Path(os.path.normpath(path))
        for subject in subjects
        for image in subject.get_images(intensity_only=False)
        for file in image_paths(image)
        for path in (file, *spacing_files(file))
    }
    skipped = list(_skipped(folder, used))
    by_reason: dict[str, list[Skipped]] = {}
    for one in skipped:
        by_reason.setdefault(one.reason, []).append(one)
    unexpected = [*notes]
    for reason, group in by_reason.items():
        names = few(str(one.path.relative_to(folder)) for one in group)
        count = "1 file is" if len(group) == 1 else f"{len(group)} files are"
        remedy = "give them the names of a case, or ignore this"
        note = Problem(None, f"{count} not used, {reason}: {clean_text(names, 500)}", remedy)
        notes.append(note)
        if not (quiet or all(one.expected for one in group)):
            unexpected.append(note)
    if unexpected:
        lines = "\n- ".join(map(str, unexpected))
        warnings.warn(f"The dataset {folder}:\n- {lines}", SkteWarning, stacklevel=3)
    return CaseList(subjects, skipped=skipped, notes=notes)


def _skipped(folder: Path, used: set[Path]) -> Iterator[Skipped]:
    """Files and folders below a folder that are not used, and why."""
    beside = {path.parent for path in used}
    n_left = _MOST_LISTED
    for root, folders, files in os.walk(folder):
        place = Path(root)
        folders.sort()
        for name in [*folders]:
            path = place / name
            if path in used:
                folders.remove(name)
            elif name.startswith(".") or name.lower() in _SYSTEM:
                folders.remove(name)
                yield Skipped(path, "hidden, or written by the system", True)
            elif path.is_symlink():
                yield Skipped(path, "a link to a folder", path.parent not in beside)
        for name in sorted(files):
            path = place / name
            if path in used:
                continue
            n_left -= 1
            if n_left < 0:
                yield Skipped(place, f"not looked at after {_MOST_LISTED} files", False)
                return
            yield Skipped(path, *_reason(path, folder, beside, files))


def _reason(
    path: Path, folder: Path, beside: Collection[Path], siblings: Sequence[str]
) -> tuple[str, bool]:
    """Why a file is not used, and whether that is expected."""
    name = path.name.lower()
    if name.startswith(".") or name in _SYSTEM:
        return "hidden, or written by the system", True
    if any(part.lower() in _TEST for part in path.relative_to(folder).parts[:-1]):
        return "of the test set", True
    stem = name.split(".")[0]
    if name.endswith(_DATA) and any(
        one.lower().startswith(f"{stem}.") and one.lower().endswith((".mhd", ".nhdr", ".hdr"))
        for one in siblings
    ):
        return "the data of a header beside them", True
    if is_segmentation(path):
        return "segmentations beside the images that they are of", False
    if image_stem(path) is not None:
        return "images of no case", False
    if name.endswith(_TEXTS) or "." not in name:
        return "no images", True
    return "with an extension that is not read", path.parent not in beside


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
    problems += case_file_problems(cases, roots)
    raise_problems(title, problems + channel_problems(cases, roots)[0])
    return finish(
        folder, (make_subject(case_id, *files, roots=roots) for case_id, files in cases.items())
    )


def is_folder(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether one of both folders is there; the loader reports which is missing."""
    return (folder / "images").is_dir() or (folder / "labels").is_dir()
