"""Which ranks the data allow each model, and how often it comes out best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from skte.metrics import rank_scores
from skte.report._drawing import COLORS, new_axes, plot_names
from skte.report._results_of import check_at_least_one
from skte.selection import BankConfidence

__all__ = ["StabilityDisplay"]


class StabilityDisplay:
    """Rank of each model, the ranks that other labelled cases could give it, chance to be best.

    A line spans the ranks that the data allow, for all models at once; the point is the
    rank it has; the number at the right is the share of resamples of the cases in which
    the model scores best.

    Parameters
    ----------
    confidence : BankConfidence
        ``selector.confidence_`` of a selector with ``confidence_level``.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.

    See Also
    --------
    RankingDisplay : Scores with intervals.
    LearningCurveDisplay : How stable the ranking is with fewer cases.

    Examples
    --------
    >>> from skte import CCFV, ModelBankSelector
    >>> from skte.datasets import make_phantoms
    >>> from skte.demo import small_unet
    >>> from skte.report import StabilityDisplay
    >>> bank = {name: small_unet(widths=(4, 8)) for name in ("a", "b")}
    >>> cases = make_phantoms(3, size=(16, 16, 16))
    >>> selector = ModelBankSelector(CCFV(), confidence_level=0.9).fit(bank, cases)
    >>> display = StabilityDisplay(selector.confidence_).plot()
    >>> display.ax_.get_xlabel().startswith("rank at 90 % confidence")
    True
    """

    def __init__(self, confidence: BankConfidence) -> None:
        if not isinstance(confidence, BankConfidence):
            raise TypeError(
                "Give the confidence_ of a selector that was fitted with a confidence_level (0.9, "
                f"say), got {type(confidence).__name__}."
            )
        self.confidence = confidence

    def plot(
        self,
        ax: Any = None,
        *,
        max_models: int = 60,
        line_kw: Mapping[str, Any] | None = None,
        point_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        max_models : int, default=60
            The best so many are drawn, and how many are not is said below.
        line_kw : mapping, optional
            Passed to ``Axes.hlines``.
        point_kw : mapping, optional
            Passed to ``Axes.scatter``.

        Returns
        -------
        StabilityDisplay
            This display, with ``ax_`` and ``figure_``.
        """
        check_at_least_one("max_models", max_models)
        known = self.confidence
        ranks = rank_scores(known.scores)
        order = np.argsort(ranks, kind="stable")[:max_models]
        rows = np.arange(len(order))
        if ax is None:
            ax = new_axes(7.0, 1.2 + 0.24 * len(order))
        low, high = known.rank_intervals[order].T
        ranked = known.groups[order] > 0  # failed models have no rank to be sure of
        line = {"color": "0.45", "linewidth": 3, "zorder": 1, **dict(line_kw or {})}
        ax.hlines(rows[ranked], low[ranked], high[ranked], **line)
        point = {"color": COLORS[0], "s": 36, "zorder": 2, **dict(point_kw or {})}
        ax.scatter(ranks[order][ranked], rows[ranked], **point)
        for row, model in zip(rows, order, strict=True):
            said = f"{known.prob_best[model]:.0%}" if ranked[row] else "failed"
            ax.text(1.01, row, said, va="center", transform=ax.get_yaxis_transform())
        ax.text(1.01, -0.9, "best in", va="center", transform=ax.get_yaxis_transform())
        ax.set_yticks(rows, plot_names(known.names[model] for model in order))
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set_xlim(0.5, len(known.names) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        left = len(known.names) - len(order)
        note = f"\nthe best {len(order)} of {len(known.names)} models" if left else ""
        sure = f"{100 * known.confidence_level:g} % confidence, {known.n_cases} cases"
        ax.set_xlabel(f"rank at {sure}{note}")
        self.ax_, self.figure_ = ax, ax.figure
        return self
