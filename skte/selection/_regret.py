"""What following a ranking costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.selection._performance import check_pair
from skte.selection._ranking import rank_scores

__all__ = ["regret_at_k", "relative_top1"]


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
    >>> from skte.selection import regret_at_k
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
    >>> from skte.selection import relative_top1
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
