"""The results of a bank as plots: scores, layers and how stable the ranks are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte._table import rank_cell
from skte._text import did_you_mean
from skte.metrics import best_first, rank_scores
from skte.report._drawing import (
    COLORS,
    MARKERS,
    MOST_ROWS,
    Display,
    plot_name,
    plot_names,
    width_of,
)
from skte.report._results import FittedSelector, results_of
from skte.selection import BankConfidence

_NARROW = 4.0  # inches beside the names, below which a legend has one column


class RankingDisplay(Display):
    """Scores of a ranking, best on top, with intervals and groups where they are known.

    Models without a finite score get the word "collapsed" (``-inf``) or "failed" (NaN).

    Parameters
    ----------
    names : sequence of str
        Models, best first.
    scores : array-like of shape (n_models,)
        Score of each.
    ranks : array-like of shape (n_models,), optional
        Rank of each, NaN for none. Default: `skte.metrics.rank_scores`.
    score_name : str, default="score"
        Label of the axis.
    intervals : array-like of shape (n_models, 2), optional
        Confidence interval of each score; NaN where there is none.
    groups : array-like of shape (n_models,), optional
        Of models that the data cannot tell apart, as in `BankConfidence`.

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
        ranks: ArrayLike | None = None,
        score_name: str = "score",
        intervals: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        self._width, self._name_length = 4.8, 36
        self.names = tuple(names)
        self.scores: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
        own = rank_scores(self.scores) if ranks is None else ranks
        self.ranks: NDArray[np.float64] = np.asarray(own, dtype=np.float64)
        self.score_name = score_name
        self.intervals = None if intervals is None else np.asarray(intervals, dtype=np.float64)
        self.groups = None if groups is None else np.asarray(groups, dtype=np.intp)
        for what, values in (
            ("scores", self.scores),
            ("ranks", self.ranks),
            ("intervals", self.intervals),
            ("groups", self.groups),
        ):
            if values is not None and len(values) != len(self.names):
                raise ValueError(
                    f"{len(self.names)} names, but {len(values)} {what}: give one per name."
                )

    @classmethod
    def from_selector(
        cls, selector: FittedSelector, *, estimator: str | None = None, ax: Any = None
    ) -> Self:
        """Plot the ranking of a fitted selector, with intervals and groups where it has them.

        Parameters
        ----------
        selector : ModelBankSelector or HalvingModelBankSelector
            Fitted.
        estimator : str, optional
            Name of the estimator. Default: the first one, which ranks.
        ax : matplotlib Axes, optional
            As for `plot`.

        Raises
        ------
        ValueError
            If there is no estimator of this name.
        """
        results = results_of(selector)
        known = selector.estimators_
        key = next(iter(known)) if estimator is None else estimator
        if key not in known:
            raise ValueError(f"There is no estimator {key!r}: {did_you_mean(key, known)}")
        suffix = f"_{key}" if key else ""
        # Scores of a race are not comparable, ranks are.
        ranks = results[f"rank{suffix}"]
        order = np.argsort(ranks, kind="stable")
        low, high, groups = (
            results.get(f"{name}{suffix}") for name in ("interval_low", "interval_high", "group")
        )
        return cls(
            [str(results["name"][i]) for i in order],
            np.where(np.isnan(ranks), np.nan, results[f"score{suffix}"])[order],
            ranks=ranks[order],
            score_name=type(known[key]).__name__,
            intervals=None if low is None or high is None else np.stack([low, high], axis=1)[order],
            groups=None if groups is None else groups[order],
        ).plot(ax)

    def narrow(self) -> Self:
        """Return the same plot for narrow windows, not drawn yet: shorter names, less room."""
        other = copy.copy(self)
        other._width, other._name_length = 2.2, 18
        return other

    def _size(self) -> tuple[float, float]:
        names = plot_names(self.names[:MOST_ROWS], self._name_length)
        return self._width + width_of(names), 1.2 + 0.24 * len(names)

    def _draw(self, ax: Any) -> None:
        names = plot_names(self.names[:MOST_ROWS], self._name_length)
        n, scores = len(names), self.scores[:MOST_ROWS]
        finite = np.isfinite(scores)
        rows = np.arange(n)
        if self.intervals is not None:
            low, high = self.intervals[:n].T
            known = finite & np.isfinite(low) & np.isfinite(high)
            ax.hlines(rows[known], low[known], high[known], color="0.45", linewidth=1.5, zorder=1)
        self._draw_points(ax, scores, finite)
        for row in np.flatnonzero(~finite):
            word = "failed" if np.isnan(scores[row]) else "collapsed"
            # At the left edge, wherever the axis ends up.
            ax.text(
                0.01, row, word, va="center", style="italic", transform=ax.get_yaxis_transform()
            )
        ax.set_yticks(rows, _numbered(self.ranks, names))
        ax.set_ylim(n - 0.4, -0.6)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        note = f"\nthe best {n} of {len(self.names)} models" if n < len(self.names) else ""
        ax.set_xlabel(f"{plot_name(self.score_name)} (higher is better){note}")

    def _draw_points(self, ax: Any, scores: NDArray[np.float64], finite: NDArray[np.bool_]) -> None:
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
            style = {"color": color, "marker": marker, "label": label}
            ax.scatter(scores[rows], rows, 36, zorder=2, **style)
        if self.groups is not None and len(present) > 1:
            n_columns = 1 if self._width < _NARROW else min(3, len(drawn))
            ax.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=n_columns,
                frameon=False, fontsize="small",
            )  # fmt: skip


# More cells than this hold no numbers.
_MOST_NUMBERS = 240


class LayerScoreDisplay(Display):
    """Scores layer by layer: models best first, layers coarse to fine.

    Parameters
    ----------
    names : sequence of str
        Models, best first.
    layer_scores : sequence of array-like of shape (n_layers,)
        Of each model, coarse to fine; empty where the model failed.
    ranks : array-like of shape (n_models,), optional
        Rank of each, NaN for none. Default: 1, 2, 3 ...
    score_name : str, default="score"
        Label of the colour bar.

    Attributes
    ----------
    matrix : ndarray of shape (n_models, most_layers)
        The scores, finest last; NaN where a model has fewer layers.

    Examples
    --------
    >>> from skte.report import LayerScoreDisplay
    >>> display = LayerScoreDisplay(["a", "b"], [[-1.0, -2.0, -3.0], [-4.0, -5.0]]).plot()
    >>> display.matrix
    array([[-1., -2., -3.],
           [nan, -4., -5.]])
    """

    def __init__(
        self,
        names: Sequence[str],
        layer_scores: Sequence[ArrayLike],
        *,
        ranks: ArrayLike | None = None,
        score_name: str = "score",
    ) -> None:
        self.names = tuple(names)
        own = range(1, len(self.names) + 1) if ranks is None else ranks
        self.ranks: NDArray[np.float64] = np.asarray(own, dtype=np.float64)
        self.score_name = score_name
        rows = [np.asarray(row, dtype=np.float64).reshape(-1) for row in layer_scores]
        if len(rows) != len(self.names):
            raise ValueError(f"{len(self.names)} names, but layer scores of {len(rows)} models.")
        most = max((len(row) for row in rows), default=0)
        self.matrix: NDArray[np.float64] = np.full((len(rows), most), np.nan)
        for i, row in enumerate(rows):
            self.matrix[i, most - len(row) :] = row

    @classmethod
    def from_selector(cls, selector: FittedSelector, *, ax: Any = None) -> Self:
        """Plot the layers of a fitted selector's first estimator on `ax`, or a new figure."""
        results = results_of(selector)
        ranks = results["rank"]
        order = np.argsort(ranks, kind="stable")
        return cls(
            [str(results["name"][i]) for i in order],
            [results["layer_scores"][i] for i in order],
            ranks=ranks[order],
        ).plot(ax)

    def _size(self) -> tuple[float, float]:
        names = plot_names(self.names[:MOST_ROWS], 30)
        width = max(0.8 * self.matrix.shape[1], width_of([self._label()]) - width_of(names))
        return 2.0 + width_of(names) + width, 1.4 + 0.26 * len(names)

    def _label(self) -> str:
        left = len(self.names) > MOST_ROWS
        note = f"; the best {MOST_ROWS} of {len(self.names)} models" if left else ""
        return f"layer; 1 is the finest{note}"

    def _draw(self, ax: Any) -> None:
        if self.matrix.size == 0:
            raise ValueError("No model has scores of layers: all failed, or the score has none.")
        matrix = self.matrix[:MOST_ROWS]
        n, n_layers = matrix.shape
        shown = np.ma.masked_invalid(matrix)
        # A colour map without grey, which is for layers that collapsed; missing ones stay empty.
        image = ax.imshow(shown, cmap="viridis", aspect="auto")
        collapsed = np.ma.masked_where(matrix != -np.inf, np.ones_like(matrix))
        ax.imshow(collapsed, cmap="Greys", vmin=0, vmax=4, aspect="auto")
        if matrix.size <= _MOST_NUMBERS:
            _write_numbers(ax, matrix, image)
        names = plot_names(self.names[:MOST_ROWS], 30)
        ax.set_yticks(np.arange(n), _numbered(self.ranks, names))
        ax.set_xticks(np.arange(n_layers), [str(n_layers - i) for i in range(n_layers)])
        ax.set_xlabel(self._label())
        if shown.count():
            ax.figure.colorbar(image, ax=ax, label=plot_name(self.score_name), shrink=0.8)


def _numbered(ranks: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    """Names behind their ranks; as many as there are names."""
    return [f"{rank_cell(rank)}  {name}" for rank, name in zip(ranks, names, strict=False)]


def _write_numbers(ax: Any, matrix: NDArray[np.float64], image: Any) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        if np.isnan(value):
            continue
        text, color = ("-∞", "black")
        if np.isfinite(value):
            # Dark cells get white numbers: Rec. 601 luminance of the cell.
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text, color = f"{value:.3g}", ("white" if dark else "black")
        ax.text(column, row, text, ha="center", va="center", color=color, fontsize="small")


class StabilityDisplay(Display):
    """Rank of each model, and the ranks that other labelled cases could give it.

    A line spans the ranks that the data allow, for all models at once. The number at the right is
    the share of resampled sets of cases in which the model comes first.

    Parameters
    ----------
    confidence : BankConfidence
        ``selector.confidence_`` of a selector with ``confidence_level``.

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

    def _size(self) -> tuple[float, float]:
        return 7.0, 1.2 + 0.24 * min(MOST_ROWS, len(self.confidence.names))

    def _draw(self, ax: Any) -> None:
        known = self.confidence
        ranks = rank_scores(known.scores)
        order = best_first(known.scores)[:MOST_ROWS]
        rows = np.arange(len(order))
        low, high = known.rank_intervals[order].T
        ranked = known.groups[order] > 0  # failed models have no rank to be sure of
        ax.hlines(rows[ranked], low[ranked], high[ranked], color="0.45", linewidth=3, zorder=1)
        ax.scatter(ranks[order][ranked], rows[ranked], 36, COLORS[0], zorder=2)
        for row, model in zip(rows, order, strict=True):
            shown = f"{100 * known.first_share[model]:.0f} %" if ranked[row] else "failed"
            ax.text(1.01, row, shown, va="center", transform=ax.get_yaxis_transform())
        ax.text(1.01, -0.9, "first in", va="center", transform=ax.get_yaxis_transform())
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
