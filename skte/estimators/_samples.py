"""What estimators share: class indices, scaling, subsamples, warnings of degenerate samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.exceptions import (
    CollapsedFeaturesWarning,
    SaturatedScoreWarning,
    UnusableClassWarning,
)
from skte.features import ClassMoments, FeatureBlock

Array = NDArray[np.float64]
Ints = NDArray[np.intp]

# A score this close to its floor, relative to it, says nothing about the model.
_AT_FLOOR = 0.002
# Channels that vary by less than this, relative to their size, differ by rounding.
_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)


def as_plain(label: Any) -> Any:
    """Return a label or case as Python's own type; in object arrays they are that already."""
    return label.item() if isinstance(label, np.generic) else label


def encode_labels(y: NDArray[np.generic]) -> tuple[NDArray[np.generic], Ints]:
    """Return the distinct labels, sorted, and the index of each row's label."""
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"The labels hold one class only ({classes.tolist()[0]!r}); this score compares "
            "classes and needs at least two. Sample another class, such as background "
            "(samples='all' of the extractor)."
        )
    return classes, codes


def group_codes(block: FeatureBlock, why: str) -> tuple[NDArray[np.generic], Ints]:
    """Return the cases of a block with groups, sorted, and the position of each row's case."""
    cases, codes = np.unique(np.asarray(block.groups), return_inverse=True)
    if len(cases) < 2:
        raise ValueError(
            f"{block.label}: all rows come from one case. {why} and needs at least two."
        )
    return cases, codes


def classes_of_two_cases(
    block: FeatureBlock, classes: NDArray[np.generic], codes: Ints, cases: Ints, why: str
) -> list[int]:
    """Return positions of the classes that two cases hold, and name the others with a code."""
    present = np.unique(codes)
    usable = [int(k) for k in present if len(np.unique(cases[codes == k])) > 1]
    if not usable:
        raise ValueError(f"{block.label}: {why}. Pass more cases.")
    for k in sorted({*present.tolist()} - {*usable}):
        warnings.warn(
            f"{block.label}: class {as_plain(classes[k])!r} occurs in one case only and is left "
            "out.",
            UnusableClassWarning,
            stacklevel=4,
        )
    return usable


def unit_range(X: NDArray[np.floating]) -> tuple[Array, int]:
    """Return ``X * 2.0**-exponent``, its largest absolute value in [0.5, 1), and the exponent."""
    # A power of two rounds nothing, so features of any size can be squared and summed.
    largest = max(float(X.max(initial=0.0)), -float(X.min(initial=0.0)))
    exponent = int(np.frexp(largest)[1])
    return np.ldexp(np.asarray(X, dtype=np.float64), -exponent), exponent


def centred(X: NDArray[np.floating]) -> tuple[Array, int]:
    """Centre the columns that vary, scaled by ``2.0**-exponent``; return them and the exponent."""
    # The computed mean of a constant column is off by rounding: a spurious spread.
    Z, exponent = unit_range(X[:, X.min(axis=0) < X.max(axis=0)])
    Z -= Z.mean(axis=0)
    Z -= Z.mean(axis=0)  # removes what rounding left of a mean far from zero
    return Z, exponent


def fewest_coordinates(Z: Array) -> Array:
    """Rotate rows, of which there are fewer than channels, into as many dimensions as rows."""
    return np.ascontiguousarray(np.asarray(np.linalg.qr(Z.T, mode="r")).T)


def moments_of(block: FeatureBlock) -> ClassMoments:
    """Return moments of a block by class, up to a rotation where channels are more than rows."""
    if block.moments_suffice:
        return block.moments
    Z, exponent = centred(block.X)
    Z = fewest_coordinates(Z) if Z.shape[1] > len(Z) else Z
    return replace(ClassMoments.from_arrays(Z, block.y, name=block.name), exponent=exponent)


def unit_length(X: NDArray[np.floating]) -> Array:
    """Scale every row to length one; a zero row stays zero."""
    largest = np.abs(X).max(axis=1, keepdims=True)
    X = X / np.where(largest > 0, largest, 1.0)  # squares cannot overflow now
    norms = np.sqrt(np.einsum("ij,ij->i", X, X))[:, None]
    return X / np.where(norms > 0, norms, 1.0)


def canonical_subsample(
    block: FeatureBlock, strata: NDArray[np.generic], *, max_samples: int, random_state: int
) -> Ints:
    """Return indices of about `max_samples` rows, in proportion by stratum."""
    # Rows of named cases are drawn by case and position: the same voxels of every model, whatever
    # the order of the cases. Others are drawn by content: neither the order of rows, channels and
    # strata decides anything, nor the features' scale.
    n = block.n_voxels
    if n <= max_samples:
        return np.arange(n)
    _, codes = np.unique(strata, return_inverse=True)
    chosen = []
    for k in range(codes.max() + 1):
        rows = np.flatnonzero(codes == k)
        size = max(1, max_samples * len(rows) // n)
        if block.case_names is not None and block.groups is not None:
            groups, codes_of = np.unique(block.groups[rows], return_inverse=True)
            names = np.array([block.case_name(group) for group in groups])
            rows = rows[np.argsort(names[codes_of], kind="stable")]
        else:  # sorted within the row, channels in any order give the same key
            rows = rows[_in_order(np.sort(block.X[rows], axis=1))]
        # One seed for all strata: the names decide nothing, and neither does their order.
        rng = np.random.default_rng(random_state)
        chosen.append(rows[rng.permutation(len(rows))[:size]])
    return np.sort(np.concatenate(chosen))


def _in_order(keys: NDArray[np.floating]) -> Ints:
    """Order of rows by their first value, then their second, and so on."""
    # Bytes compare as numbers do once negative ones are turned round; sorting by every column
    # in turn takes many times as long.
    bits = (keys.astype(np.float64) + 0.0).view(np.int64)  # no negative zero
    bits = np.where(bits < 0, ~bits, bits ^ np.int64(-(2**63))).astype(">i8")
    return np.argsort(bits.view(f"V{8 * keys.shape[1]}")[:, 0], kind="stable")


def label_entropy(y: NDArray[np.generic]) -> float:
    """Entropy of the labels' shares, in nats."""
    _, counts = np.unique(y, return_counts=True)
    share = counts / len(y)
    return -float(share @ np.log(share))


def warn_at_floor(name: str, score: float, block: FeatureBlock) -> None:
    """Warn when a mean log likelihood is no better than that of the labels' shares."""
    entropy = label_entropy(block.y)
    if score < -(1 - _AT_FLOOR) * entropy:
        warnings.warn(
            f"{block.label}: {name} is {score:.4g}, its floor -H(y) = {-entropy:.4g}: it says "
            "nothing about the target classes, and cannot separate models there. Do not "
            "rank by it.",
            SaturatedScoreWarning,
            stacklevel=2,
        )


def warn_if_constant(name: str, block: FeatureBlock) -> None:
    """Warn when no channel varies over the voxels, so that a score knows labels alone."""
    if _varies_by_rounding(block.X):
        warnings.warn(
            f"{block.label}: features are the same at every voxel; they collapsed, and {name} "
            "says nothing about the model. Do not rank by it.",
            CollapsedFeaturesWarning,
            stacklevel=3,
        )


def warn_if_subnormal(X: NDArray[Any], label: str) -> None:
    """Warn when all features are too small for their type to hold every digit of them."""
    if X.dtype.kind != "f" or not X.size:
        return
    largest = max(float(X.max()), -float(X.min()))
    if 0.0 < largest < float(np.finfo(X.dtype).tiny):
        warnings.warn(
            f"{label}: features are at most {largest:.3g}, below the smallest normal number of "
            f"{X.dtype.name}; digits are lost, and scores change with them. Rescale the "
            "features, or keep them in a wider type.",
            CollapsedFeaturesWarning,
            stacklevel=4,
        )


def warn_outside_spread(name: str, block: FeatureBlock, bounds: tuple[float, float]) -> None:
    """Warn when the mean squared distance from the mean lies outside `bounds`."""
    low, high = bounds
    if low <= 0.0 and np.isinf(high):
        return
    moments = moments_of(block)
    spread = float(np.trace(moments.total)) / moments.n_voxels
    if spread == 0.0:
        return  # constant: another warning
    size = np.log10(spread) + 2.0 * moments.exponent * np.log10(2.0)
    if np.log10(low) <= size <= np.log10(high):
        return
    warnings.warn(
        f"{block.label}: the features' root mean squared distance from their mean is "
        f"1e{size / 2:.1f}, where {name} depends on little but their scale: models whose "
        f"features have other scales cannot be compared. Use {name}(normalize='trace').",
        SaturatedScoreWarning,
        stacklevel=3,
    )


def _varies_by_rounding(X: Array) -> bool:
    """Whether all rows are alike; most blocks show in two rows that they are not."""
    with np.errstate(over="ignore"):  # an overflow is not rounding
        if (np.abs(X[0] - X[-1]) > _ROUNDING * np.abs(X[0])).any():
            return False
        low, high = X.min(axis=0), X.max(axis=0)
        return bool((high - low <= _ROUNDING * np.maximum(np.abs(low), np.abs(high))).all())


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
    n_classes, edge = len(np.unique(block.y)), min(block.X.shape)
    return bool(8 * n_cases * n_classes * edge**2 <= _MOST_BYTES)


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
