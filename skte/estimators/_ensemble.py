"""Several estimators as one: their rankings of a bank, aggregated."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if

from skte._sklearn import StrOptions, fit_context
from skte.estimators._base import Diagnosis, EstimatorTags, Features, Part, TransferabilityEstimator
from skte.estimators._hscore import HScore
from skte.estimators._knn import KNN
from skte.estimators._logme import LogME
from skte.estimators._samples import Array
from skte.features import CaseFeatures, FeatureSet


def _has_score(estimator: object) -> bool:
    raise AttributeError(
        "An Ensemble has no score for a model alone: it ranks the models of a bank. Use "
        "ModelBankSelector(Ensemble(...)), or combine the part_ of each model."
    )


class Ensemble(TransferabilityEstimator):
    r"""Rank aggregation of several estimators over a bank. Higher is better.

    Each member scores every model; the members' scores have different scales, so they
    are brought to a common one over the models of the bank::

        mean_rank: - 1/M sum_m r_m           r_m the rank by member m, 1 for the best
        z_mean:      1/M sum_m (s_m - mean) / std

    Parameters
    ----------
    estimators : mapping of str to TransferabilityEstimator, optional
        The members by name. Default: `LogME`, `HScore` and `KNN`, the
        recommended ones that look at each layer alone.
    method : {"mean_rank", "z_mean"}, default="mean_rank"
        How scores are put on a common scale. Ranks do not care how far models are
        apart; "z_mean" does, and one far outlier squeezes the others together.
    weights : mapping of str to float, optional
        Weight of each member, positive. Default: equal.
    layer_reduction : {"mean", "last"}, default="mean"
        Without effect: every member has its own. Part of the common contract.

    An ensemble has no score of a model alone, and no `score`: `combine` turns the parts of a
    bank's models into scores, as `ModelBankSelector` does.

    Attributes
    ----------
    estimators_ : dict of str to TransferabilityEstimator
        The members, fitted.
    part_ : dict of str to dict
        What `combine` needs of the model.
    n_features_in_ : int
        Number of channels, when fitted on an array.

    References
    ----------
    .. [1] Agostinelli, A. et al. "How Stable are Transferability Metrics Evaluations?". ECCV
       2022. arXiv:2204.01403.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import Ensemble, HScore, LogME
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 200)
    >>> bank = [rng.normal(size=(200, 4)) + a * np.eye(4)[y] for a in (0.0, 1.0, 3.0)]
    >>> ensemble = Ensemble(estimators={"h_score": HScore(), "logme": LogME()})
    >>> parts = [ensemble.fit(X, y).part_ for X in bank]
    >>> ensemble.combine(parts).tolist()
    [-3.0, -2.0, -1.0]
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "estimators": [Mapping, None],
        "method": [StrOptions({"mean_rank", "z_mean"})],
        "weights": [Mapping, None],
    }

    def __init__(
        self,
        *,
        estimators: Mapping[str, TransferabilityEstimator] | None = None,
        method: str = "mean_rank",
        weights: Mapping[str, float] | None = None,
        layer_reduction: str = "mean",
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.estimators = estimators
        self.method = method
        self.weights = weights

    @fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: Features, y: ArrayLike | None = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """Fit every member on the features of one model; see `TransferabilityEstimator.fit`."""
        members = self._members()
        self._weights(members)
        self.estimators_: dict[str, TransferabilityEstimator] = {}
        for name, member in members.items():
            try:
                self.estimators_[name] = clone(member).fit(X, y, groups=groups)
            except ValueError as error:
                raise ValueError(f"Member {name!r} of the Ensemble: {error}") from error
        first = next(iter(self.estimators_.values()))
        if hasattr(first, "n_features_in_"):
            self.n_features_in_ = first.n_features_in_
        elif hasattr(self, "n_features_in_"):
            del self.n_features_in_
        return self

    score = available_if(_has_score)(TransferabilityEstimator.score)

    @property
    def tags(self) -> EstimatorTags:
        """What the members need between them."""
        members = [member.tags for member in self._members().values()]
        return EstimatorTags(
            labels=any(tags.labels for tags in members),
            source_head=any(tags.source_head for tags in members),
            case_sample=any(tags.case_sample for tags in members),
            joined_layers=any(tags.joined_layers for tags in members),
            relative_to_bank=True,
        )

    @property
    def part_(self) -> Part:
        """What `combine` needs to know of the model this was fitted on."""
        return {name: member.part_ for name, member in self._fitted()}

    def resample_cases(self, X: FeatureSet | Sequence[CaseFeatures], weights: ArrayLike) -> Part:
        """Return what ``resample_cases`` of each member gives, by name."""
        return {name: member.resample_cases(X, weights) for name, member in self._fitted()}

    def combine(self, parts: Sequence[Part]) -> Array:
        """Aggregate the members' scores of the models of a bank.

        `parts` are ``part_`` of this ensemble, fitted on each model.
        """
        members = self._members()
        weights = self._weights(members)
        result = np.zeros(len(parts))
        for name, member in members.items():
            if not all(isinstance(part, Mapping) and name in part for part in parts):
                raise ValueError(
                    f"combine() got a part without member {name!r}: give part_ of this ensemble, "
                    "fitted on each model, and leave out models that failed."
                )
            scores = member.combine([part[name] for part in parts])
            result += weights[name] * _on_common_scale(scores, self.method)
        return result

    def diagnose(self) -> Diagnosis:
        """Report the members' scores, as ``layers``; the ensemble's own score is NaN."""
        rows = [
            (name, float(getattr(member, "score_", np.nan)))  # a nested ensemble has none
            for name, member in self._fitted()
        ]
        return Diagnosis(type(self).__name__, float("nan"), rows)

    def _fitted(self) -> ItemsView[str, TransferabilityEstimator]:
        if not hasattr(self, "estimators_"):
            raise NotFittedError("This Ensemble is not fitted: call fit first.")
        return self.estimators_.items()

    def _members(self) -> dict[str, TransferabilityEstimator]:
        if self.estimators is None:
            return {"logme": LogME(), "hscore": HScore(), "knn": KNN()}
        wrong = [k for k, v in self.estimators.items() if not _is_member(k, v)]
        if wrong or not self.estimators:
            raise TypeError(
                "Ensemble(estimators=...) must be a non-empty mapping of names to "
                f"TransferabilityEstimator instances; wrong: {wrong}."
            )
        return dict(self.estimators)

    def _weights(self, members: Mapping[str, object]) -> dict[str, float]:
        if self.weights is None:
            return dict.fromkeys(members, 1.0 / len(members))
        usable = all(isinstance(w, Real) and 0 < w < np.inf for w in self.weights.values())
        if set(self.weights) != set(members) or not usable:
            raise ValueError(
                f"Ensemble(weights={dict(self.weights)!r}) must give every member a positive "
                f"weight; the members are {list(members)}."
            )
        total = sum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items()}

    def _score_block(self, block: Any) -> float:
        raise NotImplementedError  # members score, never the ensemble

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = all(
            member.__sklearn_tags__().input_tags.two_d_array for member in self._members().values()
        )
        return tags


def _is_member(name: object, estimator: object) -> bool:
    return isinstance(name, str) and isinstance(estimator, TransferabilityEstimator)


def _on_common_scale(scores: Array, method: str) -> Array:
    if method == "mean_rank":
        return np.asarray(-rankdata(-scores))
    finite = np.isfinite(scores)
    result = np.where(finite, 0.0, scores)
    if finite.any():
        deviations = scores[finite] - scores[finite].mean()
        spread = float(np.sqrt(np.mean(deviations**2)))
        # Equal scores have no order; what they differ by is rounding of their mean.
        if spread > 1e-12 * np.abs(scores[finite]).max():
            result[finite] = deviations / spread
    return result
