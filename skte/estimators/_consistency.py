"""Distances between cases of each class's feature distribution."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.estimators._gaussian import PAIRWISE_DISTANCES
from skte.exceptions import UnusableClassWarning
from skte.features import FeatureBlock

__all__ = ["case_codes", "class_distances"]

# Without groups every row is a case; beyond this the pairs would not fit in memory.
_MAX_CASES = 10_000


def case_codes(block: FeatureBlock) -> tuple[NDArray[np.generic], NDArray[np.intp]]:
    """Find the cases of a block and the position of each row's case among them.

    Parameters
    ----------
    block : FeatureBlock
        Without ``groups``, every row is a case of its own.

    Returns
    -------
    cases : ndarray of shape (n_cases,)
        Sorted.
    codes : ndarray of shape (n_voxels,)
        ``cases[codes]`` are the groups.

    Raises
    ------
    ValueError
        If there is one case only, or too many rows without groups.
    """
    if block.groups is not None:
        cases, codes = np.unique(block.groups, return_inverse=True)
        if len(cases) < 2:
            raise ValueError(
                f"{block.label}: all rows come from one case. Class consistency compares "
                "cases and needs at least two."
            )
        return cases, codes
    if block.n_voxels > _MAX_CASES:
        raise ValueError(
            f"Without groups every row is a case of its own, and {block.n_voxels} rows "
            f"are too many pairs (the limit is {_MAX_CASES} rows). Pass groups=, the "
            "case of each row."
        )
    return np.arange(block.n_voxels), np.arange(block.n_voxels)


def class_distances(
    X: NDArray[np.float64],
    block: FeatureBlock,
    codes: NDArray[np.intp],
    *,
    distance: str,
    background: Any,
) -> dict[Any, tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Distances between all pairs of cases, for each class two cases hold.

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        The block's features, normalised or not.
    block : FeatureBlock
        Labels, and the name used in messages.
    codes : ndarray of shape (n_voxels,)
        Case of each row.
    distance : {"wasserstein", "kl", "bhattacharyya"}
        Distance between the Gaussians fitted to a class in two cases.
    background : label or None
        Left out.

    Returns
    -------
    dict of label to (ndarray of shape (n,), ndarray of shape (n, n))
        Cases that hold the class (codes), and the distances between them.

    Raises
    ------
    ValueError
        If no class is present in two cases.
    """
    result: dict[Any, tuple[NDArray[np.intp], NDArray[np.float64]]] = {}
    unusable = []
    for label in np.unique(block.y):
        if background is not None and label == background:
            continue
        rows = np.flatnonzero(block.y == label)
        order = rows[np.argsort(codes[rows], kind="stable")]
        present, starts = np.unique(codes[order], return_index=True)
        if len(present) < 2:
            unusable.append(label.item())
            continue
        samples = np.split(X[order], starts[1:])
        result[label.item()] = (present, PAIRWISE_DISTANCES[distance](samples))
    if not result:
        raise ValueError(
            f"{block.label}: no class is present in two cases, so class consistency is "
            f"undefined. Classes in fewer than two cases: {unusable}. Label more cases, "
            "or set background=None if every label counts."
        )
    if unusable:
        warnings.warn(
            f"{block.label}: classes {unusable} are present in fewer than two cases and "
            "are left out of the class consistency.",
            UnusableClassWarning,
            stacklevel=2,
        )
    return result
