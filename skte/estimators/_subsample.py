"""A part of the rows that does not depend on their order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["canonical_subsample"]


def canonical_subsample(
    X: NDArray[np.floating],
    strata: NDArray[np.generic],
    *,
    max_samples: int,
    random_state: int,
) -> NDArray[np.intp]:
    """Choose about `max_samples` rows at random, by what they hold.

    Which rows are chosen depends on `random_state` and on the content of the rows of
    each stratum: not on the order of the rows or of the channels, not on the names of
    the strata, and not on a positive factor of all features. So scores of samples
    that are too large for all pairs keep these invariances. (Models share no rows by
    this: their features, hence the order by content, differ.)

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        Finite features.
    strata : ndarray of shape (n_voxels,)
        What to keep the shares of: classes, or classes within cases.
    max_samples : int
        Each stratum keeps its share of this number, rounded down but at least one
        row: the total exceeds `max_samples` by less than the number of strata.
    random_state : int
        Seed of the draw.

    Returns
    -------
    ndarray of shape (n_chosen,)
        Indices of rows, increasing. All rows where there are at most `max_samples`.
    """
    n = len(X)
    if n <= max_samples:
        return np.arange(n)
    _, codes = np.unique(strata, return_inverse=True)
    chosen = []
    for k in range(codes.max() + 1):
        rows = np.flatnonzero(codes == k)
        size = max(1, max_samples * len(rows) // n)
        # Sorted within the row, channels in any order give the same key.
        keys = np.sort(X[rows], axis=1)
        rows = rows[np.lexsort(keys.T[::-1])]
        # One seed for all strata: the names decide nothing, and neither does their order.
        rng = np.random.default_rng(random_state)
        chosen.append(rows[rng.permutation(len(rows))[:size]])
    return np.sort(np.concatenate(chosen))
