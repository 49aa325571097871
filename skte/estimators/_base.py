"""The contract that makes one estimator serve arrays, pipelines and banks."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_X_y, column_or_1d, validate_data

from skte._sklearn import StrOptions, fit_context
from skte._table import format_table
from skte.estimators._samples import (
    Array,
    Ints,
    case_weights,
    each_or_nan,
    fits_in_memory,
    scores_from_moments,
    warn_if_constant,
    warn_if_subnormal,
    warn_outside_spread,
)
from skte.features import CaseFeatures, ClassMoments, FeatureBlock, FeatureSet

Features = ArrayLike | FeatureSet | FeatureBlock | Sequence[CaseFeatures]
#: What ``combine`` needs to know of one model.
Part = Mapping[str, Any]
#: What the score of one layer is made of.
Details = Mapping[str, Any]
#: Of one layer, and what it is made of, for estimators that report it.
Scored = float | tuple[float, Details]
#: Outliers shown by a printed diagnosis.
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class EstimatorTags:
    """What a transferability estimator needs, and what it accepts.

    The counterpart of :class:`sklearn.utils.Tags`; see `TransferabilityEstimator.tags`.

    Parameters
    ----------
    labels : bool, default=True
        Whether the score looks at labels.
    source_head : bool, default=False
        Whether ``X`` is the source head's probabilities instead of features.
    case_sample : bool, default=False
        Whether the score looks at voxels of the whole case, whatever their label.
    joined_layers : bool, default=False
        Whether all layers of a `FeatureSet` are one problem, side by side at the same voxels.
    relative_to_bank : bool, default=False
        Whether a score exists only in comparison with the other models of a bank.
    moments : bool, default=False
        Whether class means and covariances are all that the score needs to know.
    continuous_labels : bool, default=False
        Whether ``y`` may be a regression target.
    corrects_bias : bool, default=False
        Whether scores of few cases are so far from those of many that intervals are put
        around the score less the jackknife's estimate of its bias.
    warns_of_constants : bool, default=False
        Whether the estimator warns of constant features itself; otherwise the base class does.

    Examples
    --------
    >>> from skte import CCFV
    >>> CCFV().tags.case_sample, CCFV(feature_variety=False).tags.case_sample
    (True, False)
    """

    labels: bool = True
    source_head: bool = False
    case_sample: bool = False
    joined_layers: bool = False
    relative_to_bank: bool = False
    moments: bool = False
    continuous_labels: bool = False
    corrects_bias: bool = False
    warns_of_constants: bool = False


class TransferabilityEstimator(BaseEstimator):
    """Base class of all transferability estimators. Higher is better.

    A score is a statistic of a sample: ``est.score(X, y)`` equals ``clone(est).fit(X, y).score_``.
    Subclasses implement one pure method, ``_score_block``, for one layer; this class opens the
    doors (arrays, a `FeatureBlock`, a `FeatureSet`), loops over layers and reduces. The page of
    each estimator in the documentation has its invariances, when it misleads and what it costs.

    Parameters
    ----------
    layer_reduction : {"mean", "last"}, default="mean"
        How scores of several layers become one: their mean, or that of the last (finest) layer.

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
    #: What `tags` are, for estimators whose tags do not depend on their parameters.
    _tags: ClassVar[EstimatorTags] = EstimatorTags()
    #: For estimators whose own ``__init__`` leaves the parameter out.
    layer_reduction: str = "mean"

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
        """
        blocks = self._check_blocks(X, y, groups, reset=True)
        self.layer_names_: tuple[str, ...] = _layer_names(blocks)
        self._fitted_on = _samples_of(blocks)
        self._warn_of_what_says_nothing(blocks)
        explained = [self._explain(block) for block in blocks]
        self.layer_scores_: Array = np.array([score for score, _ in explained])
        self.layer_details_: tuple[Mapping[str, Any], ...] = tuple(d for _, d in explained)
        self.score_: float = self._reduce_layers(self.layer_scores_)
        self._summarise()
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
        X, y, groups
            As for `fit`.

        Returns
        -------
        float
            Higher is better.
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
        self._warn_of_what_says_nothing(blocks)
        return self._reduce_layers(np.array([self._explain(block)[0] for block in blocks]))

    @property
    def tags(self) -> EstimatorTags:
        """What the score needs and accepts, with the parameters as they are."""
        return self._tags

    @property
    def part_(self) -> Part:
        """What `combine` needs to know of the model this was fitted on."""
        return {"score": self.score()}

    def combine(self, parts: Sequence[Part]) -> Array:
        """Scores of the models of a bank, from what was learnt of each of them.

        Most scores are returned as they are; those that are relative to the other models, such as a
        mean rank, are computed here.

        Parameters
        ----------
        parts : sequence of mapping
            ``part_`` of this estimator fitted on each model.

        Returns
        -------
        ndarray of shape (n_models,)
            Higher is better.
        """
        return np.array([part["score"] for part in parts], dtype=np.float64)

    def resample_cases(self, X: FeatureSet | Sequence[CaseFeatures], weights: ArrayLike) -> Part:
        """Scores of the same model, had other cases been labelled.

        Parameters
        ----------
        X : FeatureSet
            What the estimator was fitted on.
        weights : array-like of shape (n_resamples, n_cases)
            How often each case is drawn: 0 or 1 to leave cases out (jackknife), draws with
            replacement to repeat them (bootstrap). A case drawn twice remains one case: it is
            not compared with itself.

        Returns
        -------
        mapping
            Like ``part_``, with arrays of shape (n_resamples,). NaN where a score is undefined.

        """
        if not hasattr(self, "layer_names_"):
            raise NotFittedError(f"This {type(self).__name__} is not fitted: call fit(X) first.")
        X = X if isinstance(X, FeatureSet) else FeatureSet(X)
        blocks = self._check_blocks(X, None, None, reset=False)
        if self._fitted_on != _samples_of(blocks):
            raise ValueError(
                f"X has cases {X.case_ids[:_SHOWN]} ({len(X)}) and layers {_layer_names(blocks)}; "
                f"this {type(self).__name__} was not fitted on these voxels of them. Resample "
                "the FeatureSet that it was fitted on."
            )
        W = case_weights(weights, len(X))
        with warnings.catch_warnings():  # fit warned of the whole sample
            warnings.simplefilter("ignore")
            scores = [
                self._resample_block(block, details, W)
                for block, details in zip(blocks, self.layer_details_, strict=True)
            ]
        used = scores[-1:] if self.layer_reduction == "last" else scores
        return {"score": np.mean(used, axis=0)}

    def diagnose(self) -> Diagnosis:
        """Report what drives the fitted score: layers, and classes and cases where known."""
        score = self.score()
        layers = list(zip(self.layer_names_, self.layer_scores_.tolist(), strict=True))
        return Diagnosis(type(self).__name__, score, layers)

    @abstractmethod
    def _score_block(self, block: FeatureBlock) -> Scored:
        """Score one layer; ``block.X`` is float64, finite and has at least two rows."""

    def _score_moments(self, moments: ClassMoments) -> float:
        """Score one layer known by its moments; for estimators whose tags say so."""
        raise NotImplementedError

    def _summarise(self) -> None:
        """Set further attributes from those of the layers, at the end of ``fit``."""

    def _explain(self, block: FeatureBlock) -> tuple[float, Details]:
        scored = self._score_block(block)
        return scored if isinstance(scored, tuple) else (scored, {})

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """Score of one layer for each row of `weights`: from moments, or else of the rows drawn."""
        moments_suffice = self.tags.moments and block.moments_suffice
        if moments_suffice and fits_in_memory(block, weights.shape[1]):
            return scores_from_moments(self._score_moments, block, weights)
        return each_or_nan(lambda drawn: self._explain(drawn)[0], block, weights)

    def _reduce_layers(self, scores: Array) -> float:
        return float(scores[-1] if self.layer_reduction == "last" else scores.mean())

    def _spread_bounds(self) -> tuple[float, float]:
        """Mean squared distances from the mean between which the score means something."""
        return 0.0, np.inf

    def _warn_of_what_says_nothing(self, blocks: Sequence[FeatureBlock]) -> None:
        name = type(self).__name__
        for block in blocks:
            if not self.tags.warns_of_constants:
                warn_if_constant(name, block)
            warn_outside_spread(name, block, self._spread_bounds())

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
        elif self.tags.source_head:
            blocks = [X.posterior_block()]
        else:
            blocks = [X.joined_block()] if self.tags.joined_layers else X.blocks()
        return [self._clean_block(block) for block in blocks]

    def _block_from_arrays(self, X: Any, y: Any, groups: Any, *, reset: bool) -> FeatureBlock:
        checks = {"dtype": np.float64, "ensure_min_samples": 2}
        as_given = X
        with_y = {**checks, "multi_output": self.tags.continuous_labels}
        known = reset or hasattr(self, "n_features_in_")  # scoring alone must set nothing
        if y is None and not self.tags.labels:
            X = validate_data(self, X, reset=reset, **checks) if known else check_array(X, **checks)
            y = np.zeros(len(X), dtype=np.intp)
        elif known:
            X, y = validate_data(self, X, y, reset=reset, **with_y)
        elif y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, "
                "but the target y is None."
            )
        else:
            X, y = check_X_y(X, y, **with_y)
        warn_if_subnormal(as_given if isinstance(as_given, np.ndarray) else X, "features")
        self._check_targets(y)
        return FeatureBlock(X, y, None if groups is None else _checked_groups(groups, len(X)))

    def _clean_block(self, block: FeatureBlock) -> FeatureBlock:
        """Return the block with float64 features, checked to be finite."""
        name = f"X of layer {block.name!r}" if block.name else "X"
        X = check_array(
            block.X, dtype=np.float64, ensure_min_samples=2, input_name=name, estimator=self
        )
        warn_if_subnormal(block.X, block.label)
        self._check_targets(block.y)
        X_case = block.X_case
        if X_case is not None:
            X_case = check_array(X_case, dtype=np.float64, ensure_min_samples=0, input_name=name)
        if X is block.X and X_case is block.X_case:
            return block  # and with it what other estimators computed of it
        return replace(block, X=X, X_case=X_case)

    def _check_targets(self, y: NDArray[np.generic]) -> None:
        if not self.tags.continuous_labels:
            check_classification_targets(y)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.tags.labels
        return tags


def _checked_groups(groups: ArrayLike, n_rows: int) -> NDArray[Any]:
    checked: NDArray[Any] = column_or_1d(groups)
    if checked.dtype == object and len({type(group) for group in checked}) > 1:
        raise ValueError(
            "groups of different types cannot be sorted: use one type for all cases, names or "
            "numbers."
        )
    if len(checked) != n_rows:
        raise ValueError(
            f"groups has {len(checked)} entries but X has {n_rows} rows: give the case of each row."
        )
    return checked


def _samples_of(blocks: Sequence[FeatureBlock]) -> list[tuple[Any, ...]]:
    """Layers with the names of their cases and the number of their rows."""
    return [
        (name, tuple(block.case_names or ()), block.n_voxels, len(block.case_sample[0]))
        for name, block in zip(_layer_names(blocks), blocks, strict=True)
    ]


def _layer_names(blocks: Sequence[FeatureBlock]) -> tuple[str, ...]:
    return tuple(block.name or f"layer_{i}" for i, block in enumerate(blocks))


class ClassShare(NamedTuple):
    """Mean distance of a class between cases in a layer, and its share of the sum over classes."""

    layer: str
    label: object
    distance: float
    share: float


class CaseShare(NamedTuple):
    """How far one class in one case lies from the same class in the other cases.

    ``ratio`` is its mean distance to the other cases over the median of that over all cases,
    averaged over layers. 1 is ordinary. Well above 1, look at the case: its label may be wrong,
    or its image from another domain.
    """

    case: str
    label: object
    ratio: float


@dataclass(frozen=True)
class Diagnosis:
    """What drives a fitted score: layers, coarse to fine, and more where it is known.

    For CC-FV `classes` has, layer by layer, the class that costs most first, and `cases` the class
    and case that lie farthest out first. For the probe `case_scores` has what each case
    contributes, the lowest first: a case far below the others may have a wrong label, or an image
    from another domain.
    """

    estimator: str
    score: float
    layers: Sequence[tuple[str, float]]
    classes: Sequence[ClassShare] = field(default_factory=tuple)
    cases: Sequence[CaseShare] = field(default_factory=tuple)
    case_scores: Sequence[tuple[str, float]] = field(default_factory=tuple)

    def __str__(self) -> str:
        """Lay the tables out as text; of the cases, the farthest out alone."""
        parts = [
            f"{self.estimator}: {self.score:.4g}",
            format_table(["layer", "score"], self.layers),
        ]
        if self.classes:
            header = ["layer", "class", "mean distance between cases", "share"]
            parts.append(format_table(header, self.classes))
        if self.cases:
            header = ["case", "class", "distance over the median"]
            parts.append(format_table(header, self.cases[:_SHOWN]))
        if self.case_scores:
            parts.append(format_table(["case", "score"], self.case_scores[:_SHOWN]))
        return "\n\n".join(parts)
