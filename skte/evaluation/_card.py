"""Compare rankings with true performances: an evaluation card, and a scorer for searches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from skte._table import format_table
from skte.bank import BankLike, ModelBank, load_bank
from skte.metrics import (
    align_performance,
    pearson_score,
    regret_at_k,
    spearman_score,
    weighted_kendall_rows,
    weighted_kendall_score,
    weighted_kendall_test,
)
from skte.selection import ModelBankSelector, Ranking

_FEWEST = 3
_FEWEST_DRAWN = 6  # of fewer, draws with replacement give -1 to 1, or the same number twice
_FOR_NULL = 2000
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Agreement of one list of scores with true performances.

    Attributes
    ----------
    method : str
        What the scores are of.
    weighted_kendall, pearson, spearman : float
        In [-1, 1]; NaN where all scores are equal, or infinite (Pearson).
    pvalue : float
        Share of random orders that agree as well, see `weighted_kendall_test`.
    interval : tuple of float
        Of the weighted Kendall, had other models been in the bank (bootstrap over models); NaN
        with fewer than six models, which are too few to draw from.
    regret : mapping of int to float
        By k: the best performance less the best one of the k models scored highest.
    """

    method: str
    weighted_kendall: float
    pvalue: float
    interval: tuple[float, float]
    pearson: float
    spearman: float
    regret: Mapping[int, float]


@dataclass(frozen=True)
class WithinArchitecture:
    """Agreement among the models of one architecture, at least three; fields as in `Agreement`."""

    method: str
    architecture: str
    n_models: int
    weighted_kendall: float
    pvalue: float


@dataclass(frozen=True)
class EvaluationCard:
    """What belongs beside a correlation with true performances. Prints as text.

    Attributes
    ----------
    n_models : int
        Models compared.
    excluded : sequence of str
        Models without a score or a performance.
    rows : sequence of Agreement
        The scores first, then the baselines.
    within : sequence of WithinArchitecture
        Empty where architectures are not given.
    confidence_level : float
        Of the intervals.
    null_std : float
        Standard deviation of the weighted Kendall of random orders of as many models.
    """

    n_models: int
    excluded: Sequence[str]
    rows: Sequence[Agreement]
    within: Sequence[WithinArchitecture]
    confidence_level: float
    null_std: float

    def __getitem__(self, method: str) -> Agreement:
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(f"{method!r}; the card has {[row.method for row in self.rows]}.")

    def __str__(self) -> str:
        """Lay out the tables, with what chance gives for as many models."""
        sure = f"{100 * self.confidence_level:g} % interval"
        ks = list(self.rows[0].regret)
        header = ["", "weighted Kendall", sure, "p", "Pearson", "Spearman"]
        rows = [
            [
                row.method,
                _rounded(row.weighted_kendall),
                "-" if np.isnan(row.interval[0]) else "{:.2f} to {:.2f}".format(*row.interval),
                _rounded(row.pvalue, 4),
                _rounded(row.pearson),
                _rounded(row.spearman),
                *(_rounded(row.regret[k], 4) for k in ks),
            ]
            for row in self.rows
        ]
        parts = [
            f"{self.n_models} models; random orders have a weighted Kendall of 0 ± "
            f"{self.null_std:.2f}",
            format_table([*header, *(f"regret@{k}" for k in ks)], rows),
        ]
        if self.n_models < _FEWEST_DRAWN:
            parts.append(
                f"{self.n_models} models are too few for an interval: it takes {_FEWEST_DRAWN}. By "
                "chance alone, orders of so few models agree often."
            )
        if self.within:
            table = [
                [one.method, one.architecture, one.n_models, _rounded(one.weighted_kendall),
                 _rounded(one.pvalue, 4)]
                for one in self.within
            ]  # fmt: skip
            header = ["", "within", "models", "weighted Kendall", "p"]
            parts.append(format_table(header, table))
        if self.excluded:
            parts.append("left out, without score or performance: " + ", ".join(self.excluded))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Turn the card into plain values for JSON; NaN becomes None."""
        return dict(_plain(asdict(self)))

    def to_json(self) -> str:
        """Turn the card into JSON text without a final newline."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


def _rounded(value: float, digits: int = 3) -> float:
    return round(float(value), digits)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def evaluate_ranking(
    scores: ArrayLike | Mapping[str, Any] | Ranking | ModelBankSelector,
    *,
    performance: ArrayLike | Mapping[str, float],
    names: Sequence[str] | None = None,
    size: ArrayLike | Mapping[str, float] | None = None,
    zero_shot: ArrayLike | Mapping[str, float] | None = None,
    architecture: Sequence[str] | Mapping[str, str] | None = None,
    ks: Sequence[int] = (1, 3),
    confidence_level: float = 0.9,
    n_resamples: int = 2000,
    random_state: int = 0,
) -> EvaluationCard:
    """Judge scores by the performances that models reached.

    Parameters
    ----------
    scores : array-like of shape (n_models,), mapping, Ranking or ModelBankSelector
        Transferability scores; a mapping of name to score, or of a method's name to scores
        of any of these kinds; of a fitted selector, every estimator's. ``-inf`` is last.
    performance : array-like of shape (n_models,) or mapping of name to float
        What each model reached after fine-tuning, such as Dice.
    names : sequence of str, optional
        Names of the models, for lists in their order.
    size, zero_shot : array-like or mapping, optional
        Of each model, for baselines: its size, and its performance on the target as it is
        (NaN where a head does not fit, which is last).
    architecture : sequence of str or mapping, optional
        Of each model: agreement is then given within each one as well.
    ks : sequence of int, default=(1, 3)
        For the regret; those above the number of models are left out.
    confidence_level : float, default=0.9
        Of the intervals of the weighted Kendall.
    n_resamples : int, default=2000
        Draws of the models with replacement, whose percentiles are the intervals.
    random_state : int, default=0
        Seed of draws and of permutations.

    Returns
    -------
    EvaluationCard
        Prints as a table; ``to_json()``.

    Raises
    ------
    ValueError
        If fewer than three models have both, or lists or names do not fit.

    Examples
    --------
    >>> from skte.evaluation import evaluate_ranking
    >>> reached = {"a": 0.71, "b": 0.78, "c": 0.83, "d": 0.85}
    >>> card = evaluate_ranking({"a": -3.0, "b": -2.5, "c": -1.0, "d": -0.5}, performance=reached)
    >>> card.rows[0].weighted_kendall, card["score"].regret[1]
    (1.0, 0.0)
    """
    check_draws(confidence_level, n_resamples)
    if not len(ks) or not all(isinstance(k, Integral) and k >= 1 for k in ks):
        raise ValueError(f"ks must hold positive integers, got {ks!r}.")
    methods = methods_of(scores)
    models = model_names(methods, performance, names)
    reached = aligned("performance", performance, models)
    columns = {name: aligned(name, given, models) for name, given in methods.items()}
    for name, given in (("size", size), ("zero-shot", zero_shot)):
        if given is not None:
            if name in columns:
                raise ValueError(f"{name!r} is the name of a baseline: name the scores otherwise.")
            found = aligned(name, given, models)
            columns[name] = np.where(np.isnan(found), -np.inf, found)
    kept = np.isfinite(reached) & ~np.isnan(np.stack(list(columns.values()))).any(axis=0)
    if kept.sum() < _FEWEST:
        raise ValueError(f"{kept.sum()} models have score and performance; at least 3 are needed.")
    kinds = _architectures(architecture, models)
    settings = (ks, confidence_level, n_resamples, random_state)
    rows, within = [], []
    for method, values in columns.items():
        rows.append(_agreement(method, reached[kept], values[kept], *settings))
        if kinds is not None:
            own = kinds[kept]
            within += _within(method, reached[kept], values[kept], own, random_state)
    return EvaluationCard(
        n_models=int(kept.sum()),
        excluded=[str(models[i]) for i in np.flatnonzero(~kept)],
        rows=rows,
        within=within,
        confidence_level=float(confidence_level),
        null_std=_null_std(reached[kept], random_state),
    )


def check_level(name: str, value: object) -> None:
    """Refuse what is not a number between 0 and 1."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must be a number between 0 and 1, got {value!r}.")


def check_draws(confidence_level: float, n_resamples: int) -> None:
    """Refuse settings of an interval that draws cannot give."""
    check_level("confidence_level", confidence_level)
    if not isinstance(n_resamples, Integral) or n_resamples < 100:
        raise ValueError(f"n_resamples must be an integer of at least 100, got {n_resamples!r}.")


def methods_of(scores: Any) -> dict[str, Any]:
    """Scores by the name of their method."""
    if isinstance(scores, ModelBankSelector):
        check_is_fitted(scores, "results_")
        columns = {
            key or type(estimator).__name__: scores.results_[f"score_{key}" if key else "score"]
            for key, estimator in scores.estimators_.items()
        }
        # In bank order, which is that of a list of performances.
        return {k: dict(zip(scores.names_, v.tolist(), strict=True)) for k, v in columns.items()}
    if isinstance(scores, BaseEstimator):
        wanted = "numbers, a mapping, a Ranking or a fitted ModelBankSelector"
        raise TypeError(f"scores are {wanted}, got {type(scores).__name__}.")
    if isinstance(scores, Mapping) and not isinstance(scores, Ranking):
        if not scores:
            raise ValueError("scores are an empty mapping: give one score per model.")
        if not all(isinstance(value, Real) for value in scores.values()):
            return {str(name): value for name, value in scores.items()}
    return {"score": scores}


def model_names(
    methods: Mapping[str, Any], performance: Any, names: Sequence[str] | None = None
) -> list[str]:
    """Models of the scores, in their order."""
    if names is not None:
        return list(names)
    for given in (*methods.values(), performance):
        if isinstance(given, Ranking):
            return list(given.names)
        if isinstance(given, Mapping):
            return list(given)
    return [str(i) for i in range(len(np.asarray(performance, dtype=np.float64)))]


def aligned(what: str, given: Any, models: Sequence[str]) -> Values:
    """One number per model; NaN for models that a mapping lacks."""
    if isinstance(given, Ranking):
        given = dict(zip(given.names, given.scores.tolist(), strict=True))
    if isinstance(given, Mapping):
        if not any(name in given for name in models):
            raise ValueError(f"{what} names none of the models {list(models)[:5]}.")
        given = [float(given.get(name, np.nan)) for name in models]
    return align_performance(given, models, what)


def _architectures(
    given: Sequence[str] | Mapping[str, str] | None, models: Sequence[str]
) -> NDArray[Any] | None:
    if given is None:
        return None
    if isinstance(given, Mapping):
        missing = [name for name in models if name not in given]
        if missing:
            raise ValueError(f"architecture lacks the models {missing}.")
        return np.array([str(given[name]) for name in models])
    if isinstance(given, str) or len(given) != len(models):
        raise ValueError(f"architecture must name one for each of the {len(models)} models.")
    return np.array([str(one) for one in given])


def _agreement(
    method: str,
    performance: Values,
    scores: Values,
    ks: Sequence[int],
    confidence_level: float,
    n_resamples: int,
    random_state: int,
) -> Agreement:
    tau, pvalue = _kendall(performance, scores, random_state)
    pearson = spearman = low = high = float("nan")
    if not np.isnan(tau):
        spearman = spearman_score(performance, scores)
        if np.isfinite(scores).all():
            pearson = pearson_score(performance, scores)
        if len(scores) >= _FEWEST_DRAWN:
            rng = np.random.default_rng(random_state)
            drawn = rng.integers(len(scores), size=(n_resamples, len(scores)))
            taus = weighted_kendall_rows(rankdata(performance)[drawn], rankdata(scores)[drawn])
            tail = (1 - confidence_level) / 2
            low, high = np.nanquantile(taus, [tail, 1 - tail]).tolist()
    regret = {int(k): regret_at_k(performance, scores, int(k)) for k in ks if k <= len(performance)}
    return Agreement(method, tau, pvalue, (low, high), pearson, spearman, regret)


def _kendall(performance: Values, scores: Values, random_state: int) -> tuple[float, float]:
    """Weighted Kendall and its p-value; NaN where a list is constant."""
    if (performance == performance[0]).all() or (scores == scores[0]).all():
        return float("nan"), float("nan")
    test = weighted_kendall_test(performance, scores, random_state=random_state)
    return test.statistic, test.pvalue


def _within(
    method: str, performance: Values, scores: Values, kinds: NDArray[Any], random_state: int
) -> list[WithinArchitecture]:
    found = []
    for kind in np.unique(kinds):
        own = kinds == kind
        if own.sum() >= _FEWEST:
            test = _kendall(performance[own], scores[own], random_state)
            found.append(WithinArchitecture(method, str(kind), int(own.sum()), *test))
    return found


def _null_std(performance: Values, random_state: int) -> float:
    if (performance == performance[0]).all():
        return float("nan")
    order = np.arange(len(performance), dtype=np.float64)
    test = weighted_kendall_test(
        performance, order, n_permutations=_FOR_NULL, random_state=random_state
    )
    return test.null_std


def _score_bank(
    pipeline: Any,
    X: Any,
    y: Any = None,
    *,
    bank: ModelBank,
    performance: ArrayLike,
    metric: Callable[[ArrayLike, ArrayLike], float],
    entry_parameter: str,
) -> float:
    """Score every model of the bank on the cases `X`, and the order that results."""
    entries = [clone(pipeline).set_params(**{entry_parameter: entry}).fit(X) for entry in bank]
    return metric(performance, np.array([fitted[-1].score_ for fitted in entries]))


def make_bank_scorer(
    bank: BankLike,
    performance: ArrayLike | Mapping[str, float],
    *,
    metric: Callable[[ArrayLike, ArrayLike], float] = weighted_kendall_score,
    entry_parameter: str = "extract__entry",
) -> Callable[..., float]:
    """Make a scorer for searching the parameters of an extract-and-score pipeline.

    It fits the pipeline for each model of the bank on the cases it is given, and returns how
    well the scores order the models.

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
    >>> bank = load_bank({
    ...     name: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    ...     for name in "abc"
    ... })
    >>> extract = SegmentationFeatureExtractor(bank["a"], n_class_samples=50)
    >>> pipeline = Pipeline([("extract", extract), ("score", CCFV())])
    >>> scorer = make_bank_scorer(bank, {"a": 0.6, "b": 0.7, "c": 0.8})
    >>> search = GridSearchCV(pipeline, {"score__s": [0.5, 1.0]}, scoring=scorer, cv=2)
    >>> sorted(search.fit(make_phantoms(4, size=(12, 12, 12))).best_params_)
    ['score__s']
    """
    models = load_bank(bank)
    return partial(
        _score_bank,
        bank=models,
        performance=align_performance(performance, models.names),
        metric=metric,
        entry_parameter=entry_parameter,
    )
