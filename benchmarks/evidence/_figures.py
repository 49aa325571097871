"""The evidence page's figures, from the result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
from matplotlib import pyplot as plt

from benchmarks.evidence._judge import Target, judge, last_if_missing

__all__ = ["draw_embedding", "draw_scores"]

# Okabe and Ito's colours, told apart by the colour-blind, and by marker in grey.
_MARKS = {"unet_w4": ("o", "#0072B2"), "unet_w8": ("s", "#E69F00"), "unetr": ("^", "#009E73")}
_CASES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def draw_scores(
    path: Path,
    targets: Sequence[Target],
    scores: Sequence[Mapping[str, Any]],
    names: Sequence[str],
) -> None:
    """Draw score against Dice, one row an estimator, one column a target."""
    shape = (len(names), len(targets))
    figure, axes = plt.subplots(*shape, figsize=(2.5 * shape[1], 2.1 * shape[0]), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for ax, target, one in zip(row, targets, scores, strict=True):
            values = last_if_missing(one[name]["scores"])
            verdict = judge(target, one[name]["scores"])
            for i, model in enumerate(target.models):
                marker, colour = _MARKS[model["architecture"]]
                hollow = model["source"] is None
                ax.plot(
                    values[i],
                    target.performance[i],
                    marker,
                    color=colour,
                    markerfacecolor="none" if hollow else colour,
                    markersize=5,
                )
            ax.set_title(f"{target.name}\nweighted tau {verdict.tau:.2f}", fontsize=7)
            ax.tick_params(labelsize=6)
        row[0].set_ylabel(f"{name}\nDice", fontsize=8)
    for marker, (sign, colour) in _MARKS.items():
        axes[0, 0].plot([], [], sign, color=colour, label=marker)
    axes[0, 0].plot([], [], "o", color="grey", markerfacecolor="none", label="untrained")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.25 / shape[0], 1, 1))
    _save(figure, path)


def draw_embedding(path: Path, panels: Mapping[str, Mapping[str, Any]]) -> None:
    """Draw one class's features by case, one panel a network."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.2), squeeze=False)
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        points, cases = np.array(panel["points"]), np.array(panel["cases"])
        for i, case in enumerate(np.unique(cases)):
            ax.plot(*points[cases == case].T, ".", color=_CASES[i % len(_CASES)], markersize=4)
        ax.set_title(title, fontsize=8)
        ax.set(xticks=[], yticks=[])
    figure.tight_layout()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "skte"}):  # the same file from the same numbers
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
