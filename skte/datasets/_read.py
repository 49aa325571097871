"""Reading image files: headers alone, or values that nothing has touched up.

NIfTI goes through nibabel, everything else through torchio. torchio reads NIfTI with
ITK, which fills a truncated file with zeros and turns NaN into zero without a word, so
that a broken case would pass for a whole one.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torchio as tio
from numpy.typing import NDArray
from torchio.data.io import read_image

from skte.datasets._dicom_series import series_geometry
from skte.datasets._file_size import check_size
from skte.datasets._problem import Flaw
from skte.datasets._relabel import RelabelingReader

__all__ = ["ImageHeader", "read_array", "read_headers"]

_NIFTI_ENDINGS = (".nii", ".nii.gz")


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """Geometry of one file or tensor.

    Parameters
    ----------
    source : str
        The file, or the name of an image held in memory.
    shape : tuple of int
        Channels, x, y, z.
    affines : tuple of ndarray of shape (4, 4)
        Voxel to world. A NIfTI file may state two (sform and qform); the first counts.
    """

    source: str
    shape: tuple[int, ...]
    affines: tuple[NDArray[np.float64], ...]


def read_headers(image: Any, name: str) -> tuple[list[ImageHeader], list[Flaw]]:
    """Headers of the files of an image, one a file, and what could not be read.

    Parameters
    ----------
    image : Image
        A torchio image; it is left as it is.
    name : str
        What an image in memory is called in messages.

    Returns
    -------
    headers : list of ImageHeader
        Of what could be read.
    flaws : list of (str, str)
        One for each file that could not, and what to do.
    """
    headers, flaws = [], []
    for part in _parts(image):
        source = str(part.path) if part.path else f"image {name!r}"
        try:
            headers.append(_header(part, source))
        except Exception as error:
            flaws.append(_unreadable(source, error))
    return headers, flaws


def read_array(image: Any, name: str) -> tuple[list[NDArray[Any]], list[Flaw]]:
    """Values of the files of an image, each (channels, x, y, z), in the stored type.

    Parameters
    ----------
    image : Image
        A torchio image; it is left as it is, nothing stays loaded on it.
    name : str
        What an image in memory is called in messages.

    Returns
    -------
    arrays : list of ndarray
        Of what could be read.
    flaws : list of (str, str)
        One for each file that could not, and what to do.
    """
    arrays, flaws = [], []
    for part in _parts(image):
        source = str(part.path) if part.path else f"image {name!r}"
        try:
            arrays.append(_values(part))
        except Exception as error:
            flaws.append(_unreadable(source, error))
    return arrays, flaws


def _parts(image: Any) -> list[Any]:
    """One torchio image a file, so that each can be named; copies, so that none is loaded."""
    if isinstance(image.path, list) and tio.DATA not in image:
        kind = type(image)
        return [kind(p, reader=image.reader, verify_path=False) for p in image.path]
    if tio.DATA in image:
        return [image]
    return [type(image)(image.path, reader=image.reader, verify_path=False)]


def _header(part: Any, source: str) -> ImageHeader:
    part = _without_relabeling(part)
    if tio.DATA not in part and part.reader is read_image and part.path.is_dir():
        shape, affine = series_geometry(part.path)
        return ImageHeader(source, shape, (affine,))
    if not _is_plain_nifti(part):
        shape = tuple(part.shape)
        if tio.DATA not in part and part.reader is read_image:
            check_size(part.path, math.prod(shape))
        return ImageHeader(source, shape, (np.asarray(part.affine),))
    _require(part.path)
    file = nib.load(part.path, mmap=False)
    shape = _channels_first_shape(file.shape)
    check_size(part.path, math.prod(shape) * file.get_data_dtype().itemsize)
    affines = [np.asarray(file.affine, dtype=np.float64)]
    if isinstance(file, nib.Nifti1Pair):
        affines += [
            a
            for a in (file.get_sform(coded=True)[0], file.get_qform(coded=True)[0])
            if a is not None
        ]
    return ImageHeader(source, shape, tuple(affines))


def _values(part: Any) -> NDArray[Any]:
    if isinstance(part.reader, RelabelingReader) and tio.DATA not in part:
        return part.reader.relabeling.apply(_values(_without_relabeling(part)))
    if not _is_plain_nifti(part):
        loaded = part if tio.DATA in part else copy.copy(part)
        return np.asarray(loaded.data.detach().cpu().resolve_conj())
    _require(part.path)
    file = nib.load(part.path, mmap=False)
    data = np.asarray(file.dataobj)
    shape = _channels_first_shape(file.shape)
    if data.ndim >= 4:
        data = np.moveaxis(data.reshape(*data.shape[:3], -1), -1, 0)
    return data.reshape(shape)


def _without_relabeling(part: Any) -> Any:
    """Return the image as its file has it; ids change neither its geometry nor its faults."""
    if tio.DATA in part or not isinstance(part.reader, RelabelingReader):
        return part
    return type(part)(part.path, reader=part.reader.reader, verify_path=False)


def _is_plain_nifti(part: Any) -> bool:
    return (
        tio.DATA not in part
        and part.reader is read_image
        and part.path.name.lower().endswith(_NIFTI_ENDINGS)
    )


def _require(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError("the file does not exist")


def _channels_first_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels last, as NIfTI stores them (4-D, or 5-D with time 1), to channels first."""
    if len(shape) == 5 and shape[3] == 1:
        shape = (*shape[:3], shape[4])
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise ValueError(f"an image of shape {shape} is not supported")
    spatial = (*shape[:3], 1)[:3]
    return (shape[3] if len(shape) == 4 else 1, *spatial)


def _unreadable(source: str, error: Exception) -> Flaw:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return (
        f"{source} cannot be read ({text})",
        "the file may be missing, truncated or corrupted: get it again or leave the case out",
    )
