"""Weighted Kendall correlation between scores and true performances."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, weightedtau

from skte.metrics._agreement import check_pair

__all__ = [
    "WeightedKendallResult",
    "weighted_kendall_rows",
    "weighted_kendall_score",
    "weighted_kendall_test",
]

# Up to this many models all orders are tried (7! = 5040); above, a random sample.
_EXHAUSTIVE = 7
_CHUNK = 512


@dataclass(frozen=True)
class WeightedKendallResult:
    """Weighted Kendall correlation with its permutation p-value.

    Attributes
    ----------
    statistic : float
        The correlation, in [-1, 1].
    pvalue : float
        Share of orders of the scores that reach the statistic by chance.
    n_models : int
        Number of models; few models make even large correlations likely by chance.
    null_std : float
        Standard deviation of the correlation over those orders.
    """

    statistic: float
    pvalue: float
    n_models: int
    null_std: float


def weighted_kendall_score(performance: ArrayLike, scores: ArrayLike) -> float:
    """Weighted Kendall correlation: agreement of two orders, the top counting most.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        What each model reached after fine-tuning, such as Dice. Finite.
    scores : array-like of shape (n_models,)
        Transferability scores. ``-inf`` (collapsed) is an ordinary last place.

    Returns
    -------
    float
        In [-1, 1]; 1 for the same order. ``scipy.stats.weightedtau`` with its
        defaults: hyperbolic weights, averaged over the ranks of both lists.

    Raises
    ------
    ValueError
        If a list is constant or holds NaN, or lengths differ.

    See Also
    --------
    weighted_kendall_test : The same with a p-value.

    References
    ----------
    .. [1] Vigna, S. "A Weighted Correlation Index for Rankings with Ties". WWW 2015.

    Examples
    --------
    >>> from skte import weighted_kendall_score
    >>> weighted_kendall_score([0.7, 0.8, 0.9], [-3.0, -2.0, -1.0])
    1.0
    >>> round(weighted_kendall_score([0.7, 0.8, 0.9], [-3.0, -1.0, -2.0]), 3)
    0.182
    """
    performance, scores = check_pair(performance, scores)
    # scipy compares values; ranks keep the order and do away with infinities.
    return float(weightedtau(rankdata(performance), rankdata(scores)).statistic)


def weighted_kendall_test(
    performance: ArrayLike,
    scores: ArrayLike,
    *,
    n_permutations: int = 10_000,
    random_state: int | None = 0,
) -> WeightedKendallResult:
    """Weighted Kendall correlation with a one-sided permutation p-value.

    The null hypothesis is that scores are in random order; the alternative, that
    they agree with performance.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        As for `weighted_kendall_score`.
    scores : array-like of shape (n_models,)
        As for `weighted_kendall_score`.
    n_permutations : int, default=10_000
        Random orders drawn; up to seven models all orders are tried instead.
    random_state : int or None, default=0
        Seed of the orders.

    Returns
    -------
    WeightedKendallResult
        Statistic, p-value, number of models and the null's standard deviation.

    Notes
    -----
    With a random sample, the given order counts as one of the orders, so the
    p-value is never zero.

    Examples
    --------
    >>> from skte.metrics import weighted_kendall_test
    >>> result = weighted_kendall_test([0.6, 0.7, 0.8, 0.9], [-4.0, -3.0, -2.0, -1.0])
    >>> result.statistic, round(result.pvalue, 4), result.n_models
    (1.0, 0.0417, 4)
    """
    performance, scores = check_pair(performance, scores)
    n = len(scores)
    statistic = weighted_kendall_score(performance, scores)
    reached = rankdata(performance)
    if n <= _EXHAUSTIVE:
        orders: Iterable[tuple[int, ...]] = itertools.permutations(range(n))
        null = weighted_kendall_rows(reached, rankdata(scores)[np.array(list(orders))])
        extra = 0
    else:
        rng = np.random.default_rng(random_state)
        tiled = np.tile(rankdata(scores), (n_permutations, 1))
        null = weighted_kendall_rows(reached, rng.permuted(tiled, axis=1))
        extra = 1
    reached = int(np.count_nonzero(null >= statistic - 1e-12)) + extra
    return WeightedKendallResult(statistic, reached / (len(null) + extra), n, float(null.std()))


def weighted_kendall_rows(
    performance: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted Kendall of many pairs of lists at once.

    For lists x and y of distinct or tied values, with an order of the elements that
    gives each a weight 1 / (rank + 1), the index is the weighted sum over pairs of
    sign(x_i - x_j) sign(y_i - y_j) over the norms of both; scipy averages the indices
    for the weights from (x, y) and from (y, x), each lexicographically decreasing.

    Parameters
    ----------
    performance, scores : ndarray of shape (n_lists, n_models) or (n_models,)
        Ranks or halves of ranks, at most the number of models; one list is for all.

    Returns
    -------
    ndarray of shape (n_lists,)
        NaN where a list is constant.
    """
    x, y = np.broadcast_arrays(np.atleast_2d(performance), np.atleast_2d(scores))
    pairs = np.triu_indices(x.shape[1], k=1)
    parts = [
        _rows(x[start : start + _CHUNK], y[start : start + _CHUNK], pairs)
        for start in range(0, len(x), _CHUNK)
    ]
    return np.concatenate(parts)


def _rows(
    x: NDArray[np.float64], y: NDArray[np.float64], pairs: tuple[NDArray[np.intp], ...]
) -> NDArray[np.float64]:
    i, j = pairs
    signs = np.sign(x[:, i] - x[:, j]), np.sign(y[:, i] - y[:, j])
    found = np.zeros(len(x))
    for first, second in ((x, y), (y, x)):
        # ranks are at most n, so this key sorts by the first list, then the second
        key = first * (2 * first.shape[1] + 1) + second
        weights = 1.0 / (1.0 + np.argsort(np.argsort(-key, axis=1, kind="stable"), axis=1))
        pair = weights[:, i] + weights[:, j]
        agreement = (pair * signs[0] * signs[1]).sum(axis=1)
        norms = [(pair * sign**2).sum(axis=1) for sign in signs]
        with np.errstate(invalid="ignore"):
            found += agreement / np.sqrt(norms[0] * norms[1]) / 2
    return found
