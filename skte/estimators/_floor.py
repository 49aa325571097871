"""The floor of mean log likelihoods: what the labels' shares alone give."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from skte.exceptions import SaturatedScoreWarning
from skte.features import FeatureBlock

__all__ = ["label_entropy", "warn_at_floor"]

# A score this close to its floor, relative to it, says nothing about the model.
_AT_FLOOR = 0.002


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
