"""DICOM series: a folder of slices that make up one volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 (its own habit; torchio depends on it)
from numpy.typing import NDArray

__all__ = ["is_dicom", "is_series", "list_series", "series_geometry"]

# How much the distances between slices may differ, of the distance between them: a
# missing slice doubles one of them.
_SPACING_TOLERANCE = 0.1
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def is_dicom(path: Path) -> bool:
    """Tell by its first bytes whether a file is DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_series(folder: Path) -> bool:
    """Tell whether a folder directly holds DICOM files."""
    return any(map(is_dicom, _files(folder)))


def list_series(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of every subfolder that holds DICOM files, sorted; hidden ones left out."""
    return [
        (path.name, path)
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".") and is_series(path)
    ]


def series_geometry(folder: Path) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Shape and affine of the volume that torchio would read from a folder.

    Only headers are read.

    Returns
    -------
    shape : tuple of int
        Channels, x, y, z.
    affine : ndarray of shape (4, 4)
        Voxel to world, RAS+, in mm.

    Raises
    ------
    ValueError
        If there is not exactly one series, or its slices differ in size or direction, or
        are not evenly spaced; the message says what to do.
    """
    names = _slices(folder)
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
    return (first.GetNumberOfComponents(), *size), affine


def _slices(folder: Path) -> list[str]:
    """Files of the one series in a folder, in order of their position."""
    with _quiet():
        series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        if len(series) > 1:
            raise ValueError(
                f"it holds {len(series)} DICOM series, of which only one would be read; give "
                "each a folder of its own"
            )
        names = list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    if not names:
        raise ValueError("it holds no DICOM image")
    n_files = sum(map(is_dicom, _files(folder)))
    if n_files != len(names):
        raise ValueError(
            f"{n_files - len(names)} of its {n_files} DICOM files are no images of the series "
            "(reports, segmentations or damaged files); take them away"
        )
    return names


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


def _header(name: str) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    return reader


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK from writing warnings about every other file to stderr."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
