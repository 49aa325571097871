"""How well scores order the models of a target by what they reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, weightedtau

__all__ = ["Target", "Verdict", "judge", "mean_tau_p", "tau"]

Values = Sequence[float | None]


@dataclass(frozen=True)
class Target:
    """A target's models, and what fine-tuning gave.

    Attributes
    ----------
    dice : ndarray of shape (n_models, n_seeds, n_test_cases)
        Mean foreground Dice.
    n_tune_cases : int
        Cases that fine-tuning and ranking had.
    """

    name: str
    models: list[dict[str, Any]]
    dice: NDArray[np.float64]
    n_tune_cases: int

    @classmethod
    def from_result(cls, result: dict[str, Any]) -> Target:
        dice = np.array([model["dice"] for model in result["models"]], dtype=float)
        return cls(result["target"], result["models"], dice, result["study"]["n_tune_cases"])

    @property
    def performance(self) -> NDArray[np.float64]:
        """Dice of each model, mean over seeds and cases."""
        return np.asarray(self.dice.mean(axis=(1, 2)))

    @property
    def architectures(self) -> NDArray[np.str_]:
        return np.array([model["architecture"] for model in self.models])

    def seed_tau(self) -> float:
        """Agreement of single seeds: mean over their pairs."""
        by_seed = self.dice.mean(axis=2).T
        return float(np.mean([tau(a, b) for a, b in combinations(by_seed, 2)]))

    def seed_error(self) -> float:
        """Standard error, from seeds, of a model's mean Dice; pooled over models."""
        by_seed = self.dice.mean(axis=2)
        return float(np.sqrt(by_seed.var(axis=1, ddof=1).mean() / by_seed.shape[1]))

    def ceiling(self, n_draws: int = 1000, *, within: bool = False) -> float:
        """The tau that knowing every model's true Dice would reach on this ground truth.

        With ``within``, the mean over architectures of that among their own models.

        True values are taken as far apart as the observed means are beyond what seeds
        explain (James-Stein); what is measured adds an error of the seeds' size to them.
        """
        error = self.seed_error()
        observed = self.performance
        spread = max(0.0, 1 - error**2 / observed.var(ddof=1))
        true = observed.mean() + np.sqrt(spread) * (observed - observed.mean())
        noise = np.random.default_rng(0).normal(scale=error, size=(n_draws, len(true)))
        if within:
            noisy = [replace(self, dice=(true + one)[:, None, None]) for one in noise]
            return float(np.mean([_within(one, true) for one in noisy]))
        return float(np.mean([tau(true + one, true) for one in noise]))


@dataclass(frozen=True)
class Verdict:
    """One estimator on one target."""

    tau: float
    pearson: float
    regret_1: float
    regret_3: float
    within: float
    standard_error: float


def judge(target: Target, scores: Values, left_out: Sequence[Values] = ()) -> Verdict:
    """Compare scores with performances; `left_out` are the scores without each case.

    The standard error is a jackknife over both kinds of cases: those that were ranked on
    and those that Dice was measured on.
    """
    performance, filled = target.performance, last_if_missing(scores)
    order = np.argsort(-filled, kind="stable")
    finite = np.isfinite(_floats(scores))
    taus = [tau(performance, last_if_missing(one)) for one in left_out]
    n_test = target.dice.shape[2]
    without = [np.delete(target.dice, i, axis=2).mean(axis=(1, 2)) for i in range(n_test)]
    variance = _jackknife(taus) + _jackknife([tau(one, filled) for one in without])
    return Verdict(
        tau=tau(performance, filled),
        pearson=float(pearsonr(performance[finite], _floats(scores)[finite]).statistic),
        regret_1=100 * float(performance.max() - performance[order[:1]].max()),
        regret_3=100 * float(performance.max() - performance[order[:3]].max()),
        within=_within(target, filled),
        standard_error=float(np.sqrt(variance)),
    )


def tau(performance: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Weighted Kendall; 0 where all scores are alike, since these order nothing."""
    if np.ptp(scores) == 0:
        return 0.0
    return float(weightedtau(performance, scores).statistic)


def last_if_missing(scores: Values) -> NDArray[np.float64]:
    """Models without a score, and collapsed ones, rank last, tied."""
    values = _floats(scores)
    finite = np.isfinite(values)
    low = values[finite].min() if finite.any() else 0.0
    return np.where(finite, values, low - 1.0)


def mean_tau_p(
    targets: Sequence[Target], scores: Sequence[Values], n_permutations: int = 2000
) -> float:
    """Probability that random orders reach the mean of the taus over targets."""
    rng = np.random.default_rng(0)
    lists = [(t.performance, last_if_missing(s)) for t, s in zip(targets, scores, strict=True)]
    observed = np.mean([tau(a, b) for a, b in lists])
    reached = 0
    for _ in range(n_permutations):
        reached += np.mean([tau(a, rng.permutation(b)) for a, b in lists]) >= observed
    return (reached + 1) / (n_permutations + 1)


def _within(target: Target, scores: NDArray[np.float64]) -> float:
    """Mean over architectures of the tau among their own models."""
    taus = []
    for architecture in np.unique(target.architectures):
        own = target.architectures == architecture
        if own.sum() >= 3:
            taus.append(tau(target.performance[own], scores[own]))
    return float(np.mean(taus))


def _jackknife(values: Sequence[float]) -> float:
    """Variance of a statistic, from its values with each case left out."""
    n = len(values)
    return float((n - 1) * np.var(values)) if n else 0.0


def _floats(scores: Values) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in scores], dtype=float)
