"""CC-FV of other choices of cases, from the distances and energies it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_over_pairs", "resampled_ccfv"]


def mean_over_pairs(D: NDArray[np.float64], weights: NDArray[np.intp]) -> NDArray[np.float64]:
    r"""Mean distance between two different cases, when cases are drawn with weights.

    The mean over all pairs of cases is a U-statistic, ``sum_{i<j} D_ij / (N (N-1) / 2)``.
    Of a resample in which case i stands ``w_i`` times, it is::

        sum_{i<j} w_i w_j D_ij / sum_{i<j} w_i w_j

    A case that is drawn twice is still one case: the pair of its two copies is not a pair
    of cases, and its distance, zero, says nothing about consistency. Counting such pairs
    (as a plain mean over the pairs of a resample would) takes a share of about ``1/N`` off
    every resample, and with few cases moves the whole interval below the score.

    Parameters
    ----------
    D : ndarray of shape (n_cases, n_cases)
        Distances; NaN for pairs that were not compared. The diagonal is not looked at.
    weights : ndarray of shape (n_resamples, n_cases)
        How often each case is drawn.

    Returns
    -------
    ndarray of shape (n_resamples,)
        NaN where no pair is left.
    """
    W = weights.astype(np.float64)
    known = np.isfinite(D)
    np.fill_diagonal(known, False)
    sums = np.einsum("bi,bi->b", W @ np.where(known, D, 0.0), W)
    counts = np.einsum("bi,bi->b", W @ known, W)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan))


def _mean_over_cases(values: NDArray[np.float64], weights: NDArray[np.intp]) -> NDArray[np.float64]:
    """Weighted mean of what each case has, NaN where no case is drawn."""
    total = weights.sum(axis=1)
    return np.asarray(np.where(total > 0, weights @ values / np.maximum(total, 1), np.nan))


def resampled_ccfv(
    details: Mapping[str, Any],
    weights: NDArray[np.intp],
    positions: Mapping[Any, int],
    *,
    consistency: bool,
    variety: bool,
    rounding: float,
    most_floored: float,
) -> NDArray[np.float64]:
    """Score of one layer for each resample.

    Parameters
    ----------
    details : mapping
        One of ``CCFV.layer_details_``.
    weights : ndarray of shape (n_resamples, n_cases)
        How often each case is drawn.
    positions : mapping
        Column of `weights` of each case.
    consistency, variety : bool
        What the score is made of.
    rounding : float
        A distance at most this large, times the classes, is nil.
    most_floored : float
        Share of pairs of voxels on the floor above which a layer is collapsed.

    Returns
    -------
    ndarray of shape (n_resamples,)
        ``-inf`` where it collapses, NaN where it is undefined.
    """
    sampled = weights[:, [positions[case] for case in details["variety_cases"]]]
    scores = np.zeros(len(weights))
    collapsed = np.zeros(len(weights), dtype=bool)
    if consistency:
        W = weights[:, [positions[case] for case in details["cases"]]]
        means = np.stack([mean_over_pairs(D, W) for D in details["distances"].values()])
        n_classes = np.isfinite(means).sum(axis=0)
        total = np.where(n_classes > 0, np.nansum(means, axis=0), np.nan)
        collapsed |= total <= rounding * n_classes
        scores -= np.log(np.where(collapsed, 1.0, total))
    n_pairs = sampled @ details["voxel_pairs"]
    collapsed |= sampled @ details["floored_pairs"] > most_floored * np.maximum(n_pairs, 1)
    if variety:
        mean = _mean_over_cases(details["variety"], sampled)
        collapsed |= mean == 0.0
        scores += np.log(np.where(mean == 0.0, 1.0, mean))
    return np.where(collapsed, -np.inf, scores)
