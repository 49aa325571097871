"""A bank's scores as a bar chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.selection import ModelBankSelector, Ranking

__all__ = ["RankingDisplay"]


class RankingDisplay:
    """Bar chart of a ranking, best on top.

    Models without a finite score get no bar but the word "collapsed" (``-inf``) or
    "failed" (NaN).

    Parameters
    ----------
    names : sequence of str
        Models, best first.
    scores : array-like of shape (n_models,)
        Score of each.
    score_name : str, default="score"
        Label of the axis.

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
        self, names: Sequence[str], scores: ArrayLike, *, score_name: str = "score"
    ) -> None:
        self.names = tuple(names)
        self.scores: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
        self.score_name = score_name

    @classmethod
    def from_selector(cls, selector: ModelBankSelector, **plot_kwargs: Any) -> Self:
        """Plot the ranking of a fitted selector.

        Parameters
        ----------
        selector : ModelBankSelector
            Fitted.
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        RankingDisplay
            Plotted.
        """
        estimator = selector.estimator
        if isinstance(estimator, Mapping):
            estimator = next(iter(estimator.values()))
        ranking = selector.ranking_
        name = type(estimator).__name__
        return cls(ranking.names, ranking.scores, score_name=name).plot(**plot_kwargs)

    @classmethod
    def from_results(
        cls, results: Mapping[str, Any], *, column: str = "score", **plot_kwargs: Any
    ) -> Self:
        """Plot one column of scores of a table of results.

        Parameters
        ----------
        results : mapping of str to sequence
            ``selector.results_``, or a table read back; needs ``name`` and `column`.
        column : str, default="score"
            The scores.
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        RankingDisplay
            Plotted.
        """
        missing = [key for key in ("name", column) if key not in results]
        if missing:
            raise ValueError(f"results lack {missing}; they have {sorted(results)}.")
        ranking = Ranking.from_scores(list(results["name"]), np.asarray(results[column], float))
        return cls(ranking.names, ranking.scores, score_name=column).plot(**plot_kwargs)

    def plot(self, ax: Any = None, *, bar_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw the chart.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        bar_kw : mapping, optional
            Passed to ``Axes.barh``.

        Returns
        -------
        RankingDisplay
            This display, with ``ax_`` and ``figure_``.
        """
        if ax is None:
            ax = _new_axes(height=0.6 + 0.35 * len(self.names))
        finite = np.isfinite(self.scores)
        # Scores have no natural zero: bars start a little below the lowest.
        low, high = (
            (self.scores[finite].min(), self.scores[finite].max()) if finite.any() else (0, 1)
        )
        base = low - 0.1 * ((high - low) or 1.0)
        positions = np.arange(len(self.names))
        widths = np.where(finite, self.scores - base, 0.0)
        ax.barh(positions, widths, left=base, **dict(bar_kw or {}))
        for position in np.flatnonzero(~finite):
            word = "failed" if np.isnan(self.scores[position]) else "collapsed"
            ax.text(base, position, f" {word}", va="center")
        ax.set_yticks(positions, [f"{i + 1}  {name}" for i, name in enumerate(self.names)])
        ax.invert_yaxis()
        ax.set_xlabel(f"{self.score_name} (higher is better)")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _new_axes(height: float) -> Any:
    from matplotlib.figure import Figure  # without pyplot: nothing global, nothing to close

    return Figure(figsize=(6.4, height), layout="constrained").subplots()
