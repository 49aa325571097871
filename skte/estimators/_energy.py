"""Hyperspherical energy: how evenly vectors spread, over all pairs of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from skte.estimators._labels import as_plain

__all__ = ["PairEnergy", "case_energies", "mean_pair_energy"]

# A block of distances of this many rows and columns stays in the processor's cache.
_BLOCK = 256
# Below this distance, relative to the vectors' size, the Gram form has lost the
# digits that matter, even in float64, and differences are taken one by one.
_GRAM_RESOLUTION = 1e-4


class PairEnergy(NamedTuple):
    """Mean energy of the pairs of one sample, and how many sit on the floor or below."""

    energy: float
    n_floored: int
    n_pairs: int


def mean_pair_energy(X: NDArray[np.float64], *, s: float, min_distance: float) -> PairEnergy:
    """Mean over pairs of ``|x_a - x_b|**-s`` (``-log |x_a - x_b|`` for ``s = 0``).

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        At least two rows.
    s : float
        Power of the inverse distance, at least 0.
    min_distance : float
        Distances below it count as this distance.

    Returns
    -------
    PairEnergy
        Energy, number of unordered pairs below `min_distance`, and of all pairs.

    Notes
    -----
    Memory is that of one block of 256 x 256 distances, whatever ``n_voxels``.
    """
    X = X - X.mean(axis=0)
    squares = np.einsum("ij,ij->i", X, X)
    scale = float(np.sqrt(squares.max(initial=0.0)))
    exact = min_distance < _GRAM_RESOLUTION * scale
    floor = min_distance**2
    # One product gives |x|^2 - 2 x.y + |y|^2: the squares are two more columns.
    ones = np.ones((len(X), 1))
    left = np.hstack([-2.0 * X, squares[:, None], ones])
    right = np.hstack([X, ones, squares[:, None]])
    total, n_floored, n = 0.0, 0, len(X)
    for i in range(0, n, _BLOCK):
        for j in range(i, n, _BLOCK):
            rows, columns = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
            if exact:
                D = cdist(X[rows], X[columns], "sqeuclidean")
            else:
                D = left[rows] @ right[columns].T
            if i == j:
                D = D[np.triu_indices(len(D), k=1)]
            if D.size and D.min() <= floor:  # rarely, and it saves two passes over D
                n_floored += int(np.count_nonzero(floor >= D))
                np.maximum(D, floor, out=D)
            total += _sum_of_energies(D, s)
    n_pairs = n * (n - 1) // 2
    return PairEnergy(total / n_pairs, n_floored, n_pairs)


def case_energies(
    X: NDArray[np.float64], groups: NDArray[np.generic], *, s: float, min_distance: float
) -> dict[Any, PairEnergy]:
    """Energy of each case's sample; cases with a single row are left out.

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        Features of the whole-case sample.
    groups : ndarray of shape (n_voxels,)
        Case of each row.
    s, min_distance : float
        As for `mean_pair_energy`.

    Returns
    -------
    dict of case to PairEnergy
        In sorted order of the cases.
    """
    if len(groups) == 0:
        return {}
    cases, codes = np.unique(groups, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes, minlength=len(cases)))[:-1])
    return {
        as_plain(case): mean_pair_energy(X[rows], s=s, min_distance=min_distance)
        for case, rows in zip(cases, parts, strict=True)
        if len(rows) > 1
    }


def _sum_of_energies(D: NDArray[np.float64], s: float) -> float:
    """Sum over squared distances `D`, which it may overwrite."""
    with np.errstate(divide="ignore", over="ignore"):
        if s == 0:
            return float(-0.5 * np.log(D, out=D).sum())
        if s == 1:
            return float(np.reciprocal(np.sqrt(D, out=D), out=D).sum())
        return float(np.power(D, -s / 2, out=D).sum())
