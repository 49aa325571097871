"""Which of several estimators ranks better, and whether the difference is chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from skte._table import format_table
from skte.evaluation._card import aligned, check_draws, methods_of, model_names
from skte.metrics import weighted_kendall_rows, weighted_kendall_score
from skte.selection import ModelBankSelector

Values = NDArray[np.float64]


class EstimatorPair(NamedTuple):
    """One estimator against another.

    Attributes
    ----------
    first, second : str
        Their names.
    difference : float
        Of their weighted Kendalls, mean over targets; positive where the first is better.
    interval : tuple of float
        Of the difference, over draws of the models.
    pvalue, adjusted_pvalue : float
        Of the difference, two-sided (see `compare_scores`); by Holm's method, for all pairs.
    """

    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    pvalue: float
    adjusted_pvalue: float


@dataclass(frozen=True, eq=False)
class EstimatorComparison:
    """Agreement of several estimators with true performances. Prints as a text.

    Attributes
    ----------
    names : sequence of str
        Estimators.
    targets : sequence of str
        Datasets.
    n_models : sequence of int
        Models of each target.
    weighted_kendall : ndarray of shape (n_estimators, n_targets)
        Agreement.
    pairs : sequence of EstimatorPair
        Each estimator against each other.
    confidence_level : float
        Of intervals.
    """

    names: Sequence[str]
    targets: Sequence[str]
    n_models: Sequence[int]
    weighted_kendall: NDArray[np.float64]
    pairs: Sequence[EstimatorPair]
    confidence_level: float

    def __str__(self) -> str:
        """Lay out agreement, the best first, and pairs."""
        means = self.weighted_kendall.mean(axis=1)
        order = np.argsort(-means, kind="stable")
        heads = [f"{t} (K={n})" for t, n in zip(self.targets, self.n_models, strict=True)]
        rows = [
            [
                self.names[i],
                *(round(float(tau), 3) for tau in self.weighted_kendall[i]),
                round(float(means[i]), 3),
            ]
            for i in order
        ]
        parts = [format_table(["weighted Kendall", *heads, "mean"], rows)]
        table = [
            [
                f"{p.first} - {p.second}",
                round(p.difference, 3),
                "{:.2f} to {:.2f}".format(*p.interval),
                round(p.pvalue, 4),
                round(p.adjusted_pvalue, 4),
            ]
            for p in self.pairs
        ]
        sure = f"{100 * self.confidence_level:g} % interval"
        parts.append(format_table(["", "difference", sure, "p", "p (Holm)"], table))
        return "\n\n".join(parts)


def compare_scores(
    scores: Mapping[str, Mapping[str, Any] | ModelBankSelector],
    *,
    performance: Mapping[str, ArrayLike | Mapping[str, float]],
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    random_state: int = 0,
) -> EstimatorComparison:
    """Compare estimators by the scores they gave the models of one target or several.

    Parameters
    ----------
    scores : mapping of str to mapping of str to array-like or mapping
        By target: a fitted `ModelBankSelector` of several estimators, or the scores of each one,
        as in `evaluate_ranking`. Every target has the same estimators.
    performance : mapping of str to array-like or mapping of name to float
        By target: what its models reached, by name or in the order of the scores (of a selector,
        in bank order).
    confidence_level : float, default=0.95
        Of intervals.
    n_resamples : int, default=2000
        Draws, for tests and intervals; seeded by `random_state`.
    random_state : int, default=0
        Seed of the draws.

    Returns
    -------
    EstimatorComparison
        Prints as a table.

    Notes
    -----
    The test of two estimators swaps the ranks that both gave a model, for every model by
    chance. The difference is the mean over targets.

    Examples
    --------
    >>> from skte.evaluation import compare_scores
    >>> reached = {"spleen": [0.6, 0.7, 0.8, 0.85, 0.9]}
    >>> good, bad = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 5.0, 1.0, 4.0, 3.0]
    >>> comparison = compare_scores({"spleen": {"good": good, "bad": bad}}, performance=reached)
    >>> float(comparison.weighted_kendall[0, 0]), comparison.pairs[0].pvalue > 0.05
    (1.0, True)
    """
    check_draws(confidence_level, n_resamples)
    names, given, reached = _columns(scores, performance)
    taus = np.array(
        [[weighted_kendall_score(p, s) for p, s in zip(reached, column, strict=True)]
         for column in zip(*given, strict=True)]
    )  # fmt: skip
    rng = np.random.default_rng(random_state)
    orders = [rankdata(one) for one in reached]
    pairs = []
    for i, j in combinations(range(len(names)), 2):
        ranks = [(rankdata(column[i]), rankdata(column[j])) for column in given]
        difference = float((taus[i] - taus[j]).mean())
        pvalue = _swap_test(orders, ranks, difference, n_resamples, rng)
        span = _difference_interval(orders, ranks, confidence_level, n_resamples, rng)
        pairs.append(EstimatorPair(names[i], names[j], difference, span, pvalue, pvalue))
    return EstimatorComparison(
        names=tuple(names),
        targets=tuple(scores),
        n_models=tuple(len(p) for p in reached),
        weighted_kendall=taus,
        pairs=_holm(pairs),
        confidence_level=float(confidence_level),
    )


def _columns(
    scores: Mapping[str, Any], performance: Mapping[str, Any]
) -> tuple[list[str], list[list[Values]], list[Values]]:
    """Names of estimators; by target, their scores and the performances of the same models."""
    if not scores or set(scores) != set(performance):
        raise ValueError(f"Targets of scores {sorted(scores)} and of performance "
                         f"{sorted(performance)} must be the same.")  # fmt: skip
    methods = {target: methods_of(given) for target, given in scores.items()}
    first = next(iter(methods))
    names = list(methods[first])
    wrong = [target for target, found in methods.items() if set(found) != set(names)]
    if wrong or len(names) < 2:
        raise ValueError(
            f"Every target needs scores of the same estimators, two or more; {first!r} has "
            f"{names}, others: {wrong}."
        )
    given, reached = [], []
    for target, found in methods.items():
        models = model_names(found, performance[target])
        reached.append(aligned("performance", performance[target], models))
        given.append([aligned(name, found[name], models) for name in names])
    return names, given, reached


def _swap_test(
    reached: list[Values],
    ranks: list[tuple[Values, Values]],
    difference: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> float:
    """Share of swaps after which the estimators differ as much; the given one is one more."""
    found = np.zeros(n_resamples)
    for performance, (a, b) in zip(reached, ranks, strict=True):
        swap = rng.random((n_resamples, len(a))) < 0.5
        found += _taus(performance, np.where(swap, b, a))
        found -= _taus(performance, np.where(swap, a, b))
    reaching = np.count_nonzero(np.abs(found) / len(reached) >= abs(difference) - 1e-12)
    return (1 + int(reaching)) / (n_resamples + 1)


def _taus(performance: Values, ranks: Values) -> Values:
    """Weighted Kendalls; lists that swaps or draws made constant agree with nothing."""
    return np.nan_to_num(weighted_kendall_rows(performance, ranks))


def _difference_interval(
    reached: list[Values],
    ranks: list[tuple[Values, Values]],
    confidence_level: float,
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Percentiles over draws of the models of every target."""
    found = np.zeros(n_resamples)
    for performance, (a, b) in zip(reached, ranks, strict=True):
        rows = rng.integers(len(a), size=(n_resamples, len(a)))
        kept = performance[rows]
        found += (_taus(kept, a[rows]) - _taus(kept, b[rows])) / len(reached)
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _holm(pairs: list[EstimatorPair]) -> tuple[EstimatorPair, ...]:
    order = np.argsort([pair.pvalue for pair in pairs], kind="stable")
    adjusted, largest = list(pairs), 0.0
    for place, k in enumerate(order):
        largest = max(largest, min(1.0, (len(pairs) - place) * pairs[k].pvalue))
        adjusted[k] = pairs[k]._replace(adjusted_pvalue=largest)
    return tuple(adjusted)
