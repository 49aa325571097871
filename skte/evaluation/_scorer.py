"""A scikit-learn scorer that judges the rankings a pipeline gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from skte.bank import BankLike, ModelBank, load_bank
from skte.metrics import align_performance, weighted_kendall_score

__all__ = ["BankScorer", "make_bank_scorer"]


@dataclass(frozen=True, eq=False, repr=False)
class BankScorer:
    """Scorer of a pipeline's parameters by how well it ranks a bank; see `make_bank_scorer`."""

    bank: ModelBank
    performance: ArrayLike
    metric: Callable[[ArrayLike, ArrayLike], float]
    entry_parameter: str

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        """Score every model of the bank on the cases `X`, and the order that results."""
        scores = []
        for entry in self.bank:
            pipeline = clone(estimator).set_params(**{self.entry_parameter: entry})
            scores.append(pipeline.fit(X)[-1].score_)
        return self.metric(self.performance, np.array(scores))

    def __repr__(self) -> str:
        return f"make_bank_scorer({len(self.bank)} models, {self.metric.__name__})"


def make_bank_scorer(
    bank: BankLike,
    performance: ArrayLike | Mapping[str, float],
    *,
    metric: Callable[[ArrayLike, ArrayLike], float] = weighted_kendall_score,
    entry_parameter: str = "extract__entry",
) -> BankScorer:
    """Make a scorer for searching the parameters of an extract-and-score pipeline.

    For each model of a bank whose true performances are known, the scorer fits the
    pipeline on the cases it is given, and returns how well the scores order the
    models. That makes the criterion of ``GridSearchCV`` the ranking itself.

    Parameters
    ----------
    bank : ModelBank, dict of str to nn.Module, list of BankEntry, or path
        Models whose performance is known.
    performance : array-like of shape (n_models,) or mapping of name to float
        What each model reached after fine-tuning, in bank order or by name.
    metric : callable, default=weighted_kendall_score
        ``metric(performance, scores) -> float``, higher is better.
    entry_parameter : str, default="extract__entry"
        The pipeline's parameter that takes a bank entry.

    Returns
    -------
    callable
        ``scorer(pipeline, X, y=None) -> float``; can be pickled.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import Pipeline
    >>> from torch import nn
    >>> from skte import CCFV, SegmentationFeatureExtractor
    >>> from skte.bank import load_bank
    >>> from skte.datasets import make_phantoms
    >>> from skte.evaluation import make_bank_scorer
    >>> cases = make_phantoms(4, size=(12, 12, 12))
    >>> bank = load_bank({
    ...     name: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    ...     for name in "abc"
    ... })
    >>> extract = SegmentationFeatureExtractor(bank["a"], n_class_samples=50)
    >>> pipeline = Pipeline([("extract", extract), ("score", CCFV())])
    >>> scorer = make_bank_scorer(bank, {"a": 0.6, "b": 0.7, "c": 0.8})
    >>> search = GridSearchCV(pipeline, {"score__s": [0.5, 1.0]}, scoring=scorer, cv=2)
    >>> sorted(search.fit(cases).best_params_)
    ['score__s']
    """
    models = load_bank(bank)
    return BankScorer(models, align_performance(performance, models.names), metric, entry_parameter)
