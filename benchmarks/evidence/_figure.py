"""Score against Dice, as in figure 2 of the CC-FV paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.evidence._judging import Target
from skte.metrics import weighted_kendall_score

mpl.use("svg")
from matplotlib import pyplot as plt

__all__ = ["draw_scores"]

# Okabe and Ito's colours, told apart by the colour-blind, and by marker in grey.
_MARKS = {
    "ladder of the sibling": ("s", "#0072B2"),
    "other sources": ("o", "#E69F00"),
    "untrained": ("^", "#D55E00"),
}


def draw_scores(path: Path, targets: Sequence[Target], names: Sequence[str]) -> None:
    """Draw one row per estimator and one column per target."""
    size = (1.5 * len(targets), 1.6 * len(names))
    figure, axes = plt.subplots(len(names), len(targets), figsize=size, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for ax, target in zip(row, targets, strict=True):
            scores, kinds = np.array(target.scores[name]), np.array(_kinds(target))
            for kind, (marker, colour) in _MARKS.items():
                at = (kinds == kind) & np.isfinite(scores)
                ax.plot(scores[at], target.dice[at], marker, color=colour, markersize=3)
            tau = weighted_kendall_score(target.dice, scores)
            ax.set_title(f"{target.name}\ntau {tau:.2f}", fontsize=6)
            ax.tick_params(labelsize=5)
        row[0].set_ylabel(f"{name.split('|')[0]}\nDice", fontsize=7)
    for kind, (marker, colour) in _MARKS.items():
        axes[0, 0].plot([], [], marker, color=colour, label=kind)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=3, fontsize=8)
    figure.tight_layout(rect=(0, 0.3 / size[1], 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "skte"}):  # the same file from the same numbers
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _kinds(target: Target) -> list[str]:
    return [
        "untrained"
        if name.startswith("untrained")
        else "ladder of the sibling"
        if rung
        else "other sources"
        for name, rung in zip(target.models, target.ladder, strict=True)
    ]
