"""Scores of other choices of cases, for intervals: the checks, and refitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.features import ClassMoments, FeatureBlock

__all__ = ["block_of_cases", "case_weights", "each_or_nan", "held_groups"]

Weights = NDArray[np.intp]


def case_weights(weights: ArrayLike, n_cases: int) -> Weights:
    """Check how often each case is drawn.

    Parameters
    ----------
    weights : array-like of shape (n_resamples, n_cases)
        Whole numbers from 0.
    n_cases : int
        Cases there are.

    Returns
    -------
    ndarray of shape (n_resamples, n_cases)
        As integers.

    Raises
    ------
    ValueError
        If shape or values are unusable.
    """
    W = np.asarray(weights)
    if W.ndim != 2 or W.shape[1] != n_cases:
        raise ValueError(
            f"weights must have shape (n_resamples, {n_cases}), one column a case; got {W.shape}."
        )
    whole = W.astype(np.intp)
    if not np.array_equal(whole, W) or (whole < 0).any():
        raise ValueError("weights say how often a case is drawn: whole numbers from 0.")
    if (whole.sum(axis=1) == 0).any():
        raise ValueError("weights must draw at least one case in every row.")
    return whole


def held_groups(block: FeatureBlock) -> NDArray[np.intp]:
    """Position of each row's case in the feature set that the block is of."""
    if block.groups is None:
        raise ValueError("Resampling cases needs groups: they name the case of every row.")
    return np.asarray(block.groups, dtype=np.intp)


def each_or_nan(
    score: Callable[[FeatureBlock], float], block: FeatureBlock, weights: Weights
) -> NDArray[np.float64]:
    """Score every resample from its rows: as dear as so many fits.

    Parameters
    ----------
    score : callable
        ``score(block) -> float``.
    block : FeatureBlock
        All cases.
    weights : ndarray of shape (n_resamples, n_cases)
        How often each case is drawn.

    Returns
    -------
    ndarray of shape (n_resamples,)
        NaN where the score is undefined, such as of a single class.
    """
    scores = np.empty(len(weights))
    for b, row in enumerate(weights):
        try:
            scores[b] = score(block_of_cases(block, row))
        except ValueError:
            scores[b] = np.nan
    return scores


def block_of_cases(block: FeatureBlock, weights: NDArray[np.intp]) -> FeatureBlock:
    """Rows of the cases drawn; a case drawn twice has its rows twice, and is one case still.

    Parameters
    ----------
    block : FeatureBlock
        All cases.
    weights : ndarray of shape (n_cases,)
        How often each one is drawn.

    Returns
    -------
    FeatureBlock
        With the groups of the whole.
    """
    groups = held_groups(block)
    rows = np.repeat(np.arange(len(groups)), weights[groups])
    drawn = replace(
        block, X=block.X[rows], y=block.y[rows], groups=groups[rows], X_case=None,
        groups_case=None, case_moments=None,
    )  # fmt: skip
    if block.X_case is not None and block.groups_case is not None:
        held = np.asarray(block.groups_case, dtype=np.intp)
        rows = np.repeat(np.arange(len(held)), weights[held])
        drawn = replace(drawn, X_case=block.X_case[rows], groups_case=held[rows])
    if block.case_moments is not None:
        kept = [
            _times(part, int(weights[case]))
            for case, part in zip(np.unique(groups), block.case_moments, strict=True)
            if weights[case] > 0
        ]
        drawn = replace(drawn, case_moments=kept)
    return drawn


def _times(moments: ClassMoments, n: int) -> ClassMoments:
    return replace(moments, counts=moments.counts * n, scatters=moments.scatters * n)
