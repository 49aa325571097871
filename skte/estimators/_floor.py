"""Features and scores that say nothing: constant, vanishing, at the end of a range."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.estimators._scaling import centred
from skte.exceptions import CollapsedFeaturesWarning, SaturatedScoreWarning
from skte.features import ClassMoments, FeatureBlock

__all__ = [
    "label_entropy",
    "warn_at_floor",
    "warn_if_constant",
    "warn_if_subnormal",
    "warn_outside_spread",
]

# A score this close to its floor, relative to it, says nothing about the model.
_AT_FLOOR = 0.002
# Channels that vary by less than this, relative to their size, differ by rounding.
_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)


def label_entropy(y: NDArray[np.generic]) -> float:
    """Entropy of the labels' shares, in nats.

    Parameters
    ----------
    y : ndarray of shape (n_voxels,)
        Labels of any kind.

    Returns
    -------
    float
        ``H(y)``, at least 0.
    """
    _, counts = np.unique(y, return_counts=True)
    share = counts / len(y)
    return -float(share @ np.log(share))


def warn_at_floor(name: str, score: float, block: FeatureBlock) -> None:
    """Warn when a mean log likelihood is no better than that of the labels' shares.

    Parameters
    ----------
    name : str
        The estimator.
    score : float
        Its score in nats.
    block : FeatureBlock
        Where it comes from.
    """
    entropy = label_entropy(block.y)
    if score < -(1 - _AT_FLOOR) * entropy:
        warnings.warn(
            f"{block.label}: {name} is {score:.4g}, its floor -H(y) = {-entropy:.4g}: it tells "
            "nothing about the target classes, and models there cannot be told apart. Do not "
            "rank by it.",
            SaturatedScoreWarning,
            stacklevel=2,
        )


def warn_if_constant(name: str, block: FeatureBlock | ClassMoments) -> None:
    """Warn when no channel varies over the voxels, so that a score knows labels alone."""
    if isinstance(block, FeatureBlock) and block.case_moments is not None:
        block = block.moments
    if isinstance(block, ClassMoments):
        constant = not np.any(block.scatters) and not np.any(block.centres)
    else:
        constant = _varies_by_rounding(block.X)
    if constant:
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


def warn_outside_spread(
    name: str, block: FeatureBlock | ClassMoments, bounds: tuple[float, float]
) -> None:
    """Warn when features vary too little or too much for a score's own constants.

    `bounds` are of the mean squared distance from the mean.
    """
    low, high = bounds
    if low <= 0.0 and np.isinf(high):
        return
    if isinstance(block, FeatureBlock) and block.case_moments is not None:
        block = block.moments
    if isinstance(block, ClassMoments):
        spread, exponent = float(np.trace(block.total)) / block.n_voxels, block.exponent
    else:
        Z, exponent = centred(block.X)
        spread = float(np.einsum("ij,ij->", Z, Z)) / len(block.X)
    if spread == 0.0:
        return  # constant: another warning
    size = np.log10(spread) + 2.0 * exponent * np.log10(2.0)
    if np.log10(low) <= size <= np.log10(high):
        return
    warnings.warn(
        f"{block.label}: the features' root mean squared distance from their mean is "
        f"1e{size / 2:.1f}, where {name} depends on little but their scale: models whose "
        f"features have other scales cannot be compared. Use {name}(normalize='trace').",
        SaturatedScoreWarning,
        stacklevel=3,
    )


def _varies_by_rounding(X: NDArray[np.float64]) -> bool:
    """Whether all rows are alike; most blocks show in two rows that they are not."""
    with np.errstate(over="ignore"):  # an overflow is no rounding
        if (np.abs(X[0] - X[-1]) > _ROUNDING * np.abs(X[0])).any():
            return False
        low, high = X.min(axis=0), X.max(axis=0)
        return bool((high - low <= _ROUNDING * np.maximum(np.abs(low), np.abs(high))).all())
