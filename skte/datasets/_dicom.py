"""A folder per case, with DICOM series and a label map."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skte.datasets._case import CaseList, make_subject
from skte.datasets._dicom_file import (
    SEGMENTATIONS,
    is_dicom,
    is_series,
    list_series,
    segmentation_flaw,
    series_modality,
)
from skte.datasets._folder import ExtraRoots, check_folder, data_roots, finish
from skte.datasets._image_file import file_flaw, image_paths, list_images
from skte.datasets._problem import Flaw, Problem, case_problems, raise_problems

__all__ = ["is_dicom_dataset", "load_dicom"]

_LABEL_WORDS = ("label", "seg", "mask")


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
        Subjects sorted by name, lazy: no volume is read. Each has ``image``, ``label``,
        ``case_id``, ``ignore_label`` (None), ``label_names`` and ``label_ids`` (those of the
        segments of a SEG).

    Raises
    ------
    DatasetError
        If there are no cases, or a case lacks series or label; one message lists all
        problems. That a folder holds one whole series is found by `check_dataset` and
        `read_case`.

    Notes
    -----
    Values are rescaled as their headers say (to Hounsfield units for CT). A SEG is read by
    highdicom (``pip install 'skte[dicom]'``): numbers of segments are ids, and slices that it
    leaves out are background. Contours (RTSTRUCT) are not read: convert them first.

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
        if channels is not None or found:
            remedy = "put each series into a subfolder of its own"
            return [], [("it has DICOM files beside its subfolders", remedy)] if found else [
                ("it has no series folders to choose from", remedy)
            ]
        return [case], []
    if not found:
        return [], [("it has no DICOM series", "add one in a subfolder, or remove the case")]
    if channels is None:
        return list(found.values()), []
    flaws = [
        (f"there is no series folder {name!r}", f"choose among {', '.join(found)}")
        for name in channels
        if name not in found
    ]
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
    contours = [path.name for path, kind in regions.items() if kind == "RTSTRUCT"]
    if contours and not files:
        what, remedy = segmentation_flaw("RTSTRUCT", contours[0])
        return None, [(f"it has no label map, and {contours[0]} {what}", remedy)]
    if not files:
        return None, [("it has no label map", "add label.nii.gz, a SEG, or the like")]
    names = ", ".join(path.name for path in files)
    return None, [(f"several files could be its label map: {names}", "keep one in its folder")]
