"""LEEP: how well the source head's classes predict the target's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.estimators._floor import warn_at_floor
from skte.estimators._head import SourceHeadEstimator
from skte.estimators._labels import encode_labels
from skte.estimators._resample import held_groups
from skte.features import FeatureBlock

__all__ = ["LEEP", "leep_score"]

# Rows looked at together: they stay in the cache.
_CHUNK = 8192


class LEEP(SourceHeadEstimator):
    r"""Log Expected Empirical Prediction (LEEP).

    With ``p(z | x)`` the source head's probability of source class ``z`` at a voxel,
    predict the target class through the joint distribution of source and target
    classes, and take the mean log likelihood::

        P(y, z) = 1/n sum over i with y_i = y of p(z | x_i)
        P(y | z) = P(y, z) / sum over y of P(y, z)
        LEEP = 1/n sum_i log sum_z P(y_i | z) p(z | x_i)

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
        Between ``-H(y)``, the negative entropy of the labels in nats (the head says
        nothing about the target), and 0 (it tells every voxel's class). Higher is
        better.
    layer_scores_ : ndarray of shape (1,)
        The same score.
    layer_names_ : tuple of str
        One name, that of the source posterior.
    n_features_in_ : int
        Number of source classes, when fitted on an array.

    See Also
    --------
    leep_score : The same for arrays.
    NCE : Looks at the head's decisions alone.
    NLEEP : Puts a Gaussian mixture of the features in place of the head.
    LogME : Looks at features, and needs no source head.

    Notes
    -----
    A model without a source head has no LEEP, and a `FeatureSet` without a source
    posterior is refused. LEEP judges the head, not the features: it misleads when the
    source classes are coarse (a head of two classes cannot tell three target classes
    apart, whatever the decoder knows), and when background fills most of the sample.
    Since arrays must hold probabilities, scikit-learn's generic estimator checks
    apply to ``input="logits"`` only, and the tag ``input_tags.two_d_array`` says so.

    References
    ----------
    .. [1] Nguyen, C. V., Hassner, T., Seeger, M., Archambeau, C. "LEEP: A New Measure
       to Evaluate Transferability of Learned Representations". ICML 2020.
       arXiv:2002.12462.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import LEEP
    >>> labels = np.array([0, 0, 2, 2])
    >>> perfect = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    >>> LEEP().fit(perfect, labels).score()
    0.0
    >>> uninformative = np.full((4, 2), 0.5)
    >>> round(LEEP().fit(uninformative, labels).score(), 4)  # minus log 2
    -0.6931
    """

    def _score_block(self, block: FeatureBlock) -> float:
        score = leep_score(block.X, block.y)
        warn_at_floor("LEEP", score, block)
        return score

    def _resample_block(
        self, block: FeatureBlock, details: Mapping[str, Any], weights: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        return _resampled(block.X, block.y, held_groups(block), weights)


def leep_score(P: NDArray[np.floating], y: NDArray[np.generic]) -> float:
    """Log expected empirical prediction of labels by source-class probabilities.

    Parameters
    ----------
    P : ndarray of shape (n_samples, n_source_classes)
        Rows are probabilities; what a row's sum lacks to one is divided out.
    y : ndarray of shape (n_samples,)
        Target labels, at least two distinct ones.

    Returns
    -------
    float
        Between ``-H(y)`` and 0. Higher is better.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.estimators import leep_score
    >>> round(leep_score(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([3, 8])), 4)
    -0.6931
    """
    classes, codes = encode_labels(y)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes, minlength=len(classes)))[:-1])
    chunks = [
        (k, rows[start : start + _CHUNK])
        for k, rows in enumerate(parts)
        for start in range(0, len(rows), _CHUNK)
    ]
    joint = np.zeros((len(classes), P.shape[1]))
    for k, rows in chunks:
        joint[k] += (1.0 / P[rows].sum(axis=1, dtype=np.float64)) @ P[rows]
    marginal = joint.sum(axis=0)
    # A source class that is never predicted has no P(y | z), and needs none.
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    total = 0.0
    for k, rows in chunks:
        # The two sums of a row in one product: of P(y | z) p(z), and of p(z) alone.
        sums = P[rows] @ np.stack([conditional[k], np.ones(P.shape[1])], axis=1)
        total += float(np.minimum(np.log(sums[:, 0] / sums[:, 1]), 0.0).sum())
    return total / len(P)


def _resampled(
    P: NDArray[np.floating],
    y: NDArray[np.generic],
    groups: NDArray[np.intp],
    weights: NDArray[np.intp],
) -> NDArray[np.float64]:
    """LEEP of each resample: joint tables add up over cases, log likelihoods do given these."""
    classes, codes = encode_labels(y)
    n_cases, k = weights.shape[1], len(classes)
    Q = P / P.sum(axis=1, keepdims=True)
    order = np.argsort(groups * k + codes, kind="stable")
    counts = np.bincount(groups * k + codes, minlength=n_cases * k)
    parts = np.split(order, np.cumsum(counts)[:-1])
    tables = np.stack([Q[rows].sum(axis=0) for rows in parts])
    joint = (weights @ tables.reshape(n_cases, -1)).reshape(len(weights), k, -1)
    marginal = joint.sum(axis=1, keepdims=True)
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    total = np.zeros(len(weights))
    for part, rows in enumerate(parts):
        case, label = divmod(part, k)
        drawn = np.flatnonzero(weights[:, case])  # of the others P(y | z) may be zero
        likelihood = Q[rows] @ conditional[drawn, label].T
        total[drawn] += weights[drawn, case] * np.minimum(np.log(likelihood), 0.0).sum(axis=0)
    found = weights @ counts.reshape(n_cases, k)
    return np.where((found > 0).sum(axis=1) > 1, total / found.sum(axis=1), np.nan)
