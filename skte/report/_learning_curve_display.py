"""Stability of a ranking against the number of labelled cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from skte.evaluation import RankLearningCurve

__all__ = ["LearningCurveDisplay"]


class LearningCurveDisplay:
    """Agreement of rankings of separate draws, and with that of all cases.

    Parameters
    ----------
    curve : RankLearningCurve
        Of `rank_learning_curve`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.
    """

    def __init__(self, curve: RankLearningCurve) -> None:
        self.curve = curve

    def plot(self, ax: Any = None, *, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw the chart.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        line_kw : mapping, optional
            Passed to ``Axes.plot`` for both lines.

        Returns
        -------
        LearningCurveDisplay
            This display, with ``ax_`` and ``figure_``.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(5.5, 4.0), layout="constrained").subplots()
        curve, style = self.curve, {"marker": "o", **dict(line_kw or {})}
        known = np.isfinite(curve.kendall_apart)
        apart = (curve.n_cases[known], curve.kendall_apart[known])
        ax.plot(*apart, label="other cases of the same number", **style)
        ax.plot(curve.n_cases, curve.kendall_to_all, label="all cases", linestyle="--", **style)
        ax.axhline(curve.target, color="0.6", linewidth=1)
        suggested = curve.suggested_n_cases
        if suggested is not None and suggested <= curve.n_cases[-1]:
            ax.axvline(suggested, color="0.6", linewidth=1, linestyle=":")
        ax.set_xlabel("labelled cases")
        ax.set_ylabel("weighted Kendall with the ranking of")
        ax.set_title(curve.suggestion, fontsize="small")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self
