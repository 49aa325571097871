"""How the demo's scores agree with fine-tuning, in words, tables and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte._files import write_atomically
from skte._table import format_table
from skte.report import ScorePerformanceDisplay
from skte.selection import WeightedKendallResult, rank_scores, regret_at_k, weighted_kendall_test

__all__ = ["Agreement", "agreements", "caveats", "model_table", "save_plot"]

Agreement = tuple[str, WeightedKendallResult | None, float]


def agreements(dice: NDArray[np.float64], scores: dict[str, NDArray[np.float64]]) -> list[Agreement]:
    """Weighted Kendall and regret of each list of scores against the mean Dice.

    The result is None where a list is constant, so that it has no order.
    """
    found: list[Agreement] = []
    for name, values in scores.items():
        defined = len(np.unique(values)) > 1 and len(np.unique(dice)) > 1
        result = weighted_kendall_test(dice, values) if defined else None
        found.append((name, result, regret_at_k(dice, values)))
    return found


def model_table(
    names: Sequence[str], dice: NDArray[np.float64], scores: dict[str, NDArray[np.float64]]
) -> str:
    """Ranks by every score beside the Dice, best Dice first."""
    ranks = [rank_scores(values) for values in scores.values()]
    rows = [
        [names[i], float(dice[i]), *(int(rank[i]) for rank in ranks)] for i in np.argsort(-dice)
    ]
    return format_table(["model", "Dice", *scores], rows)


def agreement_table(found: Sequence[Agreement]) -> str:
    """One line for each list of scores."""
    return format_table(
        ["order by", "weighted Kendall", "p", "Dice lost"],
        [
            [name, "not defined" if r is None else f"{r.statistic:.2f}",
             "" if r is None else f"{r.pvalue:.2f}", f"{lost:.3f}"]
            for name, r, lost in found
        ],
    )


def caveats(dice: NDArray[np.float64], found: Sequence[Agreement]) -> list[str]:
    """What these numbers cannot say."""
    spread = float(np.ptp(dice.mean(axis=1)))
    noise = float(np.ptp(dice, axis=1).mean())
    lines = [
        f"K = {len(dice)} models. p is the share of random orders that agree at least as well;",
        "with so few models only a very clear agreement is distinguishable from chance.",
    ]
    stds = [r.null_std for _, r, _ in found if r is not None]
    if stds:
        lines.append(f"Random orders have a weighted Kendall of 0 +- {np.mean(stds):.2f}.")
    lines += [
        f"The models' Dice spans {spread:.3f}; fine-tuning one model twice differs by "
        f"{noise:.3f}",
        "on average, so models closer than that have no true order.",
        "One run on synthetic images shows that the steps work. It is no evidence for or",
        "against an estimator.",
    ]
    return lines
