"""Nearest neighbours from other cases, for other choices of cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Neighbors", "find_neighbors", "weighted_hits"]

# Neighbours kept of each row; those of rows that need more are searched again.
_KEPT = 64
_CHUNK = 2**22


class Neighbors(NamedTuple):
    """Nearest rows of other cases, nearest first, and how far they are.

    ``search(rows)`` gives the same for some rows, with every row of other cases.
    """

    distances: NDArray[np.float64]  # (n_rows, n_kept), inf where there are fewer
    indices: NDArray[np.intp]  # (n_rows, n_kept)
    search: Callable[[NDArray[np.intp]], tuple[NDArray[np.float64], NDArray[np.intp]]]


def find_neighbors(
    distances_of: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    cases: NDArray[np.intp],
    n_neighbors: int,
) -> Neighbors:
    """Search the nearest rows of other cases, a part of the rows at a time.

    Parameters
    ----------
    distances_of : callable
        Distances of some rows, by position, to all rows.
    cases : ndarray of shape (n_rows,)
        Case of each row.
    n_neighbors : int
        How many a score looks at.

    Returns
    -------
    Neighbors
        More than `n_neighbors`, since cases will be left out.
    """

    def search(rows: NDArray[np.intp], kept: int = len(cases)) -> tuple[NDArray, NDArray]:  # type: ignore[type-arg]
        D = distances_of(rows)
        D[cases[rows, None] == cases] = np.inf
        nearest = np.broadcast_to(np.arange(len(cases)), D.shape)
        if kept < len(cases):
            nearest = np.argpartition(D, kept - 1, axis=1)[:, :kept]
        found = np.take_along_axis(D, nearest, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        return np.take_along_axis(found, order, axis=1), np.take_along_axis(nearest, order, axis=1)

    kept = min(len(cases), max(_KEPT, 8 * n_neighbors))
    step = max(1, _CHUNK // len(cases))
    everything = np.arange(len(cases))
    parts = [search(everything[i : i + step], kept) for i in range(0, len(cases), step)]
    return Neighbors(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        search,
    )


def weighted_hits(
    neighbors: Neighbors,
    codes: NDArray[np.intp],
    row_weights: NDArray[np.float64],
    squares: NDArray[np.float64],
    *,
    k: int,
    tie: float,
) -> NDArray[np.float64]:
    """Share of each row's k nearest that have its label, rows counted with weights.

    Parameters
    ----------
    neighbors : Neighbors
        Of `find_neighbors`.
    codes : ndarray of shape (n_rows,)
        Label of each row.
    row_weights : ndarray of shape (n_rows,)
        How often the case of each row is drawn.
    squares : ndarray of shape (n_rows,)
        What rounding of distances is relative to.
    k : int
        Neighbours looked at.
    tie : float
        Distances closer than this, relative to `squares` and themselves, share places.

    Returns
    -------
    ndarray of shape (n_rows,)
        From 0 to 1; of rows with weight 0 it means nothing.
    """
    hits, complete = _hits(neighbors.distances, neighbors.indices, codes, codes, row_weights,
                           squares, k, tie)  # fmt: skip
    short = np.flatnonzero(~complete & (row_weights > 0))
    step = max(1, _CHUNK // len(codes))
    for start in range(0, len(short), step):
        rows = short[start : start + step]
        D, indices = neighbors.search(rows)
        hits[rows], _ = _hits(D, indices, codes[rows], codes, row_weights, squares[rows], k, tie)
    return hits


def _hits(
    D: NDArray[np.float64],
    indices: NDArray[np.intp],
    own: NDArray[np.intp],
    codes: NDArray[np.intp],
    row_weights: NDArray[np.float64],
    squares: NDArray[np.float64],
    k: int,
    tie: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Hits of rows, and whether the neighbours at hand were enough to tell."""
    finite = np.isfinite(D)
    W = np.where(finite, row_weights[indices], 0.0)
    reached = np.cumsum(W, axis=1)
    last = np.minimum((reached < k).sum(axis=1), D.shape[1] - 1)
    farthest = D[np.arange(len(D)), last]
    slack = tie * (squares + farthest)
    closer = (farthest - slack)[:, None] > D
    tied = ((farthest + slack)[:, None] >= D) & ~closer
    same = W * (codes[indices] == own[:, None])
    places = k - (W * closer).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shared = places * (same * tied).sum(axis=1) / (W * tied).sum(axis=1)
    hits = ((same * closer).sum(axis=1) + shared) / k
    # A tie may go on beyond the neighbours at hand.
    whole = D.shape[1] == len(codes)
    return hits, (reached[:, -1] >= k) & (whole | (D[:, -1] > farthest + slack))
