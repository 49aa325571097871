"""Plain folders of images and labels, or of DICOM cases."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from skte.datasets._assembly import Assembly, Draft, ExtraRoots, check_folder, is_segmentation
from skte.datasets._case import CaseList
from skte.datasets._dicom_file import (
    SEGMENTATIONS,
    is_dicom,
    is_series,
    list_series,
    segmentation_flaw,
    series_modality,
)
from skte.datasets._image_file import IMAGE_ENDINGS, image_stem, list_images
from skte.datasets._problem import Flaw, Problem

_LABEL_WORDS = ("label", "seg", "mask")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def pair_files(
    found: Assembly, images: Collection[tuple[str, Path]], labels: Collection[tuple[str, Path]]
) -> None:
    """Add a case for each label, and its images by their names (stem, path)."""
    # 3D Slicer writes c.seg.nrrd beside the c.nrrd that it segments.
    images = [(s, path) for s, path in images if not is_segmentation(path)] or images
    drafts: dict[str, Draft] = {}
    for stem, path in sorted(labels):
        if stem in drafts:
            drafts[stem].flaws.append(_clash(drafts[stem].label, path))
            drafts[stem].others.append(path)
        else:
            drafts[stem] = found.add(stem, [], path)
    channels: dict[str, dict[int, Path]] = {stem: {} for stem in drafts}
    for stem, path in images:
        match = _CHANNEL.fullmatch(stem)
        case_id, channel = stem, 0
        if stem not in drafts and match and match["case"] in drafts:
            case_id, channel = match["case"], int(match["channel"])
        if case_id not in drafts:
            flaw = f"image {path.name} has no label", "add it, or remove the image"
            found.add("", [path], None).flaws.append(flaw)
            continue
        first = channels[case_id].setdefault(channel, path)
        if first == path:
            continue
        drafts[case_id].others.append(path)
        if image_stem(first) == image_stem(path):
            drafts[case_id].flaws.append(_clash(first, path))
        else:
            what = f"it has channel {channel} twice: {first.name} and {path.name}"
            drafts[case_id].flaws.append((what, "keep one"))
    for case_id, draft in drafts.items():
        files = channels[case_id]
        draft.images = [files[i] for i in sorted(files)]
        if not files:
            what = f"label {draft.label and draft.label.name} has no image"
            draft.flaws.append((what, "add it, or remove the label"))
        # Names up to the first gap are enough: a channel 9999 is no reason to list all others.
        elif missing := sorted(set(range(max(files) + 1)) - set(files))[:5]:
            gaps = ", ".join(f"_{i:04d}" for i in missing)
            draft.flaws.append((f"it lacks channel {gaps}", "add the file"))


def _clash(first: Path | None, second: Path) -> Flaw:
    names = f"{first.name if first else ''}, {second.name}"
    return f"files {names} in {second.parent.name}/ share this case id", "keep one"


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
    found = Assembly(check_folder(path), extra_roots, skip=skip_incomplete)
    for name in (images, labels):
        if not (found.place / name).is_dir():
            remedy = "name the folders with load_folder(path, images=..., labels=...)"
            found.fail(f"there is no folder {name!r} in it", remedy)
    found.check()
    listed = {
        name: [*list_images(found.place / name), *list_series(found.place / name)]
        for name in (images, labels)
    }
    for name, files in listed.items():
        if not files:
            remedy = f"add some ({', '.join(IMAGE_ENDINGS)})"
            found.fail(f"folder {name!r} holds no image file", remedy)
    found.check()
    pair_files(found, listed[images], listed[labels])
    found.check_files()
    # Most may be wrong: none is left out.
    found.problems += [Problem(draft.case_id, *flaw) for draft, flaw in [*found.check_channels()]]
    return found.finish()


def is_folder(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether one of both folders is there; the loader reports which is missing."""
    return (folder / "images").is_dir() or (folder / "labels").is_dir()


def load_dicom(
    path: str | os.PathLike[str],
    *,
    channels: Sequence[str] | None = None,
    extra_roots: ExtraRoots = (),
    skip_incomplete: bool = False,
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
    skip_incomplete : bool, default=False
        As for `load_dataset`.

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
    found = Assembly(check_folder(path), extra_roots, skip=skip_incomplete)
    for case in _case_folders(found.place):
        series, flaws = _series(case, channels)
        label, no_label = _label(case)
        found.add(case.name, series, label).flaws += flaws + no_label
    n_channels = {len(draft.images) for draft in found.sound()}
    if len(n_channels) > 1:
        counts = " or ".join(map(str, sorted(n_channels)))
        found.fail(f"The cases have {counts} series", "name those to read with channels=[...]")
    if not found.drafts:
        found.fail("no subfolder holds a DICOM series", "add one for each case")
    return found.finish(quiet=True)


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
