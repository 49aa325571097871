"""Distances between cases, as class consistency sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.estimators import CCFV
from skte.report._drawing import new_axes, plot_name, plot_names
from skte.report._results_of import check_at_least_one

__all__ = ["CaseDistanceDisplay"]


class CaseDistanceDisplay:
    """Distances between cases, farthest case first: outliers stand out, by name.

    Beside each name stands how many times the median distance the case is away.

    Parameters
    ----------
    case_ids : sequence of str
        The cases.
    distances : array-like of shape (n_cases, n_cases)
        Symmetric; NaN where a pair was not compared.
    distance_name : str, default="distance"
        Label of the colour bar.

    Attributes
    ----------
    case_ids : tuple of str
        Farthest from the others first.
    distances : ndarray of shape (n_cases, n_cases)
        In that order.
    ratios : ndarray of shape (n_cases,)
        Mean distance of each case to the others over the median of these means: 1 is
        ordinary. NaN where a case was compared with no other.
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.

    Examples
    --------
    >>> from skte.report import CaseDistanceDisplay
    >>> display = CaseDistanceDisplay(["a", "b", "odd"], [[0, 1, 5], [1, 0, 5], [5, 5, 0]])
    >>> display.case_ids[0], display.ratios.round(2)
    ('odd', array([1.67, 1.  , 1.  ]))
    """

    def __init__(
        self, case_ids: Sequence[str], distances: ArrayLike, *, distance_name: str = "distance"
    ) -> None:
        D = np.asarray(distances, dtype=np.float64)
        if D.shape != (len(case_ids), len(case_ids)):
            raise ValueError(f"{len(case_ids)} cases need a square of distances, got {D.shape}.")
        means = _mean_to_others(D)
        middle = np.nanmedian(means) if np.isfinite(means).any() else np.nan
        ratios = means / middle if middle > 0 else np.where(np.isfinite(means), 1.0, np.nan)
        order = np.argsort(-np.nan_to_num(ratios, nan=-np.inf), kind="stable")
        self.case_ids: tuple[str, ...] = tuple(str(case_ids[i]) for i in order)
        self.distances: NDArray[np.float64] = D[np.ix_(order, order)]
        self.ratios: NDArray[np.float64] = ratios[order]
        self.distance_name = distance_name

    @classmethod
    def from_estimator(
        cls, estimator: CCFV, *, layer: str | None = None, label: Any = None, **plot_kwargs: Any
    ) -> Self:
        """Plot the distances that a fitted `CCFV` computed.

        Parameters
        ----------
        estimator : CCFV
            Fitted, with ``class_consistency=True``.
        layer : str, optional
            One layer. Default: all.
        label : int, optional
            One class. Default: all.
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        CaseDistanceDisplay
            Plotted. Of one layer and class, the distances as they are. Of several, each
            one's distances over their median, and of these the mean over all layers and
            classes that know the pair: 1 is ordinary.

        Raises
        ------
        ValueError
            If the estimator has no such distances; the message says what it has.
        """
        chosen, cases = _matrices(estimator, layer, label)
        if len(chosen) == 1:
            ((name, of), D) = next(iter(chosen.items()))
            what = f"{estimator.distance} distance, class {of}, layer {name}"
            return cls(cases, D, distance_name=what).plot(**plot_kwargs)
        known = np.array([D / _median(D) for D in chosen.values()])
        counts = np.isfinite(known).sum(axis=0)
        mean = np.full(known.shape[1:], np.nan)
        np.divide(np.nansum(known, axis=0), counts, out=mean, where=counts > 0)
        return cls(cases, mean, distance_name="distance over the median").plot(**plot_kwargs)

    def plot(
        self, ax: Any = None, *, max_cases: int = 60, image_kw: Mapping[str, Any] | None = None
    ) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        max_cases : int, default=60
            The farthest so many are drawn: names of more could not be read.
        image_kw : mapping, optional
            Passed to ``Axes.imshow``.

        Returns
        -------
        CaseDistanceDisplay
            This display, with ``ax_`` and ``figure_``.
        """
        check_at_least_one("max_cases", max_cases)
        n = min(len(self.case_ids), max_cases)
        if ax is None:
            side = 2.2 + 0.19 * n
            ax = new_axes(side + 2.6, side)
        ax.set_facecolor("0.93")  # shows pairs that were not compared
        shown = np.ma.masked_invalid(self.distances[:n, :n])
        shown[np.eye(n, dtype=bool)] = np.ma.masked  # no case is far from itself
        image = ax.imshow(shown, **{"cmap": "cividis", "aspect": "auto", **dict(image_kw or {})})
        ax.set_yticks(range(n), self._ticks(n), fontsize="small")
        ax.set_xticks([])
        whole = len(self.case_ids)
        ax.set_xlabel("cases, same order" if n == whole else f"the farthest {n} of {whole} cases")
        if shown.count():
            ax.figure.colorbar(image, ax=ax, label=plot_name(self.distance_name, 60), shrink=0.8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _ticks(self, n: int) -> list[str]:
        names = plot_names(self.case_ids[:n], 26)
        return [
            name if np.isnan(ratio) else f"{name}  {ratio:.2f}"
            for name, ratio in zip(names, self.ratios[:n], strict=True)
        ]


def _matrices(
    estimator: CCFV, layer: str | None, label: Any
) -> tuple[dict[tuple[str, Any], NDArray[np.float64]], Sequence[str]]:
    """Distances by layer and class, all over the same cases."""
    if not hasattr(estimator, "layer_details_"):
        raise ValueError("The estimator is not fitted: call fit(X) first.")
    found = {
        (name, of): np.asarray(D, dtype=np.float64)
        for name, details in zip(estimator.layer_names_, estimator.layer_details_, strict=True)
        for of, D in details.get("distances", {}).items()
    }
    if not found:
        raise ValueError(
            "The estimator keeps no distances between cases: it has class_consistency=False, or "
            "more than 512 rows were cases of their own."
        )
    chosen = {
        key: D for key, D in found.items() if layer in (None, key[0]) and label in (None, key[1])
    }
    if not chosen:
        raise ValueError(
            f"There are no distances for layer {layer!r} and class {label!r}; there are layers "
            f"{sorted({k[0] for k in found})} and classes {sorted({k[1] for k in found})}."
        )
    names = dict(zip(estimator.layer_names_, estimator.layer_details_, strict=True))
    cases = [str(case) for case in names[next(iter(chosen))[0]]["cases"]]
    return chosen, cases


def _off_diagonal(D: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(D) & ~np.eye(len(D), dtype=bool))


def _mean_to_others(D: NDArray[np.float64]) -> NDArray[np.float64]:
    known = _off_diagonal(D)
    means = np.full(len(D), np.nan)
    sums, counts = np.where(known, D, 0.0).sum(axis=1), known.sum(axis=1)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _median(D: NDArray[np.float64]) -> float:
    known = D[_off_diagonal(D)]
    middle = float(np.median(known)) if len(known) else 0.0
    return middle if middle > 0 else 1.0
