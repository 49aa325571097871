"""How sure the ranking of a bank is, given that other cases could have been labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skte._table import format_table
from skte.metrics import rank_scores

__all__ = ["BankConfidence"]

_NAMED = 2  # so many models that tie with the best are told by name


@dataclass(frozen=True, eq=False)
class BankConfidence:
    """Intervals, ranks and ties of the models of a bank. Printed, a table.

    Everything is about *which cases were labelled*: it compares with what the same models
    would score on other cases of the same kind. It does not tell how well a score
    predicts the performance after fine-tuning.

    Attributes
    ----------
    names : sequence of str
        Models in bank order.
    scores : ndarray of shape (n_models,)
        Their scores.
    centres : ndarray of shape (n_models,)
        What intervals are around: the scores, or what is left of them when the bias of few
        cases is taken off (`GBC`, `HScore`, `RankMe`, `SFDA` and `TransRate`, whose scores
        move one way with every case).
    standard_errors : ndarray of shape (n_models,)
        Of each score; NaN for failed and collapsed models, and where a score is
        undefined without one of the cases.
    intervals : ndarray of shape (n_models, 2)
        Confidence interval of each score, one at a time.
    rank_intervals : ndarray of shape (n_models, 2)
        Lowest and highest rank of each model that the data allow, for all models at
        once.
    prob_best : ndarray of shape (n_models,)
        Share of the resamples of the cases in which the model scores best.
    groups : ndarray of shape (n_models,)
        1 for the best model and those that the data cannot tell from it, 2 for the best of
        the others and those that cannot be told from that one, and so on. 0: failed.
    difference_errors : ndarray of shape (n_models, n_models)
        Standard error of the difference of two scores. Models see the same voxels, so it
        is often far smaller than those of the scores.
    critical_value : float
        Two models are told apart where their scores differ by more than so many of
        these standard errors.
    confidence_level : float
        Of intervals, of all rank intervals together and of all groups together.
    n_cases : int
        Labelled cases.
    method : {"jackknife", "bootstrap"}
        How cases were resampled.

    See Also
    --------
    ModelBankSelector : Makes one where ``confidence_level`` is given.

    Notes
    -----
    Intervals are ``centre ± t(n_cases - 1) * standard_error``; scores relative to the bank
    (`Ensemble`), which have a fixed range, take quantiles of the resamples instead.

    There are K(K-1)/2 pairs of models, and some of them differ by chance. The critical
    value is the quantile of the *largest* standardised difference over all pairs, from the
    joint law of the scores (single-step max-t [1]_): with the stated confidence no two
    models of equal score are told apart. Rank intervals count the models that can be
    told apart from one ([2]_), so all of them hold together, and groups too.

    References
    ----------
    .. [1] Westfall, P. H., Young, S. S. "Resampling-Based Multiple Testing". Wiley 1993.
    .. [2] Mogstad, M., Romano, J. P., Shaikh, A. M., Wilhelm, D. "Inference for Ranks with
       Applications to Mobility across Neighbourhoods and Academic Achievement across
       Countries". Review of Economic Studies 91 (2024).
    """

    names: Sequence[str]
    scores: NDArray[np.float64]
    centres: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    intervals: NDArray[np.float64]
    rank_intervals: NDArray[np.intp]
    prob_best: NDArray[np.float64]
    groups: NDArray[np.intp]
    difference_errors: NDArray[np.float64]
    critical_value: float
    confidence_level: float
    n_cases: int
    method: str

    def told_apart(self, first: str, second: str) -> bool:
        """Whether the data tell two models apart, all pairs of the bank considered.

        Parameters
        ----------
        first, second : str
            Names of models.

        Returns
        -------
        bool
            True where their order would hurt no one to rely on.

        Raises
        ------
        ValueError
            If there is no such model.
        """
        i, j = self._position(first), self._position(second)
        return bool(tell_apart(self.centres, self.difference_errors, self.critical_value)[i, j])

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"There is no model {name!r}; the bank has {list(self.names)}.")
        return list(self.names).index(name)

    def rows(self) -> list[tuple[int, str, float, str, str, float, int]]:
        """Cells of the table, best first: rank, model, score, interval, ranks, P(best), group.

        Returns
        -------
        list of tuple
            One a model.
        """
        ranks = rank_scores(self.scores)
        return [
            (
                int(ranks[i]),
                self.names[i],
                float(self.scores[i]),
                _span(*self.intervals[i]),
                "{}-{}".format(*self.rank_intervals[i]),
                round(float(self.prob_best[i]), 2),
                int(self.groups[i]),
            )
            for i in np.argsort(ranks)
        ]

    @property
    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        interval = f"{100 * self.confidence_level:g} % interval"
        return ["rank", "model", "score", interval, "ranks", "P(best)", "group"]

    def __str__(self) -> str:
        """Lay out the table, and what it says of the first place."""
        return f"{format_table(self.header, self.rows())}\n{self.verdict()}"

    def verdict(self) -> str:
        """Say in a sentence which models may be the best.

        Returns
        -------
        str
            One line.
        """
        order = np.argsort(rank_scores(self.scores))
        best = self.names[order[0]]
        others = [self.names[i] for i in order[1:] if self.groups[i] == 1]
        sure = f"at {100 * self.confidence_level:g} % confidence, {self.n_cases} cases"
        if not others:
            return f"{best} is ahead of all others ({sure})."
        if len(others) <= _NAMED:
            *first, last = others
            who = f"{', '.join(first)} and {last}" if first else last
        else:
            who = f"{len(others)} of the {len(self.names) - 1} other models"
        return f"{who} cannot be told from {best} ({sure})."


def tell_apart(
    scores: NDArray[np.float64], errors: NDArray[np.float64], critical_value: float
) -> NDArray[np.bool_]:
    """Which pairs of models differ by more than the critical value; NaN errors: none do.

    Parameters
    ----------
    scores : ndarray of shape (n_models,)
        ``-inf`` differs from every finite score for sure.
    errors : ndarray of shape (n_models, n_models)
        Of differences.
    critical_value : float
        In units of the errors.

    Returns
    -------
    ndarray of shape (n_models, n_models)
        Symmetric.
    """
    with np.errstate(invalid="ignore"):
        gaps = np.abs(scores[:, None] - scores)
    # Differences of the size of rounding are none, also where they never vary.
    rounding = 1e-12 * np.maximum(np.abs(scores)[:, None], np.abs(scores))
    with np.errstate(invalid="ignore"):
        return np.asarray(gaps > np.maximum(critical_value * errors, rounding)) | (
            np.isinf(gaps) & np.isfinite(errors)
        )


def _span(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"{low:.4g} to {high:.4g}"
