"""The evidence page's tables, from the result files alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.evidence._judge import Target, Verdict, judge, mean_tau_p

__all__ = ["baseline_scores", "markdown", "summary_rows", "verdicts"]


def baseline_scores(
    target: Target, channels: Sequence[Sequence[float]]
) -> dict[str, list[float | None]]:
    """Rankings that look at no features: by size, by width, by the source head as it is."""
    return {
        "model size": [float(model["n_parameters"]) for model in target.models],
        "channels of the finest layer": [layers[-1] for layers in channels],
        "zero-shot Dice": [model["zero_shot"] for model in target.models],
    }


def verdicts(
    targets: Sequence[Target], scores: Sequence[Mapping[str, Any]], names: Iterable[str]
) -> dict[str, list[Verdict]]:
    """For each estimator, its verdict on each target."""
    return {
        name: [
            judge(target, one[name]["scores"], one[name].get("left_out", ()))
            for target, one in zip(targets, scores, strict=True)
        ]
        for name in names
    }


def summary_rows(
    targets: Sequence[Target],
    scores: Sequence[Mapping[str, Any]],
    found: Mapping[str, Sequence[Verdict]],
) -> list[list[str]]:
    """One row an estimator, best mean tau first."""
    rows = []
    for name in sorted(found, key=lambda key: -_mean(v.tau for v in found[key])):
        each = found[name]
        p = mean_tau_p(targets, [one[name]["scores"] for one in scores])
        error = np.sqrt(sum(v.standard_error**2 for v in each)) / len(each)
        mean = _mean(v.tau for v in each)
        rows.append(
            [
                name,
                *(f"{v.tau:.2f} / {v.pearson:.2f}" for v in each),
                f"**{mean:.2f}** / {_mean(v.pearson for v in each):.2f}",
                f"{max(-1, mean - 1.96 * error):.2f} to {min(1, mean + 1.96 * error):.2f}",
                f"{p:.3f}" if p >= 0.001 else "< 0.001",
                f"{_mean(v.regret_1 for v in each):.1f}",
                f"{_mean(v.regret_3 for v in each):.1f}",
                f"{_mean(v.within for v in each):.2f}",
            ]
        )
    return rows


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
