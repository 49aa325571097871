"""An evaluation card as a chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from skte.evaluation import EvaluationCard
from skte.report._drawing import plot_names

__all__ = ["EvaluationDisplay"]


class EvaluationDisplay:
    """Weighted Kendall of scores and baselines with intervals, beside what chance gives.

    Parameters
    ----------
    card : EvaluationCard
        Of `evaluate_ranking`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.

    Examples
    --------
    >>> from skte.report import EvaluationDisplay
    >>> from skte.evaluation import evaluate_ranking
    >>> card = evaluate_ranking([1, 2, 3, 4], [0.6, 0.7, 0.8, 0.9], size=[4, 3, 2, 1])
    >>> display = EvaluationDisplay(card).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['score', 'size']
    """

    def __init__(self, card: EvaluationCard) -> None:
        self.card = card

    def plot(self, ax: Any = None, *, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw the chart.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        line_kw : mapping, optional
            Passed to ``Axes.plot`` for the intervals.

        Returns
        -------
        EvaluationDisplay
            This display, with ``ax_`` and ``figure_``.
        """
        rows = self.card.rows
        if ax is None:
            from matplotlib.figure import Figure

            height = 1.0 + 0.35 * len(rows)
            ax = Figure(figsize=(6.0, height), layout="constrained").subplots()
        ax.axvspan(-self.card.null_std, self.card.null_std, color="0.92")
        for position, row in enumerate(rows):
            tau, (low, high) = row.weighted_kendall, row.interval
            ax.plot(tau, position, "o", color="C0")
            # Percentiles of draws need not hold the value itself.
            ax.plot([low, high], [position, position], **{"color": "C0", **dict(line_kw or {})})
        ax.set_yticks(range(len(rows)), plot_names(row.method for row in rows))
        ax.invert_yaxis()
        ax.set_xlim(-1.05, 1.05)
        ax.set_xlabel(f"weighted Kendall, {self.card.n_models} models (grey: random orders ± 1 sd)")
        self.ax_, self.figure_ = ax, ax.figure
        return self
