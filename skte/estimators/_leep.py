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
from skte.estimators._base import Details, EstimatorTags, Features, TransferabilityEstimator
from skte.estimators._samples import Array, Ints, encode_labels, held_groups, warn_at_floor
from skte.features import CaseFeatures, FeatureBlock, FeatureSet

# Rows looked at together: they stay in the cache.
_CHUNK = 8192
# Softmax in float16, over many classes, sums to one within about this.
_SUM_TOLERANCE = 1e-3


class SourceHeadEstimator(TransferabilityEstimator):
    """Base class of scores of the source head's class probabilities."""

    _tags: ClassVar[EstimatorTags] = EstimatorTags(source_head=True, warns_of_constants=True)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "input": [StrOptions({"probabilities", "logits"})],
    }

    def __init__(self, *, input: str = "probabilities", layer_reduction: str = "mean") -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.input = input

    def _check_blocks(
        self, X: Features, y: ArrayLike | None, groups: ArrayLike | None, *, reset: bool
    ) -> list[FeatureBlock]:
        blocks = super()._check_blocks(X, y, groups, reset=reset)
        cases = isinstance(X, FeatureSet) or (
            isinstance(X, Sequence) and len(X) > 0 and isinstance(X[0], CaseFeatures)
        )
        if self.input == "logits" and not cases:
            blocks = [replace(block, X=softmax(block.X, axis=1)) for block in blocks]
        for block in blocks:
            self._check_probabilities(block.X, block.name)
        return blocks

    def _check_probabilities(self, P: NDArray[np.floating], name: str) -> None:
        sums = P.sum(axis=1)
        lowest = P.min(axis=1)
        bad = (np.abs(sums - 1.0) > _SUM_TOLERANCE) | (lowest < 0)
        if not bad.any():
            return
        row = int(np.argmax(bad))
        where = f"X of layer {name!r}" if name else "X"
        reason = f"sums to {sums[row]:.6g}"
        if lowest[row] < 0:
            reason = f"has the negative entry {lowest[row]:.6g}"
        own = type(self).__name__
        raise ValueError(
            f"{own} needs the source head's probabilities, non-negative and summing to 1 "
            f"in every row, but row {row} of {where} {reason} ({bad.sum()} of {len(P)} rows "
            f"are unusable). Apply the head's softmax, or use {own}(input='logits')."
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = self.input == "logits"
        return tags


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
        Between ``-H(y)``, the negative entropy of the labels in nats (the head says nothing about
        the target), and 0 (it determines every voxel's class). Higher is better.

    References
    ----------
    .. [1] Nguyen, C. V. et al. "LEEP: A New Measure to Evaluate Transferability of Learned
       Representations". ICML 2020. arXiv:2002.12462.

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
        score = leep_of(block.X, block.y)
        warn_at_floor("LEEP", score, block)
        return score

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        return weighted_leep(block.X, block.y, held_groups(block), weights)


def leep_of(P: NDArray[np.floating], y: NDArray[np.generic]) -> float:
    """LEEP of all rows."""
    once = np.ones((1, 1), dtype=np.intp)
    return float(weighted_leep(P, y, np.zeros(len(P), dtype=np.intp), once)[0])


def weighted_leep(
    P: NDArray[np.floating], y: NDArray[np.generic], groups: Ints, weights: Ints
) -> Array:
    """LEEP where case i is drawn ``weights[b, i]`` times, for each b; NaN of a single class."""
    # Joint tables add up over cases, and given these, log likelihoods do.
    classes, codes = encode_labels(y)
    n_cases, k = weights.shape[1], len(classes)
    counts = np.bincount(groups * k + codes, minlength=n_cases * k)
    order = np.argsort(groups * k + codes, kind="stable")
    parts = np.split(order, np.cumsum(counts)[:-1])
    chunks = [
        (*divmod(part, k), rows[start : start + _CHUNK])
        for part, rows in enumerate(parts)
        for start in range(0, len(rows), _CHUNK)
    ]
    tables = np.zeros((n_cases, k, P.shape[1]))
    for case, label, rows in chunks:
        tables[case, label] += (1.0 / P[rows].sum(axis=1, dtype=np.float64)) @ P[rows]
    joint = (weights @ tables.reshape(n_cases, -1)).reshape(len(weights), k, -1)
    marginal = joint.sum(axis=1, keepdims=True)
    # A source class that is never predicted has no P(y | z), and needs none.
    conditional = joint / np.where(marginal > 0, marginal, 1.0)
    total = np.zeros(len(weights))
    for case, label, rows in chunks:
        drawn = np.flatnonzero(weights[:, case])  # of the others P(y | z) may be zero
        # Sums of P(y | z) p(z), and of p(z) alone, in one product.
        sums = P[rows] @ np.vstack([conditional[drawn, label], np.ones(P.shape[1])]).T
        likelihood = np.log(sums[:, :-1] / sums[:, -1:])
        total[drawn] += weights[drawn, case] * np.minimum(likelihood, 0.0).sum(axis=0)
    found = weights @ counts.reshape(n_cases, k)
    return np.where((found > 0).sum(axis=1) > 1, total / found.sum(axis=1), np.nan)
