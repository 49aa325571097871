"""A bank's scores, best on top, with what is known of their confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.metrics import rank_scores
from skte.report._drawing import COLORS, MARKERS, new_axes, plot_name, plot_names, width_of
from skte.report._results_of import check_at_least_one, check_columns, results_of
from skte.selection import ModelBankSelector

__all__ = ["RankingDisplay"]


class RankingDisplay:
    """Scores of a ranking, best on top, with intervals and groups where they are known.

    A score is a point: scores have no natural zero that a bar could start from. Models
    without a finite score get no point but the word "collapsed" (``-inf``) or "failed"
    (NaN).

    Parameters
    ----------
    names : sequence of str
        Models, best first.
    scores : array-like of shape (n_models,)
        Score of each.
    score_name : str, default="score"
        Label of the axis.
    intervals : array-like of shape (n_models, 2), optional
        Confidence interval of each score; NaN where there is none.
    groups : array-like of shape (n_models,), optional
        Models that the data cannot tell apart share a number, 1 for those that may be
        the best, as in `BankConfidence`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.

    Examples
    --------
    >>> from skte.report import RankingDisplay
    >>> display = RankingDisplay(["a", "b"], [-1.5, -2.5]).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['1  a', '2  b']
    """

    def __init__(
        self,
        names: Sequence[str],
        scores: ArrayLike,
        *,
        score_name: str = "score",
        intervals: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        self.names = tuple(names)
        self.scores: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
        self.score_name = score_name
        self.intervals = None if intervals is None else np.asarray(intervals, dtype=np.float64)
        self.groups = None if groups is None else np.asarray(groups, dtype=np.intp)
        for what, values in (
            ("scores", self.scores),
            ("intervals", self.intervals),
            ("groups", self.groups),
        ):
            if values is not None and len(values) != len(self.names):
                raise ValueError(
                    f"{len(self.names)} names, but {len(values)} {what}: give one each."
                )

    @classmethod
    def from_selector(cls, selector: ModelBankSelector, **plot_kwargs: Any) -> Self:
        """Plot the ranking of a fitted selector.

        Parameters
        ----------
        selector : ModelBankSelector
            Fitted; with ``confidence_level``, intervals and groups are drawn.
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        RankingDisplay
            Plotted.

        Raises
        ------
        TypeError
            If `selector` is no `ModelBankSelector`.
        NotFittedError
            If it is not fitted.
        """
        results = results_of(selector)
        estimator = selector.estimator
        if isinstance(estimator, Mapping):
            estimator = next(iter(estimator.values()))
        display = cls._of_results(results, "score", type(estimator).__name__)
        return display.plot(**plot_kwargs)

    @classmethod
    def from_results(
        cls, results: Mapping[str, Any], *, column: str = "score", **plot_kwargs: Any
    ) -> Self:
        """Plot one column of scores of a table of results.

        Parameters
        ----------
        results : mapping of str to sequence
            ``selector.results_``, or a table read back; needs ``name`` and `column`.
            Intervals and groups are drawn where their columns are there.
        column : str, default="score"
            The scores; ``score_<key>`` for another estimator's.
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        RankingDisplay
            Plotted.

        Raises
        ------
        ValueError
            If a column is missing.
        """
        check_columns(results, ["name", column])
        return cls._of_results(results, column, column).plot(**plot_kwargs)

    @classmethod
    def _of_results(cls, results: Mapping[str, Any], column: str, score_name: str) -> Self:
        scores = np.asarray(results[column], dtype=np.float64)
        order = np.argsort(rank_scores(scores))
        suffix = column.removeprefix("score")
        low, high, groups = (
            results.get(f"{name}{suffix}") for name in ("interval_low", "interval_high", "group")
        )
        return cls(
            [str(results["name"][i]) for i in order],
            scores[order],
            score_name=score_name,
            intervals=None
            if low is None or high is None
            else np.stack([np.asarray(low, float), np.asarray(high, float)], axis=1)[order],
            groups=None if groups is None else np.asarray(groups)[order],
        )

    def plot(
        self,
        ax: Any = None,
        *,
        max_models: int = 60,
        point_kw: Mapping[str, Any] | None = None,
        interval_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        max_models : int, default=60
            The best so many are drawn, and how many are not is said below: names of more
            could not be read.
        point_kw : mapping, optional
            Passed to ``Axes.scatter``.
        interval_kw : mapping, optional
            Passed to ``Axes.hlines``.

        Returns
        -------
        RankingDisplay
            This display, with ``ax_`` and ``figure_``.
        """
        check_at_least_one("max_models", max_models)
        n = min(len(self.names), max_models)
        scores = self.scores[:n]
        names = plot_names(self.names[:n])
        if ax is None:
            ax = new_axes(4.8 + width_of(names), 1.2 + 0.24 * n)
        finite = np.isfinite(scores)
        rows = np.arange(n)
        if self.intervals is not None:
            low, high = self.intervals[:n].T
            known = finite & np.isfinite(low) & np.isfinite(high)
            style = {"color": "0.45", "linewidth": 1.5, "zorder": 1, **dict(interval_kw or {})}
            ax.hlines(rows[known], low[known], high[known], **style)
        self._draw_points(ax, scores, finite, dict(point_kw or {}))
        for row in np.flatnonzero(~finite):
            word = "failed" if np.isnan(scores[row]) else "collapsed"
            # At the left edge, wherever the axis ends up.
            ax.text(
                0.01, row, word, va="center", style="italic", transform=ax.get_yaxis_transform()
            )
        ax.set_yticks(rows, [f"{i + 1}  {name}" for i, name in enumerate(names)])
        ax.set_ylim(n - 0.4, -0.6)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        note = f"\nthe best {n} of {len(self.names)} models" if n < len(self.names) else ""
        ax.set_xlabel(f"{plot_name(self.score_name)} (higher is better){note}")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_points(
        self, ax: Any, scores: NDArray[np.float64], finite: NDArray[np.bool_], kw: dict[str, Any]
    ) -> None:
        n = len(scores)
        groups = np.ones(n, dtype=np.intp) if self.groups is None else self.groups[:n]
        present = sorted(set(groups[finite].tolist()))
        own = present if len(present) <= len(COLORS) else present[: len(COLORS) - 1]
        drawn = [
            (groups == group, f"group {group}" + (": may be the best" if group == 1 else ""))
            for group in own
        ]
        if len(own) < len(present):  # more than shapes can tell apart
            drawn.append((~np.isin(groups, own), "other groups"))
        for (members, label), color, marker in zip(drawn, COLORS, MARKERS, strict=False):
            rows = np.flatnonzero(finite & members)
            style = {"color": color, "marker": marker, "s": 36, "zorder": 2, **kw}
            ax.scatter(scores[rows], rows, label=label, **style)
        if self.groups is not None and len(present) > 1:
            n_columns = min(3, len(drawn))
            ax.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=n_columns,
                frameon=False, fontsize="small",
            )  # fmt: skip
