"""Pearson and Spearman correlation between scores and true performances."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from skte.selection._performance import check_pair

__all__ = ["pearson_score", "spearman_score"]


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
    >>> from skte.selection import pearson_score
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
    >>> from skte.selection import spearman_score
    >>> round(spearman_score([0.7, 0.8, 0.9], [1.0, 2.0, 30.0]), 6)
    1.0
    """
    performance, scores = check_pair(performance, scores)
    return pearson_score(rankdata(performance), rankdata(scores))
