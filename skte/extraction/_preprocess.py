"""An entry's own view of a case, and where the sampled voxels lie in it."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from skte.bank import BankEntry
from skte.datasets import Case
from skte.exceptions import ExtractionError, SkteWarning
from skte.extraction._step_sizes import size_problem

__all__ = ["carry_voxels", "preprocess_case"]

# Sampled voxels may lie this far (in voxels) outside the preprocessed image, and
# this share of them farther, before a user is told. A larger share would carry a
# neighbour's features under another label; dropping those voxels instead would leave
# each model with voxels of its own.
_SLACK, _SHARE_TOLD, _SHARE_REFUSED = 0.51, 0.01, 0.10


def preprocess_case(case: Case, entry: BankEntry) -> tuple[torch.Tensor, NDArray[np.float64]]:
    """Apply an entry's preprocessing to the image.

    Labels are never resampled: a voxel keeps its label, and its *physical*
    position is looked up in the preprocessed image.

    Parameters
    ----------
    case : Case
        The case as it lies on disk.
    entry : BankEntry
        The model whose preprocessing is wanted.

    Returns
    -------
    image : Tensor of shape (n_channels, x, y, z)
        The preprocessed image.
    to_image : ndarray of shape (4, 4)
        From indices into the label map to indices into the image.

    Raises
    ------
    ExtractionError
        If the preprocessing fails, would take too much memory, or leaves NaN or Inf.
    """
    transform = entry.transform()
    if transform is None:
        return case.image, np.eye(4)
    where = f"entry {entry.name!r}, case {case.case_id!r}"
    try:
        image = case.to_image()
        for step in transform.transforms:
            problem = size_problem(step, image)
            if problem:
                raise ExtractionError(f"Preprocessing was stopped ({where}): {problem}.")
            image = step(image)
    except ExtractionError:
        raise
    except (Exception, SystemExit) as error:
        raise ExtractionError(
            f"Preprocessing failed ({where}): {type(error).__name__}: {error}"
        ) from error
    data = image.data.float()
    if data.numel() == 0:
        raise ExtractionError(f"Preprocessing leaves nothing of the image ({where}). Crop less.")
    if not torch.isfinite(data).all():
        raise ExtractionError(f"Preprocessing left NaN or Inf in the image ({where}).")
    return data, np.linalg.solve(image.affine, case.affine)


def carry_voxels(
    voxels: NDArray[np.intp], to_image: NDArray[np.float64], shape: tuple[int, ...], where: str
) -> NDArray[np.float64]:
    """Positions of voxels of the label map in the preprocessed image.

    Parameters
    ----------
    voxels : ndarray of shape (n_points, 3)
        Indices into the label map.
    to_image : ndarray of shape (4, 4)
        As `preprocess_case` returns it.
    shape : tuple of int
        Size of the preprocessed image.
    where : str
        What messages call entry and case.

    Returns
    -------
    ndarray of shape (n_points, 3)
        Possibly fractional, inside the image.

    Raises
    ------
    ExtractionError
        If the preprocessing cuts away more than a tenth of the voxels.
    """
    carried = voxels @ to_image[:3, :3].T + to_image[:3, 3]
    rounded = np.round(carried)  # undo the rounding of the affines where it can be
    carried = np.where(np.abs(carried - rounded) < 1e-6, rounded, carried)
    return _inside(carried, shape, where)


def _inside(points: NDArray[np.float64], shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    last = np.array(shape) - 1
    n_outside = int(((points < -_SLACK) | (points > last + _SLACK)).any(axis=1).sum())
    share = n_outside / max(1, len(points))
    told = f"The preprocessing cuts away {share:.0%} of the sampled voxels ({where})"
    if share > _SHARE_REFUSED:
        raise ExtractionError(
            f"{told}, more than the {_SHARE_REFUSED:.0%} that the nearest voxel left may stand "
            "for. Crop less (Crop, CropOrPad), and use transforms that keep the affine true."
        )
    if share > _SHARE_TOLD:
        warnings.warn(
            f"{told}; the nearest voxel that is left stands for them. Crop less.",
            SkteWarning,
            stacklevel=2,
        )
    return np.clip(points, 0, last)
