"""NCE: how well the source head's decisions predict the target's classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from skte.estimators._base import Details
from skte.estimators._leep import SourceHeadEstimator
from skte.estimators._samples import Array, Ints, encode_labels, held_groups, warn_at_floor
from skte.features import FeatureBlock

__all__ = ["NCE", "nce_score"]

# Rows looked at together: they stay in the cache.
_CHUNK = 8192


class NCE(SourceHeadEstimator):
    r"""Negative Conditional Entropy (NCE) of target classes given source classes.

    With ``z`` the source head's most probable class at a voxel and ``P(y, z)`` the
    share of voxels with target class ``y`` and source class ``z``::

        NCE = -H(Y | Z) = sum over y, z of P(y, z) log P(y | z)
        P(y | z) = P(y, z) / sum over y of P(y, z)

    Parameters
    ----------
    input : {"probabilities", "logits"}, default="probabilities"
        What the rows of an array or `FeatureBlock` are. Probabilities must be
        non-negative and sum to one; logits go through a softmax first. A `FeatureSet`
        always carries probabilities, whatever this parameter says.
    layer_reduction : {"mean", "last"}, default="mean"
        Without effect: there is one source head. Part of the common contract.

    Attributes
    ----------
    score_ : float
        Between ``-H(y)``, the negative entropy of the labels in nats (the head's decisions say
        nothing about the target), and 0 (they determine every voxel's class). Higher is better.
    layer_scores_, layer_names_, n_features_in_
        As for `TransferabilityEstimator`: the source posterior is the one layer.

    Warns
    -----
    SaturatedScoreWarning
        When the score is at its floor ``-H(y)``.

    See Also
    --------
    nce_score : The same for arrays.
    LEEP : Looks at all of the head's probabilities, not at its decisions alone.

    Notes
    -----
    NCE is LEEP of one-hot probabilities. A voxel whose largest probability is shared by several
    source classes counts in equal parts for each of them. The score is invariant to renaming and
    permuting classes, to source classes that never win, to duplicating the sample and to everything
    that keeps each row's largest entries the largest, such as a temperature.

    It misleads where LEEP does, and more: a head that never decides for anything but background
    sits at the floor, however much its probabilities know. With a source class for every few
    voxels, the score is too high.

    References
    ----------
    .. [1] Tran, A. T., Nguyen, C. V., Hassner, T. "Transferability and Hardness of
       Supervised Classification Tasks". ICCV 2019. arXiv:1908.08142.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import NCE
    >>> labels = np.array([0, 0, 2, 2])
    >>> decided = np.array([[0.4, 0.6], [0.3, 0.7], [0.9, 0.1], [0.6, 0.4]])
    >>> NCE().fit(decided, labels).score()
    0.0
    >>> undecided = np.full((4, 2), 0.5)
    >>> round(NCE().score(undecided, labels), 4)  # minus log 2
    -0.6931
    """

    def _score_block(self, block: FeatureBlock) -> float:
        score = nce_score(block.X, block.y)
        warn_at_floor("NCE", score, block)
        return score

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """From a table of target and source classes per case."""
        classes, codes = encode_labels(block.y)
        groups, n_cases, k = held_groups(block), weights.shape[1], len(classes)
        tables = _joint_table(block.X, groups * k + codes, n_cases * k)
        joint = weights @ tables.reshape(n_cases, -1)
        return np.array([_from_table(table.reshape(k, -1)) for table in joint])


def nce_score(P: NDArray[np.floating], y: NDArray[np.generic]) -> float:
    """Negative conditional entropy of labels given the most probable source class.

    Parameters
    ----------
    P : ndarray of shape (n_samples, n_source_classes)
        Probabilities, or anything whose largest entry in a row is the class. Rows
        with several largest entries are shared equally between them.
    y : ndarray of shape (n_samples,)
        Target labels, at least two distinct ones.

    Returns
    -------
    float
        Between ``-H(y)`` and 0. Higher is better.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.estimators import nce_score
    >>> nce_score(np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([3, 8]))
    0.0
    """
    classes, codes = encode_labels(y)
    return _from_table(_joint_table(P, codes, len(classes)))


def _joint_table(P: NDArray[np.floating], codes: Ints, n_codes: int) -> Array:
    """How often the source decides for each of its classes, by code."""
    joint = np.zeros((n_codes, P.shape[1]))
    for start in range(0, len(P), _CHUNK):
        rows, labels = P[start : start + _CHUNK], codes[start : start + _CHUNK]
        largest = rows == rows.max(axis=1, keepdims=True)
        shares = largest / largest.sum(axis=1, keepdims=True)
        for k in np.unique(labels):
            joint[k] += shares[labels == k].sum(axis=0)
    return joint


def _from_table(joint: Array) -> float:
    """Negative conditional entropy; NaN where one target class is left."""
    if np.count_nonzero(joint.any(axis=1)) < 2:
        return np.nan
    marginal = joint.sum(axis=0)
    # A source class that never wins has no P(y | z), and needs none.
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    return min(float(xlogy(joint, conditional).sum()) / float(joint.sum()), 0.0)
