"""Scores of other choices of cases, for intervals: from moments, or of the rows drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skte.estimators._samples import Array, Ints
from skte.features import ClassMoments, FeatureBlock

__all__ = ["case_weights", "each_or_nan", "fits_in_memory", "held_groups", "scores_from_moments"]


# Bytes of the second moments of every case and class, and of the resamples worked on together.
_MOST_BYTES = 2**29
_CHUNK_BYTES = 2**26


def case_weights(weights: ArrayLike, n_cases: int) -> Ints:
    """Return how often each case is drawn, of shape (n_resamples, n_cases), checked."""
    W = np.asarray(weights)
    if W.ndim != 2 or W.shape[1] != n_cases:
        raise ValueError(
            f"weights must have shape (n_resamples, {n_cases}), one column per case; got {W.shape}."
        )
    whole = W.astype(np.intp)
    if not np.array_equal(whole, W) or (whole < 0).any():
        raise ValueError("weights must be whole numbers from 0: how often each case is drawn.")
    if (whole.sum(axis=1) == 0).any():
        raise ValueError("weights must draw at least one case in every row.")
    return whole


def held_groups(block: FeatureBlock) -> Ints:
    """Position of each row's case in the feature set that the block is of."""
    if block.groups is None:
        raise ValueError("Resampling cases needs groups: they name the case of every row.")
    return np.asarray(block.groups, dtype=np.intp)


def each_or_nan(
    score: Callable[[FeatureBlock], float], block: FeatureBlock, weights: Ints
) -> Array:
    """Score every resample from its rows, which costs one fit each; NaN where undefined."""
    scores = np.empty(len(weights))
    for b, row in enumerate(weights):
        try:
            scores[b] = score(_block_of_cases(block, row))
        except ValueError:
            scores[b] = np.nan
    return scores


def _block_of_cases(block: FeatureBlock, weights: Ints) -> FeatureBlock:
    """Rows of the cases drawn; a case drawn twice has its rows twice, and remains one case."""
    groups = held_groups(block)
    rows = np.repeat(np.arange(len(groups)), weights[groups])
    drawn = replace(
        block, X=block.X[rows], y=block.y[rows], groups=groups[rows], X_case=None,
        groups_case=None,
    )  # fmt: skip
    if block.X_case is not None and block.groups_case is not None:
        held = np.asarray(block.groups_case, dtype=np.intp)
        rows = np.repeat(np.arange(len(held)), weights[held])
        drawn = replace(drawn, X_case=block.X_case[rows], groups_case=held[rows])
    return drawn


class _Stacked(NamedTuple):
    """Moments of each case and class about the class's mean over all cases."""

    total: ClassMoments
    counts: Array  # (n_cases, n_classes)
    sums: Array  # (n_cases, n_classes * n_channels)
    squares: Array  # (n_cases, n_classes * n_channels**2)


def fits_in_memory(block: FeatureBlock, n_cases: int) -> bool:
    """Whether second moments of every case can be held at once."""
    classes = len(block.moments.classes)
    return 8 * n_cases * classes * block.n_channels**2 <= _MOST_BYTES


def scores_from_moments(
    score: Callable[[ClassMoments], float], block: FeatureBlock, weights: Ints
) -> Array:
    """Score every resample from its moments; NaN where fewer than two classes are left."""
    # They are weighted sums of those of the cases: no voxel is looked at twice.
    stacked = _stack(block, weights.shape[1])
    scores = np.empty(len(weights))
    step = max(1, _CHUNK_BYTES // (8 * max(1, stacked.squares.shape[1])))
    for start in range(0, len(weights), step):
        W = weights[start : start + step].astype(np.float64)
        parts = zip(W @ stacked.counts, W @ stacked.sums, W @ stacked.squares, strict=True)
        for b, (counts, sums, squares) in enumerate(parts, start=start):
            moments = _resampled(stacked.total, counts, sums, squares)
            scores[b] = np.nan if moments is None else score(moments)
    return scores


def _stack(block: FeatureBlock, n_cases: int) -> _Stacked:
    total = block.moments
    centres = total.pivot + total.offsets
    k, d = centres.shape
    counts = np.zeros((n_cases, k))
    sums, squares = np.zeros((n_cases, k, d)), np.zeros((n_cases, k, d, d))
    groups = held_groups(block)
    for case in np.unique(groups):
        rows = groups == case
        part = ClassMoments.from_arrays(block.X[rows], block.y[rows])
        at = np.searchsorted(total.classes, part.classes)
        shift = part.exponent - total.exponent
        # About the class's own mean nothing cancels but what lies between cases.
        gaps = np.ldexp(part.pivot + part.offsets, shift) - centres[at]
        weighted = part.counts[:, None] * gaps
        counts[case, at] = part.counts
        sums[case, at] = weighted
        squares[case, at] = np.ldexp(part.scatters, 2 * shift)
        squares[case, at] += weighted[:, :, None] * gaps[:, None, :]
    return _Stacked(total, counts, sums.reshape(n_cases, -1), squares.reshape(n_cases, -1))


def _resampled(
    total: ClassMoments, counts: Array, sums: Array, squares: Array
) -> ClassMoments | None:
    """Moments of one resample; None where fewer than two classes are left."""
    k, d = total.offsets.shape
    kept = np.flatnonzero(counts > 0)
    if len(kept) < 2:
        return None
    n = counts[kept]
    means = sums.reshape(k, d)[kept] / n[:, None]
    scatters = squares.reshape(k, d, d)[kept]
    scatters = scatters - n[:, None, None] * (means[:, :, None] * means[:, None, :])
    diagonal = np.einsum("kii->ki", scatters)
    np.maximum(diagonal, 0.0, out=diagonal)  # of one row, or constant, it is rounding
    return replace(
        total,
        classes=total.classes[kept],
        counts=n.astype(np.intp),
        offsets=total.offsets[kept] + means,
        scatters=scatters,
    )
