"""DICOM series: a folder of slices that make up one volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its own habit; torchio depends on it)
from numpy.typing import NDArray

from skte._files import outside_problem
from skte.datasets._dicom_file import is_dicom, read_dicom
from skte.datasets._filenames import is_folder

__all__ = ["is_series", "list_series", "read_series", "series_files", "series_header"]

# How much the distances between slices may differ, of the distance between them: a
# missing slice doubles one of them.
_SPACING_TOLERANCE = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def is_series(folder: Path) -> bool:
    """Tell whether a folder directly holds DICOM files."""
    return is_folder(folder) and any(map(is_dicom, _files(folder)))


def list_series(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of every subfolder that holds DICOM files, sorted; hidden ones left out."""
    return [
        (path.name, path)
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".") and is_series(path)
    ]


def series_header(names: Sequence[Path]) -> tuple[tuple[int, ...], NDArray[np.float64], str]:
    """Shape, affine and type of the volume of a series.

    Only headers are read.

    Parameters
    ----------
    names : sequence of Path
        Its files in order, as `series_files` returns them.

    Returns
    -------
    shape : tuple of int
        Channels, x, y, z.
    affine : ndarray of shape (4, 4)
        Voxel to world, RAS+, in mm.
    kind : str
        What ITK calls the type of the values.

    Raises
    ------
    ValueError
        If the slices differ in size or direction, or are not evenly spaced; the message
        says what to do.
    """
    headers = [_header(name) for name in names]
    first = headers[0]
    if any(h.GetSize() != first.GetSize() for h in headers):
        raise ValueError("its slices differ in size; keep the files of one series")
    if any(not np.allclose(h.GetDirection(), first.GetDirection(), atol=1e-3) for h in headers):
        raise ValueError("its slices differ in direction; keep the files of one series")
    size, spacing = list(first.GetSize()), np.array(first.GetSpacing(), dtype=np.float64)
    direction = np.array(first.GetDirection(), dtype=np.float64).reshape(len(size), -1)
    if len(size) != 3:
        raise ValueError(f"its images have {len(size)} dimensions; give slices or one volume")
    if len(names) > 1:
        size[2] *= len(names)
        spacing[2] = _even_step([np.array(h.GetOrigin()) for h in headers], direction[:, 2])
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ direction @ np.diag(spacing)
    affine[:3, 3] = _LPS_TO_RAS @ np.array(first.GetOrigin())
    shape = (first.GetNumberOfComponents(), *size)
    return shape, affine, sitk.GetPixelIDValueAsString(first.GetPixelID())


def series_files(folder: Path, roots: Sequence[Path] | None = None) -> list[Path]:
    """Files of the one series in a folder, in order of their position.

    Each is walked through first, since GDCM believes the lengths in a file.

    Parameters
    ----------
    folder : Path
        Its folder.
    roots : sequence of Path, optional
        Folders that the files must lie in; None: the folder itself.

    Raises
    ------
    ValueError
        If there is not exactly one series, or a file cannot be used; the message says what
        to do.
    """
    odd = [path.name for path in sorted(folder.iterdir()) if not (path.is_file() or path.is_dir())]
    if odd:
        names = ", ".join(odd[:5])
        raise ValueError(f"it holds broken links, pipes or the like ({names}); replace them")
    files = [path for path in _files(folder) if is_dicom(path)]
    for path in files:
        if problem := outside_problem(path, roots or (folder,)):
            raise ValueError(f"its file {path.name} {problem}")
    try:
        found = {path: read_dicom(path) for path in files}
    except ValueError as error:
        raise ValueError(f"a DICOM file in it {error}; replace it") from error
    series = Counter(one.series for one in found.values() if one.is_image)
    if len(series) > 1:
        raise ValueError(
            f"it holds {len(series)} DICOM series, of which only one would be read; give "
            "each a folder of its own"
        )
    if not series:
        raise ValueError("it holds no DICOM image")
    if n_other := sum(not one.is_image for one in found.values()):
        raise ValueError(
            f"{n_other} of its {len(files)} DICOM files are no images of the series "
            "(reports, segmentations or damaged files); take them away"
        )
    return sorted(found, key=lambda path: found[path].place)


def read_series(names: Sequence[Path]) -> Any:
    """Return the volume of a series, an image of SimpleITK."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(name) for name in names])
    return reader.Execute()


def _even_step(origins: list[NDArray[np.float64]], normal: NDArray[np.float64]) -> float:
    """Distance between slices, which must all be about the same."""
    positions = np.array(origins) @ normal
    steps = np.diff(positions)
    step = float(np.linalg.norm(origins[-1] - origins[0])) / len(steps)
    if step == 0 or np.abs(np.abs(steps) - step).max() > _SPACING_TOLERANCE * step:
        low, high = np.abs(steps).min(), np.abs(steps).max()
        raise ValueError(
            f"its slices are not evenly spaced ({low:.3g} to {high:.3g} mm apart): slices are "
            "missing, doubled, or of several series; complete it"
        )
    return step


def _header(name: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(name))
    reader.ReadImageInformation()
    return reader


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]
