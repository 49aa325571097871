"""The contract that makes one estimator serve arrays, pipelines and banks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_X_y, column_or_1d, validate_data

from skte._sklearn import StrOptions, fit_context
from skte.features import CaseFeatures, FeatureBlock, FeatureSet

__all__ = ["TransferabilityEstimator"]

Features = ArrayLike | FeatureSet | FeatureBlock | Sequence[CaseFeatures]


class TransferabilityEstimator(BaseEstimator):
    """Base class of all transferability estimators. Higher is better.

    A score is a statistic of a sample: ``est.score(X, y)`` equals
    ``clone(est).fit(X, y).score_``. Subclasses implement one pure method,
    ``_score_block``, for one layer; this class opens the doors (arrays, a
    `FeatureBlock`, a `FeatureSet`), loops over layers and reduces.

    Parameters
    ----------
    layer_reduction : {"mean", "last"}, default="mean"
        How scores of several layers become one: their mean, or the score of the
        last (finest) layer.

    Attributes
    ----------
    score_ : float
        The transferability score. Higher is better; ``-inf`` ranks last.
    layer_scores_ : ndarray of shape (n_layers,)
        Score of each layer, coarse to fine.
    layer_names_ : tuple of str
        Names of the layers.
    layer_details_ : tuple of mapping
        What each layer's score is made of; empty for estimators that do not say.
    n_features_in_ : int
        Number of channels, when fitted on an array.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "layer_reduction": [StrOptions({"mean", "last"})]
    }
    #: What ``X`` is: decoder features, or the source head's probabilities.
    _uses_posterior: ClassVar[bool] = False
    #: Whether continuous ``y`` (regression targets) make sense.
    _accepts_regression: ClassVar[bool] = False

    def __init__(self, *, layer_reduction: str = "mean") -> None:
        self.layer_reduction = layer_reduction

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Features, y: ArrayLike | None = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """Compute the score of features for labels.

        Parameters
        ----------
        X : array-like of shape (n_voxels, n_channels), FeatureSet or FeatureBlock
            Features; a `FeatureSet` (or a list of its cases) carries its own labels.
        y : array-like of shape (n_voxels,), optional
            Target label of each row. Required with an array, refused otherwise.
        groups : array-like of shape (n_voxels,), optional
            The case each row came from.

        Returns
        -------
        self : TransferabilityEstimator
            The fitted estimator; the result is ``score_``.

        Raises
        ------
        ValueError
            If the input is unusable; the message says what to do.
        """
        blocks = self._check_blocks(X, y, groups, reset=True)
        self.layer_names_: tuple[str, ...] = tuple(
            block.name or f"layer_{i}" for i, block in enumerate(blocks)
        )
        explained = [self._explain_block(block) for block in blocks]
        self.layer_scores_: NDArray[np.float64] = np.array([score for score, _ in explained])
        self.layer_details_: tuple[Mapping[str, Any], ...] = tuple(d for _, d in explained)
        self.score_: float = self._reduce_layers(self.layer_scores_)
        return self

    def score(
        self,
        X: Features | None = None,
        y: ArrayLike | None = None,
        *,
        groups: ArrayLike | None = None,
    ) -> float:
        """Return the score of the given features, or of those seen in ``fit``.

        Parameters
        ----------
        X : array-like, FeatureSet or FeatureBlock, optional
            As for `fit`. None returns ``score_``.
        y : array-like of shape (n_voxels,), optional
            As for `fit`.
        groups : array-like of shape (n_voxels,), optional
            As for `fit`.

        Returns
        -------
        float
            The score. Higher is better.
        """
        if X is None:
            if y is not None or groups is not None:
                raise ValueError("score() got y or groups without X; pass X as well.")
            if not hasattr(self, "score_"):
                raise NotFittedError(
                    f"This {type(self).__name__} is not fitted: call fit(X, y) first, "
                    "or pass X and y to score."
                )
            return self.score_
        self._validate_params()
        blocks = self._check_blocks(X, y, groups, reset=False)
        return self._reduce_layers(np.array([self._score_block(block) for block in blocks]))

    @abstractmethod
    def _score_block(self, block: FeatureBlock) -> float:
        """Score one layer; ``block.X`` is float64, finite and has at least two rows."""

    def _explain_block(self, block: FeatureBlock) -> tuple[float, Mapping[str, Any]]:
        """Return the layer's score and what it is made of, for estimators that can tell."""
        return self._score_block(block), {}

    def _reduce_layers(self, scores: NDArray[np.float64]) -> float:
        return float(scores[-1] if self.layer_reduction == "last" else scores.mean())

    def _check_blocks(
        self, X: Features, y: ArrayLike | None, groups: ArrayLike | None, *, reset: bool
    ) -> list[FeatureBlock]:
        """Turn whatever came in into clean float64 blocks, one per layer."""
        if isinstance(X, (list, tuple)) and X and isinstance(X[0], CaseFeatures):
            X = FeatureSet(X)
        if not isinstance(X, (FeatureSet, FeatureBlock)):
            return [self._block_from_arrays(X, y, groups, reset=reset)]
        if y is not None or groups is not None:
            raise ValueError(
                f"A {type(X).__name__} carries its own labels and cases: "
                "do not pass y or groups with it."
            )
        if reset and hasattr(self, "n_features_in_"):
            del self.n_features_in_
        if isinstance(X, FeatureBlock):
            blocks = [X]
        else:
            blocks = [X.posterior_block()] if self._uses_posterior else X.blocks()
        return [self._clean_block(block) for block in blocks]

    def _block_from_arrays(self, X: Any, y: Any, groups: Any, *, reset: bool) -> FeatureBlock:
        checks = {"dtype": np.float64, "ensure_min_samples": 2}
        if reset or hasattr(self, "n_features_in_"):
            X, y = validate_data(
                self, X, y, reset=reset, multi_output=self._accepts_regression, **checks
            )
        elif y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, "
                "but the target y is None."
            )
        else:
            X, y = check_X_y(X, y, multi_output=self._accepts_regression, **checks)
        self._check_targets(y)
        if groups is not None:
            groups = column_or_1d(groups)
            if len(groups) != len(X):
                raise ValueError(
                    f"groups has {len(groups)} entries but X has {len(X)} rows: "
                    "give the case of every row."
                )
        return FeatureBlock(X, y, groups)

    def _clean_block(self, block: FeatureBlock) -> FeatureBlock:
        """Return the block with float64 features, checked to be finite."""
        name = f"X of layer {block.name!r}" if block.name else "X"
        X = check_array(
            block.X, dtype=np.float64, ensure_min_samples=2, input_name=name, estimator=self
        )
        self._check_targets(block.y)
        if block.X_case is None:
            return replace(block, X=X)
        X_case = check_array(block.X_case, dtype=np.float64, ensure_min_samples=0, input_name=name)
        return replace(block, X=X, X_case=X_case)

    def _check_targets(self, y: NDArray[np.generic]) -> None:
        if not self._accepts_regression:
            check_classification_targets(y)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
