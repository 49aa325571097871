"""Weighted Kendall correlation between scores and true performances."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, weightedtau

from skte.selection._performance import check_pair

__all__ = ["WeightedKendallResult", "weighted_kendall_score", "weighted_kendall_test"]

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
    >>> from skte.selection import weighted_kendall_test
    >>> result = weighted_kendall_test([0.6, 0.7, 0.8, 0.9], [-4.0, -3.0, -2.0, -1.0])
    >>> result.statistic, round(result.pvalue, 4), result.n_models
    (1.0, 0.0417, 4)
    """
    performance, scores = check_pair(performance, scores)
    n = len(scores)
    statistic = weighted_kendall_score(performance, scores)
    tau = _Tau(rankdata(performance))
    if n <= _EXHAUSTIVE:
        orders: Iterable[tuple[int, ...]] = itertools.permutations(range(n))
        null = tau(rankdata(scores)[np.array(list(orders))])
        extra = 0
    else:
        rng = np.random.default_rng(random_state)
        tiled = np.tile(rankdata(scores), (n_permutations, 1))
        null = tau(rng.permuted(tiled, axis=1))
        extra = 1
    reached = int(np.count_nonzero(null >= statistic - 1e-12)) + extra
    return WeightedKendallResult(statistic, reached / (len(null) + extra), n, float(null.std()))


class _Tau:
    """Weighted tau of one fixed list with many permuted ones, vectorised.

    For lists x and y of distinct or tied values, with an order of the elements that
    gives each a weight 1 / (rank + 1), the index is the weighted sum over pairs of
    sign(x_i - x_j) sign(y_i - y_j) over the norms of both; scipy averages the indices
    for the weights from (x, y) and from (y, x), each lexicographically decreasing.
    """

    def __init__(self, fixed: NDArray[np.float64]) -> None:
        self.fixed = fixed
        self.i, self.j = np.triu_indices(len(fixed), k=1)
        self.sign = np.sign(fixed[self.i] - fixed[self.j])

    def __call__(self, permuted: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [
            self._chunk(permuted[start : start + _CHUNK])
            for start in range(0, len(permuted), _CHUNK)
        ]
        return np.concatenate(parts)

    def _chunk(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.broadcast_to(self.fixed, y.shape)
        signs = np.sign(y[:, self.i] - y[:, self.j])
        return (self._index(x, y, signs) + self._index(y, x, signs)) / 2

    def _index(
        self, first: NDArray[np.float64], second: NDArray[np.float64], signs: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        # ranks are at most n, so this key sorts by the first list, then the second
        key = first * (2 * first.shape[1] + 1) + second
        weights = 1.0 / (1.0 + np.argsort(np.argsort(-key, axis=1, kind="stable"), axis=1))
        pair = weights[:, self.i] + weights[:, self.j]
        agreement = (pair * signs * self.sign).sum(axis=1)
        norm_x = (pair * self.sign**2).sum(axis=1)
        norm_y = (pair * signs**2).sum(axis=1)
        return np.asarray(agreement / np.sqrt(norm_x * norm_y))
