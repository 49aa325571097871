"""What estimators share that look at the source head instead of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.utils import Tags

from skte._sklearn import StrOptions
from skte.estimators._base import Features, TransferabilityEstimator
from skte.features import CaseFeatures, ClassMoments, FeatureBlock, FeatureSet

__all__ = ["SourceHeadEstimator"]

# Softmax in float16, over many classes, sums to one within about this.
_SUM_TOLERANCE = 1e-3


class SourceHeadEstimator(TransferabilityEstimator):
    """Base class of scores of the source head's class probabilities.

    Parameters
    ----------
    input : {"probabilities", "logits"}, default="probabilities"
        What the rows of an array or `FeatureBlock` are. Probabilities must be
        non-negative and sum to one; logits go through a softmax first. A `FeatureSet`
        always carries probabilities, whatever this parameter says.
    layer_reduction : {"mean", "last"}, default="mean"
        Without effect: there is one source head. Part of the common contract.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "input": [StrOptions({"probabilities", "logits"})],
    }
    _uses_posterior: ClassVar[bool] = True
    _warns_of_constants: ClassVar[bool] = True

    def __init__(self, *, input: str = "probabilities", layer_reduction: str = "mean") -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.input = input

    def _check_blocks(
        self, X: Features, y: ArrayLike | None, groups: ArrayLike | None, *, reset: bool
    ) -> list[FeatureBlock | ClassMoments]:
        blocks = super()._check_blocks(X, y, groups, reset=reset)
        cases = isinstance(X, FeatureSet) or (
            isinstance(X, Sequence) and len(X) > 0 and isinstance(X[0], CaseFeatures)
        )
        checked: list[FeatureBlock | ClassMoments] = []
        for block in blocks:
            assert isinstance(block, FeatureBlock)  # moments are refused before
            if self.input == "logits" and not cases:
                block = replace(block, X=softmax(block.X, axis=1))
            self._check_probabilities(block.X, block.name)
            checked.append(block)
        return checked

    def _check_probabilities(self, P: NDArray[np.floating], name: str) -> None:
        sums = P.sum(axis=1)
        bad = np.abs(sums - 1.0) > _SUM_TOLERANCE
        if P.min() < 0:
            bad |= (P < 0).any(axis=1)
        if not bad.any():
            return
        row = int(np.argmax(bad))
        where = f"X of layer {name!r}" if name else "X"
        reason = (
            f"has the negative entry {P[row].min():.6g}"
            if P[row].min() < 0
            else f"sums to {sums[row]:.6g}"
        )
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
