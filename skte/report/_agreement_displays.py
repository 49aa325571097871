"""Rankings against what models reached, and against rankings of fewer cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte.evaluation import EvaluationCard, RankLearningCurve
from skte.metrics import WeightedKendallResult, align_performance, weighted_kendall_test
from skte.report._drawing import COLORS, Display, plot_name, plot_names

_MOST_NAMES = 25  # beside points


@dataclass(eq=False, repr=False)
class CorrelationDisplay(Display):
    """Performance against score, one point per model, with their weighted Kendall.

    Parameters
    ----------
    performance : ndarray of shape (n_models,)
        What each model reached after fine-tuning.
    scores : ndarray of shape (n_models,)
        Transferability scores.
    names : sequence of str, optional
        Names of the models; of more than 25, only the three that performed best and the
        three that scored best are written.
    result : WeightedKendallResult
        Agreement of both.
    performance_name, score_name : str
        Labels of the axes.

    Examples
    --------
    >>> from skte.report import CorrelationDisplay
    >>> display = CorrelationDisplay.from_scores([0.7, 0.8, 0.9], [-3, -2, -1])
    >>> display.ax_.get_title()
    'weighted Kendall 1.00, p = 0.17, 3 models'
    """

    performance: NDArray[np.float64]
    scores: NDArray[np.float64]
    names: Sequence[str] | None
    result: WeightedKendallResult
    _: KW_ONLY
    performance_name: str = "performance after fine-tuning"
    score_name: str = "score"

    @classmethod
    def from_scores(
        cls,
        performance: ArrayLike | Mapping[str, float],
        scores: ArrayLike,
        names: Sequence[str] | None = None,
        *,
        ax: Any = None,
        **axis_names: str,
    ) -> Self:
        """Compute the agreement and plot it.

        Parameters
        ----------
        performance : array-like of shape (n_models,) or mapping of name to float
            What each model reached; a mapping needs `names`.
        scores : array-like of shape (n_models,)
            Transferability scores; models at ``-inf`` are drawn at the left edge.
        names, **axis_names
            As for `CorrelationDisplay`.
        ax : matplotlib Axes, optional
            As for `plot`.

        Raises
        ------
        ValueError
            If lengths differ, names are missing, or a number is NaN.
        """
        values = np.asarray(scores, dtype=np.float64)
        if names is None and isinstance(performance, Mapping):
            raise ValueError("performance is a mapping: give names, in the order of the scores.")
        labels = [str(i) for i in range(len(values))] if names is None else names
        if len(labels) != len(values):
            raise ValueError(
                f"{len(labels)} names, but {len(values)} scores: give one name per score."
            )
        reached = align_performance(performance, labels)
        result = weighted_kendall_test(reached, values)
        return cls(reached, values, names, result, **axis_names).plot(ax)

    def _size(self) -> tuple[float, float]:
        return 6.5, 4.8

    def _draw(self, ax: Any) -> None:
        finite = np.isfinite(self.scores)
        span = np.ptp(self.scores[finite]) if finite.any() else 0.0
        lowest = self.scores[finite].min() if finite.any() else 0.0
        x = np.where(finite, self.scores, lowest - 0.1 * (span or 1.0))
        ax.scatter(x[finite], self.performance[finite], color=COLORS[0])
        if not finite.all():
            y = self.performance[~finite]
            ax.scatter(x[~finite], y, marker="<", color=COLORS[1], label="collapsed")
            ax.legend()
        right = x > (x.min() + x.max()) / 2  # names stay inside the axes
        names = plot_names(self.names, 24) if self.names else []
        for i in self._named():
            side = {"xytext": (-5, 4), "ha": "right"} if right[i] else {"xytext": (5, 4)}
            at = (x[i], self.performance[i])
            ax.annotate(names[i], at, textcoords="offset points", fontsize="small", **side)
        ax.set_xlabel(plot_name(self.score_name))
        ax.set_ylabel(plot_name(self.performance_name, 60))
        r = self.result
        ax.set_title(f"weighted Kendall {r.statistic:.2f}, p = {r.pvalue:.2g}, {r.n_models} models")

    def _named(self) -> list[int]:
        n = len(self.scores)
        if not self.names or n <= _MOST_NAMES:
            return list(range(n)) if self.names else []
        best = [*np.argsort(-self.performance)[:3], *np.argsort(-self.scores)[:3]]
        return sorted({int(i) for i in best})


@dataclass(eq=False, repr=False)
class EvaluationDisplay(Display):
    """Weighted Kendall of scores and baselines with intervals, beside what chance gives.

    Parameters
    ----------
    card : EvaluationCard
        Of `evaluate_ranking`.

    Examples
    --------
    >>> from skte.report import EvaluationDisplay
    >>> from skte.evaluation import evaluate_ranking
    >>> card = evaluate_ranking([1, 2, 3, 4], performance=[0.6, 0.7, 0.8, 0.9], size=[4, 3, 2, 1])
    >>> display = EvaluationDisplay(card).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['score', 'size']
    """

    card: EvaluationCard

    def _size(self) -> tuple[float, float]:
        return 6.0, 1.0 + 0.35 * len(self.card.rows)

    def _draw(self, ax: Any) -> None:
        rows = self.card.rows
        ax.axvspan(-self.card.null_std, self.card.null_std, color="0.92")
        for position, row in enumerate(rows):
            tau, (low, high) = row.weighted_kendall, row.interval
            ax.plot(tau, position, "o", color="C0")
            ax.plot([low, high], [position, position], color="C0")
        ax.set_yticks(range(len(rows)), plot_names(row.method for row in rows))
        ax.invert_yaxis()
        ax.set_xlim(-1.05, 1.05)
        ax.set_xlabel(f"weighted Kendall, {self.card.n_models} models (grey: random orders ± 1 sd)")


@dataclass(eq=False, repr=False)
class LearningCurveDisplay(Display):
    """Agreement of rankings of separate draws, and with that of all cases.

    Parameters
    ----------
    curve : RankLearningCurve
        Of `rank_learning_curve`.
    """

    curve: RankLearningCurve

    def _size(self) -> tuple[float, float]:
        return 5.5, 4.0

    def _draw(self, ax: Any) -> None:
        curve = self.curve
        known = np.isfinite(curve.kendall_apart)
        apart = (curve.n_cases[known], curve.kendall_apart[known])
        ax.plot(*apart, "o-", label="other cases of the same number")
        ax.plot(curve.n_cases, curve.kendall_to_all, "o--", label="all cases")
        ax.axhline(curve.target, color="0.6", linewidth=1)
        suggested = curve.suggested_n_cases
        if suggested is not None and suggested <= curve.n_cases[-1]:
            ax.axvline(suggested, color="0.6", linewidth=1, linestyle=":")
        ax.set_xlabel("labelled cases")
        ax.set_ylabel("weighted Kendall with the ranking of")
        ax.set_title(curve.suggestion, fontsize="small")
        ax.legend()
