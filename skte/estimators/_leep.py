"""LEEP: how well the source head's classes predict the target's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.utils import Tags

from skte._sklearn import StrOptions
from skte.estimators._base import TransferabilityEstimator
from skte.estimators._labels import encode_labels
from skte.features import CaseFeatures, FeatureBlock, FeatureSet

__all__ = ["LEEP", "leep_score"]

# Softmax in float16 autocast sums to one within about this.
_SUM_TOLERANCE = 1e-4


class LEEP(TransferabilityEstimator):
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

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "input": [StrOptions({"probabilities", "logits"})],
    }
    _uses_posterior: ClassVar[bool] = True

    def __init__(self, *, input: str = "probabilities", layer_reduction: str = "mean") -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.input = input

    def _score_block(self, block: FeatureBlock) -> float:
        return leep_score(block.X, block.y)

    def _check_blocks(
        self,
        X: ArrayLike | FeatureSet | FeatureBlock | Sequence[CaseFeatures],
        y: ArrayLike | None,
        groups: ArrayLike | None,
        *,
        reset: bool,
    ) -> list[FeatureBlock]:
        blocks = super()._check_blocks(X, y, groups, reset=reset)
        cases = isinstance(X, FeatureSet) or (
            isinstance(X, (list, tuple)) and len(X) > 0 and isinstance(X[0], CaseFeatures)
        )
        if self.input == "logits" and not cases:
            blocks = [replace(block, X=softmax(block.X, axis=1)) for block in blocks]
        for block in blocks:
            _check_probabilities(block.X, block.name)
        return blocks

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.input == "logits"
        return tags


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
    P = np.asarray(P, dtype=np.float64)
    P = P / P.sum(axis=1, keepdims=True)
    joint = np.eye(len(classes))[codes].T @ P
    marginal = joint.sum(axis=0)
    # A source class that is never predicted has no P(y | z), and needs none.
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    likelihood = np.take_along_axis(P @ conditional.T, codes[:, None], axis=1)
    return float(np.minimum(np.log(likelihood), 0.0).mean())


def _check_probabilities(P: NDArray[np.floating], name: str) -> None:
    where = f"X of layer {name!r}" if name else "X"
    sums = P.sum(axis=1)
    negative = np.asarray((P < 0).any(axis=1))
    bad = np.flatnonzero(negative | (np.abs(sums - 1.0) > _SUM_TOLERANCE))
    if len(bad):
        row = int(bad[0])
        reason = (
            f"has the negative entry {P[row].min():.6g}"
            if negative[row]
            else f"sums to {sums[row]:.6g}"
        )
        raise ValueError(
            f"LEEP needs the source head's probabilities, non-negative and summing to 1 "
            f"in every row, but row {row} of {where} {reason} ({len(bad)} of {len(P)} rows "
            "are unusable). Apply the head's softmax, or use LEEP(input='logits')."
        )
