"""Shapes and affines of the files of one case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from skte.datasets._problem import Flaw
from skte.datasets._read import ImageHeader

__all__ = ["geometry_flaws", "reorient", "turn_between"]

# How far, in voxels, image and label may lie apart at the farthest corner: above what
# rounding in headers causes, below what would move a label.
_AFFINE_TOLERANCE = 0.05

# In mm. Beyond it a header counts in other units (micrometres, mostly): resampled to a
# model's spacing in mm, such an image would take all memory.
_LONGEST_EDGE = 100_000


def geometry_flaws(images: Sequence[ImageHeader], label: ImageHeader | None) -> list[Flaw]:
    """Find what is wrong with shapes and affines within one case."""
    everything = [*images, *([label] if label else [])]
    singular = [h.source for h in everything if not _is_regular(h.affines[0])]
    flaws = [
        (f"{source} has an affine that is singular or not finite", "mend its header")
        for source in singular
    ]
    flaws += [
        (
            f"{h.source} is {longest / 1000:.3g} m long by its affine",
            "mend its header: spacings are in mm",
        )
        for h in everything
        if _is_regular(h.affines[0]) and (longest := _longest_edge(h)) > _LONGEST_EDGE
    ]
    flaws += [
        (f"{h.source} has no voxels (shape {h.shape})", "get it again or leave the case out")
        for h in everything
        if 0 in h.shape
    ]
    if label and label.shape[0] > 1:
        flaws.append(
            (
                f"the label ({label.source}) is 4-D with {label.shape[0]} channels",
                "merge one-hot channels into one map of class ids",
            )
        )
    # Without an image there is nothing to compare with, and it was told elsewhere.
    for header in everything[1:] if images else []:
        what = "label" if header is label else "channel"
        flaws += _disagreements(header, images[0], what, comparable=not singular)
    return flaws


def turn_between(header: ImageHeader, reference: ImageHeader) -> NDArray[Any] | None:
    """Return the flips and swaps of axes that lay an image on the grid of another.

    A DICOM series and the NIfTI file of its label hold their rows in opposite order, for
    instance: the same voxels, listed in another order.

    Returns
    -------
    ndarray or None
        An orientation as nibabel writes it. None: the image lies there already, or no
        flips and swaps would lay it there.
    """
    if not (_is_regular(header.affines[0]) and _is_regular(reference.affines[0])):
        return None
    if 0 in (*header.shape, *reference.shape):
        return None
    same = header.shape[1:] == reference.shape[1:]
    if same and _displacement(header, reference) <= _AFFINE_TOLERANCE:
        return None
    start, end = (orientations.io_orientation(h.affines[0]) for h in (header, reference))
    if np.isnan(start).any() or np.isnan(end).any():
        return None
    turn = orientations.ornt_transform(start, end)
    turned = _turned_header(header, turn)
    if turned.shape[1:] != reference.shape[1:]:
        return None
    return turn if _displacement(turned, reference) <= _AFFINE_TOLERANCE else None


def reorient(array: NDArray[Any], turn: NDArray[Any] | None) -> NDArray[Any]:
    """Apply what `turn_between` returned to an array (channels, x, y, z)."""
    if turn is None:
        return array
    turned = orientations.apply_orientation(np.moveaxis(array, 0, -1), turn)  # a view
    return np.moveaxis(turned, -1, 0)


def _disagreements(
    header: ImageHeader, image: ImageHeader, what: str, *, comparable: bool
) -> list[Flaw]:
    if comparable and turn_between(header, image) is not None:
        return []
    if header.shape[1:] != image.shape[1:]:
        return [
            (
                f"the {what} ({header.source}) has shape {header.shape[1:]}, the image "
                f"({image.source}) {image.shape[1:]}",
                "resample one to the other's grid",
            )
        ]
    if comparable and (off := _displacement(header, image)) > _AFFINE_TOLERANCE:
        return [
            (
                f"the {what} ({header.source}) and the image ({image.source}) have "
                f"different affines, {off:.3g} voxels apart at the farthest corner",
                "resample one to the other's grid, or copy the affine if the voxels do match",
            )
        ]
    return []


def _turned_header(header: ImageHeader, turn: NDArray[Any]) -> ImageHeader:
    shape = header.shape[1:]
    back = orientations.inv_ornt_aff(turn, shape)
    sizes = np.empty(3, dtype=int)
    sizes[turn[:, 0].astype(int)] = shape
    return replace(
        header,
        shape=(header.shape[0], *sizes.tolist()),
        affines=tuple(affine @ back for affine in header.affines),
    )


def _is_regular(affine: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all():
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((spacing > 0).all() and abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-6)


def _longest_edge(header: ImageHeader) -> float:
    """Length of the longest edge of the volume, in mm."""
    spacing = np.linalg.norm(header.affines[0][:3, :3], axis=0)
    return float((spacing * header.shape[1:]).max())


def _displacement(a: ImageHeader, b: ImageHeader) -> float:
    """Largest distance between the corners of two images, in voxels.

    A NIfTI file may state its affine twice. Tools differ in which one they read and
    keep, so two files agree when any of their affines do.
    """
    corners = np.array([[*ijk, 1] for ijk in product(*((0, n - 1) for n in b.shape[1:]))])
    spacing = np.linalg.norm(b.affines[0][:3, :3], axis=0).min()
    # A step of one voxel shows a rotation that a flat image's corners would not.
    steps = np.vstack([corners, corners[0] + np.eye(4)[:3]])
    apart = [
        np.linalg.norm((first - second)[:3] @ steps.T, axis=0).max()
        for first, second in product(a.affines, b.affines)
    ]
    return float(min(apart) / spacing)
