"""Moments of other choices of cases, from those of each case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skte.estimators._resample import held_groups
from skte.features import ClassMoments, FeatureBlock

__all__ = ["fits_in_memory", "scores_from_moments"]

# Second moments of every case and class, in bytes, and those of the resamples worked on
# together.
_MOST_BYTES = 2**29
_CHUNK_BYTES = 2**26


class _Stacked(NamedTuple):
    """Moments of each case and class about the class's mean over all cases."""

    total: ClassMoments
    counts: NDArray[np.float64]  # (n_cases, n_classes)
    sums: NDArray[np.float64]  # (n_cases, n_classes * n_channels)
    squares: NDArray[np.float64]  # (n_cases, n_classes * n_channels**2)


def fits_in_memory(block: FeatureBlock, n_cases: int) -> bool:
    """Whether second moments of every case can be held at once."""
    classes = len(block.moments.classes)
    return 8 * n_cases * classes * block.n_channels**2 <= _MOST_BYTES


def scores_from_moments(
    score: Callable[[ClassMoments], float], block: FeatureBlock, weights: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Score every resample of the cases from its moments.

    The moments of a resample are weighted sums of those of the cases, so no voxel is
    looked at twice: a resample costs one score, and ``n_cases`` times the size of its
    moments.

    Parameters
    ----------
    score : callable
        ``score(moments) -> float``.
    block : FeatureBlock
        All cases.
    weights : ndarray of shape (n_resamples, n_cases)
        How often each case is drawn.

    Returns
    -------
    ndarray of shape (n_resamples,)
        NaN where fewer than two classes are left.
    """
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
    for case, part in _case_parts(block):
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


def _case_parts(block: FeatureBlock) -> list[tuple[int, ClassMoments]]:
    groups = held_groups(block)
    cases = np.unique(groups)
    if block.case_moments is not None:
        return list(zip(cases.tolist(), block.case_moments, strict=True))
    return [
        (int(case), ClassMoments.from_arrays(block.X[rows], block.y[rows]))
        for case in cases
        for rows in (groups == case,)
    ]


def _resampled(
    total: ClassMoments,
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
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
