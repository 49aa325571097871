"""Scores of every model's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.report._drawing import new_axes, plot_name, plot_names, width_of
from skte.report._results_of import check_at_least_one, check_columns, results_of
from skte.selection import ModelBankSelector

__all__ = ["LayerScoreDisplay"]

# More cells than this hold no numbers.
_MOST_NUMBERS = 240


class LayerScoreDisplay:
    """Scores layer by layer: models best first, layers coarse to fine.

    Models may differ in their number of layers; the finest ones stand in one column. A
    model that leads by one layer alone shows here.

    Parameters
    ----------
    names : sequence of str
        Models, best first.
    layer_scores : sequence of array-like of shape (n_layers,)
        Of each model, coarse to fine; empty where the model failed.
    score_name : str, default="score"
        Label of the colour bar.

    Attributes
    ----------
    matrix : ndarray of shape (n_models, most_layers)
        The scores, finest last; NaN where a model has fewer layers.
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.

    Examples
    --------
    >>> from skte.report import LayerScoreDisplay
    >>> display = LayerScoreDisplay(["a", "b"], [[-1.0, -2.0, -3.0], [-4.0, -5.0]]).plot()
    >>> display.matrix
    array([[-1., -2., -3.],
           [nan, -4., -5.]])
    """

    def __init__(
        self, names: Sequence[str], layer_scores: Sequence[ArrayLike], *, score_name: str = "score"
    ) -> None:
        self.names = tuple(names)
        self.score_name = score_name
        rows = [np.asarray(row, dtype=np.float64).reshape(-1) for row in layer_scores]
        if len(rows) != len(self.names):
            raise ValueError(f"{len(self.names)} names, but layer scores of {len(rows)} models.")
        most = max((len(row) for row in rows), default=0)
        self.matrix: NDArray[np.float64] = np.full((len(rows), most), np.nan)
        for i, row in enumerate(rows):
            self.matrix[i, most - len(row) :] = row

    @classmethod
    def from_selector(cls, selector: ModelBankSelector, **plot_kwargs: Any) -> Self:
        """Plot the layers of a fitted selector's first estimator.

        Parameters
        ----------
        selector : ModelBankSelector
            Fitted.
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        LayerScoreDisplay
            Plotted.

        Raises
        ------
        TypeError
            If `selector` is no `ModelBankSelector`.
        NotFittedError
            If it is not fitted.
        """
        return cls.from_results(results_of(selector), **plot_kwargs)

    @classmethod
    def from_results(cls, results: Mapping[str, Any], **plot_kwargs: Any) -> Self:
        """Plot the layers of a table of results.

        Parameters
        ----------
        results : mapping of str to sequence
            ``selector.results_``; needs ``name``, ``rank`` and ``layer_scores``.
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        LayerScoreDisplay
            Plotted.

        Raises
        ------
        ValueError
            If a column is missing.
        """
        check_columns(results, ["name", "rank", "layer_scores"])
        order = np.argsort(np.asarray(results["rank"]))
        return cls(
            [str(results["name"][i]) for i in order], [results["layer_scores"][i] for i in order]
        ).plot(**plot_kwargs)

    def plot(
        self, ax: Any = None, *, max_models: int = 60, image_kw: Mapping[str, Any] | None = None
    ) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        max_models : int, default=60
            The best so many are drawn.
        image_kw : mapping, optional
            Passed to ``Axes.imshow``.

        Returns
        -------
        LayerScoreDisplay
            This display, with ``ax_`` and ``figure_``.

        Raises
        ------
        ValueError
            If no model has scores of layers.
        """
        if self.matrix.size == 0:
            raise ValueError("No model has scores of layers: all failed, or the score has none.")
        check_at_least_one("max_models", max_models)
        matrix = self.matrix[:max_models]
        n, n_layers = matrix.shape
        names = plot_names(self.names[:n], 30)
        note = f"; the best {n} of {len(self.names)} models" if n < len(self.names) else ""
        label = f"layer; 1 is the finest{note}"
        if ax is None:
            below = width_of([label]) - width_of(names)
            ax = new_axes(2.0 + width_of(names) + max(0.8 * n_layers, below), 1.4 + 0.26 * n)
        ax.set_facecolor("0.93")  # shows where a model has no such layer, or it collapsed
        shown = np.ma.masked_invalid(matrix)
        image = ax.imshow(shown, **{"cmap": "cividis", "aspect": "auto", **dict(image_kw or {})})
        if matrix.size <= _MOST_NUMBERS:
            _write_numbers(ax, matrix, image)
        ax.set_yticks(
            np.arange(n),
            [f"{i + 1}  {name}" for i, name in enumerate(names)],
        )
        ax.set_xticks(np.arange(n_layers), [str(n_layers - i) for i in range(n_layers)])
        ax.set_xlabel(label)
        if shown.count():
            ax.figure.colorbar(image, ax=ax, label=plot_name(self.score_name), shrink=0.8)
        self.ax_, self.figure_ = ax, ax.figure
        return self


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
