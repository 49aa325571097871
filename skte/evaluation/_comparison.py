"""Which of several estimators ranks better, and whether the difference is chance."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, studentized_range

from skte._table import format_table
from skte.bank import BankLike, load_bank
from skte.datasets import DatasetLike
from skte.estimators import TransferabilityEstimator
from skte.evaluation._card import check_draws
from skte.extraction import FeatureCache, SegmentationFeatureExtractor
from skte.metrics import align_performance, weighted_kendall_rows, weighted_kendall_score
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
    mean_ranks : ndarray of shape (n_estimators,)
        Mean over targets of the rank by agreement, 1 for the best.
    critical_difference : float
        Of mean ranks, by Nemenyi [1]_; NaN with a single target.
    pairs : sequence of EstimatorPair
        Each estimator against each other.
    confidence_level : float
        Of intervals and of the critical difference.

    References
    ----------
    .. [1] Demsar, J. "Statistical Comparisons of Classifiers over Multiple Data Sets".
       JMLR 7 (2006).
    """

    names: Sequence[str]
    targets: Sequence[str]
    n_models: Sequence[int]
    weighted_kendall: NDArray[np.float64]
    mean_ranks: NDArray[np.float64]
    critical_difference: float
    pairs: Sequence[EstimatorPair]
    confidence_level: float

    def cliques(self) -> list[tuple[str, ...]]:
        """Group estimators whose mean ranks are no different, best first; none with one target."""
        if np.isnan(self.critical_difference):
            return []
        order = np.argsort(self.mean_ranks, kind="stable")
        ranks = self.mean_ranks[order]
        found: list[tuple[int, int]] = []
        for i in range(len(order)):
            last = int(np.searchsorted(ranks, ranks[i] + self.critical_difference, "right")) - 1
            if last > i and (not found or last > found[-1][1]):
                found.append((i, last))
        return [tuple(self.names[int(k)] for k in order[i : j + 1]) for i, j in found]

    def __str__(self) -> str:
        """Lay out agreement, ranks and pairs."""
        order = np.argsort(self.mean_ranks, kind="stable")
        heads = [f"{t} (K={n})" for t, n in zip(self.targets, self.n_models, strict=True)]
        rows = [
            [
                self.names[i],
                *(round(float(tau), 3) for tau in self.weighted_kendall[i]),
                round(float(self.weighted_kendall[i].mean()), 3),
                round(float(self.mean_ranks[i]), 2),
            ]
            for i in order
        ]
        parts = [format_table(["weighted Kendall", *heads, "mean", "mean rank"], rows)]
        if not np.isnan(self.critical_difference):
            parts.append(
                f"critical difference of mean ranks {self.critical_difference:.2f}; no different: "
                + ("; ".join(", ".join(one) for one in self.cliques()) or "none")
            )
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


def compare_estimators(
    estimators: Mapping[str, TransferabilityEstimator],
    bank: BankLike | Mapping[str, BankLike],
    dataset: DatasetLike | Mapping[str, DatasetLike],
    performance: Any,
    *,
    extractor: SegmentationFeatureExtractor | None = None,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    n_jobs: int | None = None,
    device: str | torch.device | None = None,
    cache: str | os.PathLike[str] | FeatureCache | None = None,
    random_state: int = 0,
) -> EstimatorComparison:
    """Score banks with several estimators, one extraction per model, and compare them.

    Parameters
    ----------
    estimators : mapping of str to TransferabilityEstimator
        Two or more.
    bank : ModelBank, dict of str to nn.Module, list of BankEntry, or path
        The models; with several targets, also a mapping of their names to banks.
    dataset : list of Subject, SubjectsDataset, list of dict, path, or mapping of these
        The target; with several, a mapping of their names to datasets.
    performance : array-like, mapping of name to float, or mapping of these
        What each model reached; with several targets, a mapping of their names to such.
    extractor, n_jobs, device, cache, random_state
        As for `ModelBankSelector`.
    confidence_level, n_resamples
        As for `compare_scores`.

    Returns
    -------
    EstimatorComparison
        Prints as a table.

    Raises
    ------
    SkteError
        As for `ModelBankSelector`; a model that fails for one estimator fails all.
    """
    if not isinstance(estimators, Mapping) or len(estimators) < 2:
        raise ValueError("estimators must map names to two estimators or more.")
    targets: Any = dataset
    banks: Any = bank
    reached = performance
    if not isinstance(targets, Mapping):
        targets, reached = {"target": targets}, {"target": reached}
    if not isinstance(reached, Mapping) or set(targets) != set(reached):
        raise ValueError("dataset and performance must be mappings that differ in no key.")
    if not isinstance(banks, Mapping) or set(banks) != set(targets):
        banks = dict.fromkeys(targets, bank)
    selector = ModelBankSelector(
        dict(estimators), extractor=extractor, n_jobs=n_jobs, device=device, cache=cache,
        random_state=random_state, reference=False,
    )  # fmt: skip
    scores: dict[str, dict[str, Values]] = {}
    aligned: dict[str, Values] = {}
    for target, cases in targets.items():
        models = load_bank(banks[target])
        aligned[target] = align_performance(reached[target], models.names)
        results = selector.fit(models, cases).results_
        scores[target] = {name: results[f"score_{name}"] for name in estimators}
    return compare_scores(
        scores,
        performance=aligned,
        confidence_level=confidence_level,
        n_resamples=n_resamples,
        random_state=random_state,
    )


def compare_scores(
    scores: Mapping[str, Mapping[str, ArrayLike]],
    *,
    performance: Mapping[str, ArrayLike],
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    random_state: int = 0,
) -> EstimatorComparison:
    """Compare estimators by the scores they gave the models of one target or several.

    Parameters
    ----------
    scores : mapping of str to mapping of str to array-like
        By target and estimator; every target has the same estimators.
    performance : mapping of str to array-like
        By target: what its models reached, in the order of the scores.
    confidence_level : float, default=0.95
        Of the critical difference and of intervals.
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
    targets, names = _checked_names(scores, performance)
    reached = [np.asarray(performance[t], dtype=np.float64) for t in targets]
    given = [[np.asarray(scores[t][n], dtype=np.float64) for n in names] for t in targets]
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
    mean_ranks = np.mean([rankdata(-taus[:, t]) for t in range(len(targets))], axis=0)
    return EstimatorComparison(
        names=tuple(names),
        targets=tuple(targets),
        n_models=tuple(len(p) for p in reached),
        weighted_kendall=taus,
        mean_ranks=mean_ranks,
        critical_difference=_critical_difference(len(names), len(targets), confidence_level),
        pairs=_holm(pairs),
        confidence_level=float(confidence_level),
    )


def _checked_names(
    scores: Mapping[str, Mapping[str, ArrayLike]], performance: Mapping[str, ArrayLike]
) -> tuple[list[str], list[str]]:
    if not scores or set(scores) != set(performance):
        raise ValueError(f"Targets of scores {sorted(scores)} and of performance "
                         f"{sorted(performance)} must be the same.")  # fmt: skip
    targets = list(scores)
    names = list(scores[targets[0]])
    wrong = [t for t in targets if set(scores[t]) != set(names)]
    if wrong or len(names) < 2:
        raise ValueError(
            f"Every target needs scores of the same estimators, two or more; {targets[0]!r} has "
            f"{names}, others: {wrong}."
        )
    return targets, names


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


def _critical_difference(n_names: int, n_targets: int, level: float) -> float:
    """Nemenyi's: mean ranks that differ by less are no different. NaN with one target."""
    if n_targets < 2:
        return float("nan")
    q = float(studentized_range.ppf(level, n_names, np.inf)) / np.sqrt(2.0)
    return float(q * np.sqrt(n_names * (n_names + 1) / (6.0 * n_targets)))


def _holm(pairs: list[EstimatorPair]) -> tuple[EstimatorPair, ...]:
    order = np.argsort([pair.pvalue for pair in pairs], kind="stable")
    adjusted, largest = list(pairs), 0.0
    for place, k in enumerate(order):
        largest = max(largest, min(1.0, (len(pairs) - place) * pairs[k].pvalue))
        adjusted[k] = pairs[k]._replace(adjusted_pvalue=largest)
    return tuple(adjusted)
