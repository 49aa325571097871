"""How the demo's scores agree with fine-tuning: tables and what they cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skte._table import format_table
from skte.metrics import WeightedKendallResult, rank_scores, regret_at_k, weighted_kendall_test

__all__ = ["Agreement", "agreement_table", "agreements", "caveats", "model_table"]


@dataclass(frozen=True)
class Agreement:
    """How well one list of scores orders the models.

    Attributes
    ----------
    name : str
        The estimator or baseline.
    kendall : WeightedKendallResult or None
        None where a list is constant, so that it has no order.
    regret : float
        Dice lost by taking the model that is ranked first.
    """

    name: str
    kendall: WeightedKendallResult | None
    regret: float


def agreements(
    dice: NDArray[np.float64], scores: Mapping[str, NDArray[np.float64]]
) -> list[Agreement]:
    """Compare each list of scores, shape (n_models,), with the Dice, same shape."""
    return [
        Agreement(
            name,
            weighted_kendall_test(dice, values) if _varies(dice) and _varies(values) else None,
            regret_at_k(dice, values),
        )
        for name, values in scores.items()
    ]


def model_table(
    names: Sequence[str], dice: NDArray[np.float64], scores: Mapping[str, NDArray[np.float64]]
) -> str:
    """Show the rank by each list of scores beside the Dice, best Dice first."""
    ranks = [rank_scores(values) for values in scores.values()]
    rows = [
        [names[i], f"{dice[i]:.3f}", *(int(rank[i]) for rank in ranks)]
        for i in np.argsort(-dice, kind="stable")
    ]
    return format_table(["model", "Dice", *scores], rows)


def agreement_table(found: Sequence[Agreement]) -> str:
    """Show one line for each list of scores."""
    rows = []
    for one in found:
        tau = "undefined" if one.kendall is None else f"{one.kendall.statistic:+.2f}"
        p = "" if one.kendall is None else f"{one.kendall.pvalue:.2f}"
        rows.append([one.name, tau, p, f"{one.regret:.3f}"])
    return format_table(["order by", "weighted Kendall", "p", "Dice lost"], rows)


def caveats(dice: NDArray[np.float64], found: Sequence[Agreement]) -> list[str]:
    """Say what the numbers cannot; `dice` has shape (n_models, n_seeds)."""
    spread = np.ptp(dice.mean(axis=1))
    noise = np.std(dice, axis=1, ddof=1).mean()
    stds = [one.kendall.null_std for one in found if one.kendall is not None]
    random = f"; in random order its spread is {np.mean(stds):.2f}" if stds else ""
    return [
        f"K = {len(dice)} models. p is the share of random orders that agree at least as well",
        f"as this one. The weighted Kendall goes from -1 to 1{random}:",
        "with so few models, only near-perfect agreement can be told from chance.",
        f"The mean Dice of the models spans {spread:.3f}; with another seed a model's Dice changes",
        f"by {noise:.3f} (standard deviation): models closer than that have no sure order.",
        "One run on synthetic images shows that the steps work. It is no evidence for or",
        "against an estimator.",
    ]


def _varies(values: NDArray[np.float64]) -> bool:
    return len(np.unique(values)) > 1
