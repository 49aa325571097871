"""How scores agree with what models reached: correlations, and what following them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

__all__ = [
    "align_performance",
    "check_pair",
    "pearson_score",
    "rank_scores",
    "regret_at_k",
    "relative_top1",
    "spearman_score",
]


def pearson_score(performance: ArrayLike, scores: ArrayLike) -> float:
    """Pearson correlation: whether scores are linear in performance.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        What each model reached after fine-tuning. Finite.
    scores : array-like of shape (n_models,)
        Transferability scores. Finite: ``-inf`` has an order but no size.

    Returns
    -------
    float
        In [-1, 1].

    Raises
    ------
    ValueError
        If a list is constant or not finite, or lengths differ.

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
    performance : array-like of shape (n_models,)
        What each model reached after fine-tuning. Finite.
    scores : array-like of shape (n_models,)
        Transferability scores. ``-inf`` is an ordinary last place.

    Returns
    -------
    float
        In [-1, 1].

    Raises
    ------
    ValueError
        If a list is constant or holds NaN, or lengths differ.

    Examples
    --------
    >>> from skte.metrics import spearman_score
    >>> round(spearman_score([0.7, 0.8, 0.9], [1.0, 2.0, 30.0]), 6)
    1.0
    """
    performance, scores = check_pair(performance, scores)
    return pearson_score(rankdata(performance), rankdata(scores))


def rank_scores(scores: ArrayLike) -> NDArray[np.intp]:
    """Ranks of scores: 1 for the highest, then in order; NaN comes last.

    Parameters
    ----------
    scores : array-like of shape (n_models,)
        Transferability scores, higher is better. ``-inf`` comes after all finite
        scores, NaN (failed) after ``-inf``; equal scores keep the order of the list.

    Returns
    -------
    ndarray of shape (n_models,)
        Distinct integers from 1.

    Examples
    --------
    >>> from skte.metrics import rank_scores
    >>> rank_scores([0.5, float("nan"), 2.0, float("-inf"), 0.5])
    array([2, 5, 1, 4, 3])
    """
    values = np.asarray(scores, dtype=np.float64)
    failed = np.isnan(values)
    order = np.lexsort((-np.where(failed, 0.0, values), failed))
    ranks = np.empty(len(values), dtype=np.intp)
    ranks[order] = np.arange(1, len(values) + 1)
    return ranks


def regret_at_k(performance: ArrayLike, scores: ArrayLike, k: int = 1) -> float:
    """Return the performance lost by fine-tuning only the `k` models with the best scores.

    Parameters
    ----------
    performance : array-like of shape (n_models,)
        What each model reached after fine-tuning, such as Dice. Finite.
    scores : array-like of shape (n_models,)
        Transferability scores; equal scores keep the order of the list.
    k : int, default=1
        Models tried, at least 1.

    Returns
    -------
    float
        In the unit of `performance`: the best of all minus the best of the `k`.
        0 is perfect.

    Raises
    ------
    ValueError
        If `k` is below 1 or above the number of models, or the lists are unusable.

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
    performance : array-like of shape (n_models,)
        What each model reached after fine-tuning. Positive.
    scores : array-like of shape (n_models,)
        Transferability scores; equal scores keep the order of the list.

    Returns
    -------
    float
        At most 1, which is perfect.

    Raises
    ------
    ValueError
        If the best performance is not positive, or the lists are unusable.

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


def _top(scores: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    if not 1 <= k <= len(scores):
        raise ValueError(f"k={k} must lie between 1 and the number of models, {len(scores)}.")
    return rank_scores(scores) <= k


def align_performance(
    performance: ArrayLike | Mapping[str, float], names: Sequence[str]
) -> NDArray[np.float64]:
    """Bring performances given by name or in bank order into bank order.

    Parameters
    ----------
    performance : array-like of shape (n_models,) or mapping of str to float
        What each model reached; a mapping may hold more models than asked for.
    names : sequence of str
        Models in bank order.

    Returns
    -------
    ndarray of shape (n_models,)
        In the order of `names`.

    Raises
    ------
    ValueError
        If models are missing, or the length differs.
    """
    if isinstance(performance, Mapping):
        missing = [name for name in names if name not in performance]
        if missing:
            raise ValueError(f"performance lacks the models {missing}; add their values.")
        performance = [performance[name] for name in names]
    values = np.asarray(performance, dtype=np.float64)
    if values.shape != (len(names),):
        raise ValueError(
            f"performance has shape {values.shape}, but the bank has {len(names)} models: "
            "give one number per model, in bank order, or a mapping from names."
        )
    return values


def check_pair(
    performance: ArrayLike, scores: ArrayLike, *, finite: bool = False, varied: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two lists that are to be correlated as float64; the message says which models are wrong."""
    for name, given in {"performance": performance, "scores": scores}.items():
        if isinstance(given, Mapping):
            raise TypeError(
                f"{name} is a mapping, which has no order: give one number per model, in the same "
                "order in both lists (align_performance(mapping, names) makes such a list)."
            )
    arrays = {
        "performance": np.asarray(performance, dtype=np.float64),
        "scores": np.asarray(scores, dtype=np.float64),
    }
    for name, values in arrays.items():
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
