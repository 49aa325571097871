"""NCE: how well the source head's decisions predict the target's classes."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from skte.estimators._leep import SourceHeadEstimator
from skte.estimators._samples import encode_labels, warn_at_floor
from skte.features import FeatureBlock

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

    References
    ----------
    .. [1] Tran, A. T. et al. "Transferability and Hardness of Supervised Classification Tasks".
       ICCV 2019. arXiv:1908.08142.

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
        P = block.X
        classes, codes = encode_labels(block.y)
        joint = np.zeros((len(classes), P.shape[1]))
        for start in range(0, len(P), _CHUNK):
            rows, labels = P[start : start + _CHUNK], codes[start : start + _CHUNK]
            largest = rows == rows.max(axis=1, keepdims=True)
            np.add.at(joint, labels, largest / largest.sum(axis=1, keepdims=True))
        marginal = joint.sum(axis=0)
        # A source class that never wins has no P(y | z), and needs none.
        conditional = joint / np.where(marginal > 0, marginal, 1.0)
        score = min(float(xlogy(joint, conditional).sum()) / len(P), 0.0)
        warn_at_floor("NCE", score, block)
        return score
