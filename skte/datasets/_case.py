"""One case in memory, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte.datasets._checks import structure_problems
from skte.datasets._geometry import geometry_flaws, reorient, turn_between
from skte.datasets._label_names import parse_label_names
from skte.datasets._problem import Flaw, case_problems, raise_problems
from skte.datasets._read import ImageHeader, memory_flaws, read_array, read_headers
from skte.datasets._subject import split_images, subject_case_id
from skte.datasets._values import image_flaws, label_flaws
from skte.exceptions import DatasetError

__all__ = ["Case", "read_case"]


@dataclass(frozen=True, eq=False)
class Case:
    """Image and label of one case, loaded and checked.

    Parameters
    ----------
    case_id : str
        Name of the case.
    image : Tensor of shape (n_channels, x, y, z), float32
        Intensities as stored. A 2-D image has z = 1.
    label : Tensor of shape (x, y, z), int64
        Class ids, 0 for background; any others, {0, 2, 7} for instance.
    affine : ndarray of shape (4, 4)
        From voxel indices to world coordinates in mm (RAS+).
    spacing : tuple of float
        Size of a voxel along x, y and z in mm.
    ignore_label : int or None
        Voxels with this label belong to no class.
    label_names : mapping of int to str
        Names of the class ids, where known.

    Examples
    --------
    >>> from skte.datasets import make_phantoms, read_case
    >>> case = read_case(make_phantoms(1, size=(16, 16, 16))[0])
    >>> case.case_id, case.image.shape, case.spacing
    ('ellipsoids_000', torch.Size([1, 16, 16, 16]), (1.0, 1.0, 1.0))
    """

    case_id: str
    image: torch.Tensor
    label: torch.Tensor
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    ignore_label: int | None = None
    label_names: Mapping[int, str] = field(default_factory=dict)

    def to_image(self) -> Any:
        """Return the image as a torchio image, for preprocessing.

        Returns
        -------
        ScalarImage
            It has a copy of the values, so that transforms leave the case as it is.
        """
        return tio.ScalarImage(tensor=self.image.clone(), affine=self.affine.copy())


def read_case(subject: Any) -> Case:
    """Load and check one case.

    Parameters
    ----------
    subject : Subject
        A torchio subject with one label map and one or more images, which become
        channels in order. It is left as it is: nothing stays loaded on it.

    Returns
    -------
    Case
        Float32 image and int64 label, voxel by voxel on the grid of the first image.

    Raises
    ------
    DatasetError
        If the case cannot be used. The message names the case and lists all its
        problems with their remedies: files missing, truncated or corrupted; image and
        label of different shape or affine; label missing, with channels, empty, with
        one class only, float-valued or negative; NaN or Inf; a constant image. A case
        that merely lacks some of the dataset's classes is fine.

    Notes
    -----
    NIfTI files are read with nibabel: ITK, which torchio uses, fills truncated files
    with zeros and turns NaN into zero silently. A label or channel whose affine differs
    from the image's by flips and swaps of axes alone holds the same voxels in another
    order (a NIfTI label beside a DICOM series, for instance) and is put in order.

    Examples
    --------
    >>> from skte.datasets import make_phantoms, read_case
    >>> case = read_case(make_phantoms(1, size=(32, 32, 1), labels=(0, 2, 7))[0])
    >>> case.label.unique()
    tensor([0, 2, 7])
    """
    if not isinstance(subject, tio.Subject):
        raise DatasetError(
            f"read_case takes a torchio Subject, got {type(subject).__name__}: "
            "load_dataset turns other forms into subjects."
        )
    case_id = subject_case_id(subject)
    title = f"Case {case_id!r} cannot be used"
    raise_problems(title, structure_problems(case_id, subject))
    images, labels = split_images(subject)
    (label_name, label_image), *_ = labels.items()
    headers, opened, flaws = _open(images)
    label_headers, opened_label, unopened = _open({label_name: label_image})
    label_header = label_headers[0] if label_headers else None
    ignore_label = subject.get("ignore_label")
    flaws += unopened + geometry_flaws(headers, label_header)
    # What has no header is not read, nor what would take too much: promises are believed.
    if too_large := memory_flaws(headers, label_header):
        raise_problems(title, case_problems(case_id, flaws + too_large))
    arrays, wrong = _read(opened)
    flaws += wrong + image_flaws(arrays)
    image = None if flaws else _stack(arrays, headers)
    del arrays  # before the label is read
    label_arrays, wrong = _read(opened_label)
    flaws += wrong
    for array in label_arrays:
        flaws += label_flaws(array, ignore_label)
    raise_problems(title, case_problems(case_id, flaws))
    assert image is not None
    label = reorient(label_arrays[0], turn_between(label_headers[0], headers[0]))[0]
    affine = headers[0].affines[0]
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return Case(
        case_id=case_id,
        image=torch.from_numpy(image),
        label=torch.from_numpy(_own(label, np.int64)),
        affine=affine,
        spacing=(x, y, z),
        ignore_label=None if ignore_label is None else int(ignore_label),
        label_names=parse_label_names(subject.get("label_names"))[0],
    )


def _open(
    images: Mapping[str, Any],
) -> tuple[list[ImageHeader], dict[str, Any], list[Flaw]]:
    """Headers, the images that have them, and what is wrong with the others."""
    headers: list[ImageHeader] = []
    opened: dict[str, Any] = {}
    flaws: list[Flaw] = []
    for name, image in images.items():
        found, unopened = read_headers(image, name)
        headers += found
        flaws += unopened
        if not unopened:
            opened[name] = image
    return headers, opened, flaws


def _read(images: Mapping[str, Any]) -> tuple[list[NDArray[Any]], list[Flaw]]:
    arrays: list[NDArray[Any]] = []
    flaws: list[Flaw] = []
    for name, image in images.items():
        values, unread = read_array(image, name)
        arrays += values
        flaws += unread
    return arrays, flaws


def _stack(arrays: Sequence[NDArray[Any]], headers: Sequence[ImageHeader]) -> NDArray[np.float32]:
    """Channels of all files on the grid of the first; other orders of voxels are turned."""
    turned = [
        reorient(array, turn_between(header, headers[0]))
        for array, header in zip(arrays, headers, strict=True)
    ]
    stacked = np.empty((sum(map(len, turned)), *turned[0].shape[1:]), dtype=np.float32)
    return np.concatenate(turned, out=stacked, casting="unsafe")


def _own(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return a contiguous copy in native byte order, sharing nothing with the caller."""
    return np.array(array, dtype=dtype, order="C")
