"""How scores agree with what models reached: correlations, regret, and their input checks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, weightedtau


def pearson_score(performance: ArrayLike, scores: ArrayLike) -> float:
    """Pearson correlation: whether scores are linear in performance.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        As for `weighted_kendall_score`, but both finite: ``-inf`` has an order but no size.

    Returns
    -------
    float
        In [-1, 1].

    Examples
    --------
    >>> from skte.metrics import pearson_score
    >>> round(pearson_score([0.7, 0.8, 0.9], [1.0, 2.0, 3.0]), 6)
    1.0
    """
    performance, scores = check_pair(performance, scores, finite=True)
    return float(np.clip(np.corrcoef(performance, scores)[0, 1], -1.0, 1.0))


def spearman_score(performance: ArrayLike, scores: ArrayLike) -> float:
    """Spearman correlation: agreement of two orders, all places counting alike.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        As for `weighted_kendall_score`.

    Returns
    -------
    float
        In [-1, 1].

    Examples
    --------
    >>> from skte.metrics import spearman_score
    >>> round(spearman_score([0.7, 0.8, 0.9], [1.0, 2.0, 30.0]), 6)
    1.0
    """
    performance, scores = check_pair(performance, scores)
    return pearson_score(rankdata(performance), rankdata(scores))


def rank_scores(scores: ArrayLike) -> NDArray[np.float64]:
    """Ranks of scores: 1 for the highest; equal scores share a rank, NaN has none.

    Parameters
    ----------
    scores : array-like of shape (n_models,)
        Transferability scores, higher is better. ``-inf`` comes after all finite scores.

    Returns
    -------
    ndarray of shape (n_models,)
        One more than the number of higher scores; NaN where the score is NaN (failed).

    Examples
    --------
    >>> from skte.metrics import rank_scores
    >>> rank_scores([0.5, float("nan"), 2.0, float("-inf"), 0.5])
    array([ 2., nan,  1.,  4.,  2.])
    """
    values = -np.asarray(scores, dtype=np.float64)
    return np.asarray(rankdata(values, method="min", nan_policy="omit"), dtype=np.float64)


def best_first(scores: ArrayLike) -> NDArray[np.intp]:
    """Order scores: positions of the models, best first."""
    return np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")


def regret_at_k(performance: ArrayLike, scores: ArrayLike, k: int = 1) -> float:
    """Return the performance lost by fine-tuning only the `k` models with the best scores.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        As for `weighted_kendall_score`; equal scores keep the order of the list.
    k : int, default=1
        Models tried, at least 1.

    Returns
    -------
    float
        In the unit of `performance`: the best of all minus the best of the `k`. 0 is perfect.

    Examples
    --------
    >>> from skte.metrics import regret_at_k
    >>> round(regret_at_k([0.70, 0.90, 0.85], [-2.0, -3.0, -1.0]), 6)
    0.05
    """
    performance, scores = check_pair(performance, scores, varied=False)
    return float(performance.max() - performance[_top(scores, k)].max())


def relative_top1(performance: ArrayLike, scores: ArrayLike) -> float:
    """Return the performance of the model ranked first, as a share of the best one's.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        As for `regret_at_k`; the best performance must be positive.

    Returns
    -------
    float
        At most 1, which is perfect.

    Examples
    --------
    >>> from skte.metrics import relative_top1
    >>> round(relative_top1([0.70, 0.90, 0.81], [-2.0, -3.0, -1.0]), 6)
    0.9
    """
    performance, scores = check_pair(performance, scores, varied=False)
    if performance.max() <= 0:
        raise ValueError("performance has no positive value: a share of the best is undefined.")
    return float(performance[_top(scores, 1)].max() / performance.max())


def _top(scores: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    if not 1 <= k <= len(scores):
        raise ValueError(f"k={k} must lie between 1 and the number of models, {len(scores)}.")
    return best_first(scores)[:k]


def align_performance(
    performance: ArrayLike | Mapping[str, float], names: Sequence[str], what: str = "performance"
) -> NDArray[np.float64]:
    """Bring performances given by name or in bank order into bank order."""
    if isinstance(performance, Mapping):
        if missing := [name for name in names if name not in performance]:
            raise ValueError(f"{what} lacks the models {missing}; add their values.")
        performance = [performance[name] for name in names]
    values = np.asarray(performance, dtype=np.float64)
    if values.shape != (len(names),):
        raise ValueError(
            f"{what} has shape {values.shape}, but the bank has {len(names)} models: "
            "give one number per model, in bank order, or a mapping from names."
        )
    return values


def check_pair(
    performance: ArrayLike, scores: ArrayLike, *, finite: bool = False, varied: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two lists that are to be correlated as float64; the message says which models are wrong."""
    arrays = {}
    for name, given in {"performance": performance, "scores": scores}.items():
        if isinstance(given, Mapping):
            raise TypeError(
                f"{name} is a mapping, which has no order: give one number per model, in the same "
                "order in both lists, such as [mapping[name] for name in names]."
            )
        arrays[name] = values = np.asarray(given, dtype=np.float64)
        if values.ndim != 1:
            raise ValueError(f"{name} must be 1-D, one number per model; got shape {values.shape}.")
    if len(arrays["performance"]) != len(arrays["scores"]):
        raise ValueError(
            f"performance has {len(arrays['performance'])} models, scores have "
            f"{len(arrays['scores'])}: give both for the same models in the same order."
        )
    for name, values in arrays.items():
        if len(values) < 2:
            raise ValueError(f"{name} holds {len(values)} model; a correlation needs two.")
        bad = ~np.isfinite(values) if finite or name == "performance" else np.isnan(values)
        if bad.any():
            raise ValueError(
                f"{name} of models {np.flatnonzero(bad).tolist()} are "
                f"{values[bad].tolist()}: leave those models out, of both lists."
            )
        if varied and (values == values[0]).all():
            raise ValueError(
                f"{name} are all equal ({values[0]:g}): there is no order to compare with."
            )
    return arrays["performance"], arrays["scores"]


# Up to this many models all orders are tried (7! = 5040); above, a random sample.
_EXHAUSTIVE = 7
# Signs of pairs in memory at a time, a byte each.
_SIGNS = 2**22


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
    """Weighted Kendall correlation with a one-sided permutation p-value, for random order.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        As for `weighted_kendall_score`.
    n_permutations : int, default=10_000
        Random orders drawn, to which the given one is added, so that the p-value is never
        zero; up to seven models all orders are tried instead.
    random_state : int or None, default=0
        Seed of the orders.

    Returns
    -------
    WeightedKendallResult
        Statistic, p-value, number of models and the null's standard deviation.

    Examples
    --------
    >>> from skte.metrics import weighted_kendall_test
    >>> result = weighted_kendall_test([0.6, 0.7, 0.8, 0.9], [-4.0, -3.0, -2.0, -1.0])
    >>> result.statistic, round(result.pvalue, 4), result.n_models
    (1.0, 0.0417, 4)
    """
    performance, scores = check_pair(performance, scores)
    n, ranks = len(scores), rankdata(scores)
    statistic = weighted_kendall_score(performance, scores)
    extra = int(n > _EXHAUSTIVE)
    if extra:
        tiled = np.tile(ranks, (n_permutations, 1))
        orders = np.random.default_rng(random_state).permuted(tiled, axis=1)
    else:
        orders = ranks[np.array(list(itertools.permutations(range(n))))]
    null = weighted_kendall_rows(rankdata(performance), orders)
    reached = int(np.count_nonzero(null >= statistic - 1e-12)) + extra
    return WeightedKendallResult(statistic, reached / (len(null) + extra), n, float(null.std()))


def weighted_kendall_rows(
    performance: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted Kendall of many pairs of lists at once."""
    x, y = np.broadcast_arrays(np.atleast_2d(performance), np.atleast_2d(scores))
    step = max(1, _SIGNS // x.shape[1] ** 2)
    parts = [_rows(x[i : i + step], y[i : i + step]) for i in range(0, len(x), step)]
    return np.concatenate(parts)


def _rows(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations of lists: a pair has both its weights, so each element's counts in each."""
    signs = _signs(x), _signs(y)
    agreeing = (signs[0] * signs[1]).sum(axis=2, dtype=np.int64)
    different = [np.count_nonzero(sign, axis=2) for sign in signs]
    found = np.zeros(len(x))
    for first, second in ((x, y), (y, x)):
        # ranks are at most n, so this key sorts by the first list, then the second
        key = first * (2 * first.shape[1] + 1) + second
        weights = 1.0 / (1.0 + np.argsort(np.argsort(-key, axis=1, kind="stable"), axis=1))
        agreement = (weights * agreeing).sum(axis=1)
        norms = [(weights * n).sum(axis=1) for n in different]
        with np.errstate(invalid="ignore"):
            found += agreement / np.sqrt(norms[0] * norms[1]) / 2
    return found


def _signs(x: NDArray[np.float64]) -> NDArray[np.int8]:
    """Signs of differences of all pairs, of shape (n_lists, n_models, n_models)."""
    left, right = x[:, :, None], x[:, None, :]
    return np.subtract(left > right, left < right, dtype=np.int8)
