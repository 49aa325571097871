"""Two plain folders: images and labels of the same names."""

from __future__ import annotations

import os

from skte.datasets._case_list import CaseList
from skte.datasets._channels import case_file_problems, match_files
from skte.datasets._description import ExtraRoots, check_folder, data_roots
from skte.datasets._dicom_series import list_series
from skte.datasets._filenames import IMAGE_ENDINGS, list_images
from skte.datasets._problem import Problem, raise_problems
from skte.datasets._subject import make_subject

__all__ = ["load_folder"]


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
    problems = [
        Problem(
            None,
            f"there is no folder {name!r} in it",
            "name the folders with load_folder(path, images=..., labels=...)",
        )
        for name in (images, labels)
        if not (folder / name).is_dir()
    ]
    raise_problems(title, problems)
    image_files, label_files = (
        [*list_images(folder / name), *list_series(folder / name)] for name in (images, labels)
    )
    problems = [
        Problem(
            None, f"folder {name!r} holds no image file", f"add some ({', '.join(IMAGE_ENDINGS)})"
        )
        for name, files in ((images, image_files), (labels, label_files))
        if not files
    ]
    raise_problems(title, problems)
    cases, problems = match_files(image_files, label_files)
    roots = data_roots(folder, extra_roots)
    raise_problems(title, problems + case_file_problems(cases, roots))
    return CaseList(make_subject(case_id, *files, roots=roots) for case_id, files in cases.items())
