"""Plain folders of images and labels or of DICOM cases, and what all layouts of folders share."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from skte._text import clean_text
from skte.datasets._case import CaseList, make_subject
from skte.datasets._dicom_file import (
    SEGMENTATIONS,
    is_dicom,
    is_series,
    list_series,
    segmentation_flaw,
    series_modality,
)
from skte.datasets._image_file import (
    IMAGE_ENDINGS,
    file_flaw,
    image_paths,
    image_stem,
    list_images,
    spacing_files,
)
from skte.datasets._problem import Flaw, Problem, Skipped, case_problems, few, raise_problems
from skte.datasets._read import count_channels
from skte.exceptions import DatasetError, SkteWarning

#: Folders beside the dataset's own that its files may lie in.
ExtraRoots: TypeAlias = Sequence[str | os.PathLike[str]]
#: Images and label of each case.
CaseFiles: TypeAlias = dict[str, tuple[list[Path], Path]]

_T = TypeVar("_T")
_LABEL_WORDS = ("label", "seg", "mask")
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
    images: Collection[tuple[str, Path]], labels: Collection[tuple[str, Path]]
) -> tuple[CaseFiles, list[Problem]]:
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
            what = f"image {path.name} has no label"
            problems.append(Problem(None, what, "add it, or remove the image"))
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


def complete_cases(
    folder: Path,
    cases: Mapping[str, _T],
    incomplete: Sequence[Problem],
    others: Sequence[Problem] = (),
    *,
    skip: bool,
) -> tuple[dict[str, _T], list[Problem]]:
    """Cases without problems and a note of what is left out, if that is wanted; else raise all."""
    lacking = {problem.case_id for problem in incomplete}
    kept = {name: case for name, case in cases.items() if name not in lacking}
    if others or not (skip and kept):
        more = ", or leave it out: skip_incomplete=True (--skip-unusable)" if kept else ""
        told = (problem._replace(remedy=problem.remedy + more) for problem in incomplete)
        raise_problems(f"The dataset {folder} cannot be loaded", [*others, *told])
    whats = {p.case_id or p.what: f"{p.case_id or ''}: {p.what}".lstrip(": ") for p in incomplete}
    what = f"{len(whats)} left out as incomplete: {clean_text(few(whats.values()), 500)}"
    return kept, [Problem(None, what, "complete them, or ignore this")] if incomplete else []


def case_file_problems(cases: CaseFiles, roots: Sequence[Path]) -> list[Problem]:
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
) -> Iterator[Problem]:
    for case_id, files in channels.items():
        if not files:
            what = f"label {label_of[case_id].name} has no image"
            yield Problem(case_id, what, "add it, or remove the label")
        # Names up to the first gap are enough: a channel 9999 is no reason to list all others.
        elif missing := sorted(set(range(max(files) + 1)) - set(files))[:5]:
            gaps = ", ".join(f"_{i:04d}" for i in missing)
            yield Problem(case_id, f"it lacks channel {gaps}", "add the file")


def channel_problems(
    cases: CaseFiles, roots: Sequence[Path], n_channels: int | None = None
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
_TEXT_NAMES = ("readme", "license", "licence", "changes", "version", "dicomdir")
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
    subjects, notes, unexpected = list(subjects), list(notes), list(notes)
    images = [i for subject in subjects for i in subject.get_images(intensity_only=False)]
    used = {*read}
    for file in (file for image in images for file in image_paths(image)):
        used |= {file, *spacing_files(file)}
    skipped = list(_skipped(folder, {Path(os.path.normpath(path)) for path in used}))
    by_reason: dict[tuple[str, bool], list[Skipped]] = {}
    for one in skipped:
        by_reason.setdefault((one.reason, one.expected), []).append(one)
    for (reason, expected), group in by_reason.items():
        names = few(str(one.path.relative_to(folder)) for one in group)
        count = "1 file is" if len(group) == 1 else f"{len(group)} files are"
        remedy = "give them the names of a case, or ignore this"
        note = Problem(None, f"{count} not used, {reason}: {clean_text(names, 500)}", remedy)
        notes.append(note)
        if not (quiet or expected):
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
        if not folders and not files:
            yield Skipped(place, "empty folders", place.parent not in beside)
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
    expected = path.parent not in beside
    if name in _TEXT_NAMES:
        return "no images", True
    if name.endswith(_TEXTS):
        if image_stem(path.with_suffix("")) is None or path.stem in siblings:
            return "no images", True
        return "images with another extension", expected
    if path.is_symlink() and not path.exists():
        return "links that lead nowhere", expected
    if "." not in name:
        return "no images" if expected else "without an extension", expected
    return "with an extension that is not read", expected


def load_folder(
    path: str | os.PathLike[str],
    *,
    images: str = "images",
    labels: str = "labels",
    extra_roots: ExtraRoots = (),
    skip_incomplete: bool = False,
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
    skip_incomplete : bool, default=False
        As for `load_dataset`.

    Returns
    -------
    CaseList
        Lazy subjects, as `load_dataset` returns them, sorted by name.

    Raises
    ------
    DatasetError
        If a folder is missing or empty, or files match nothing; it lists all problems.

    Examples
    --------
    >>> import shutil, tempfile
    >>> from pathlib import Path
    >>> from skte.datasets import load_folder, make_phantoms
    >>> folder = Path(tempfile.mkdtemp())
    >>> (case,) = make_phantoms(1, size=(16, 16, 16))
    >>> for kind in ("image", "label"):
    ...     (folder / f"{kind}s").mkdir()
    ...     case[kind].save(folder / f"{kind}s" / "a.nii.gz")
    >>> [subject["case_id"] for subject in load_folder(folder)]
    ['a']
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
    if not skip_incomplete:
        problems += channel_problems(cases, roots)[0]
    cases, notes = complete_cases(folder, cases, problems, skip=skip_incomplete)
    raise_problems(title, channel_problems(cases, roots)[0])  # most may be wrong: none is left out
    subjects = (make_subject(case_id, *files, roots=roots) for case_id, files in cases.items())
    listed = [file for _, file in (*image_files, *label_files)] if notes else []
    return finish(folder, subjects, notes=notes, read=listed)


def is_folder(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether one of both folders is there; the loader reports which is missing."""
    return (folder / "images").is_dir() or (folder / "labels").is_dir()


def load_dicom(
    path: str | os.PathLike[str],
    *,
    channels: Sequence[str] | None = None,
    extra_roots: ExtraRoots = (),
) -> CaseList:
    """Load a folder of cases, each a folder with DICOM series and a label map.

    ``case1/CT/*.dcm`` and ``case1/label.nii.gz``. Every subfolder of a case that holds
    DICOM files is a channel, in the order of names; or the files lie in the case's
    folder itself. The label map is the one image file there (NIfTI, NRRD, MetaImage ...);
    among several, the one whose name has "label", "seg" or "mask" in it; without any, the
    one segmentation object (SEG) there or in a subfolder of its own.

    Parameters
    ----------
    path : path-like
        The folder of cases.
    channels : sequence of str, optional
        Names of the subfolders to read, in order; all by default.
    extra_roots : sequence of path-like, default=()
        Folders outside it that links and paths may lead to.

    Returns
    -------
    CaseList
        Lazy subjects, as `load_dataset` returns them, sorted by name. Values are rescaled as
        their headers say (to Hounsfield units for CT). A SEG is read by highdicom
        (``pip install 'skte[dicom]'``), contours (RTSTRUCT) are not read.

    Raises
    ------
    DatasetError
        If there are no cases, or a case lacks series or label; it lists all problems. That a
        folder holds one whole series is found by `check_dataset` and `read_case`.

    Examples
    --------
    >>> from skte.datasets import load_dicom
    >>> cases = load_dicom("liver_ct")  # doctest: +SKIP
    """
    folder = check_folder(path)
    roots = data_roots(folder, extra_roots)
    subjects: list[Any] = []
    problems: list[Problem] = []
    for case in _case_folders(folder):
        series, flaws = _series(case, channels)
        label, no_label = _label(case)
        flaws += no_label
        files = [*series, *([label] if label else [])]
        flaws += [flaw for one in files if (flaw := file_flaw(one, roots, folders=True))]
        problems += case_problems(case.name, flaws)
        if label and not flaws:
            subjects.append(make_subject(case.name, series, label, roots=roots))
    n_channels = {len(image_paths(subject["image"])) for subject in subjects}
    if len(n_channels) > 1:
        counts = " or ".join(map(str, sorted(n_channels)))
        what = f"The cases have {counts} series"
        problems.append(Problem(None, what, "name those to read with channels=[...]"))
    if not (subjects or problems):
        problems.append(Problem(None, "no subfolder holds a DICOM series", "add one for each case"))
    raise_problems(f"The dataset {folder} cannot be loaded", problems)
    return finish(folder, subjects, quiet=True)


def is_dicom_dataset(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether any subfolder is a case with DICOM files."""
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        return False  # those two of plain folders, which may hold DICOM series as cases do
    return any(is_series(case) or list_series(case) for case in _case_folders(folder))


def _case_folders(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def _series(case: Path, channels: Sequence[str] | None) -> tuple[list[Path], list[Flaw]]:
    """Folders of the series of a case."""
    found = {k: v for k, v in list_series(case) if series_modality(v) not in SEGMENTATIONS}
    if is_series(case) and not (found and series_modality(case) in SEGMENTATIONS):
        remedy = "put each series into a subfolder of its own"
        if found:
            return [], [("it has DICOM files beside its subfolders", remedy)]
        if channels is not None:
            return [], [("it has no series folders to choose from", remedy)]
        return [case], []
    if not found:
        return [], [("it has no DICOM series", "add one in a subfolder, or remove the case")]
    channels = list(found) if channels is None else channels
    remedy = f"choose among {', '.join(found)}"
    flaws = [(f"there is no series folder {c!r}", remedy) for c in channels if c not in found]
    return [found[name] for name in channels if name in found], flaws


def _label(case: Path) -> tuple[Path | None, list[Flaw]]:
    """File of the label map of a case."""
    regions = {
        path: series_modality(path) for path in (case, *(path for _, path in list_series(case)))
    }
    files = [path for _, path in list_images(case) if not (path.is_file() and is_dicom(path))]
    if not files:
        found = [path for path, kind in regions.items() if kind == "SEG"]
        files = [file for path in found for file in sorted(path.iterdir()) if is_dicom(file)]
    if len(files) > 1:
        named = [p for p in files if any(word in p.name.lower() for word in _LABEL_WORDS)]
        files = named or files
    if len(files) == 1:
        return files[0], []
    if files:
        names = ", ".join(path.name for path in files)
        return None, [(f"several files could be its label map: {names}", "keep one in its folder")]
    if contours := [path.name for path, kind in regions.items() if kind == "RTSTRUCT"]:
        what, remedy = segmentation_flaw("RTSTRUCT", contours[0])
        return None, [(f"it has no label map, and {contours[0]} {what}", remedy)]
    return None, [("it has no label map", "add label.nii.gz, a SEG, or the like")]
