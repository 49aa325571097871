"""How sure the ranking of a bank is, given that other cases could have been labelled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from skte._table import format_table, rank_cell
from skte.estimators import TransferabilityEstimator
from skte.exceptions import SkteWarning
from skte.metrics import best_first, rank_scores

_NAMED = 2  # at most this many models that tie with the best are named
_CHUNK = 2**20  # numbers worked on together
Part = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class BankConfidence:
    """Intervals, ranks and ties of the models of a bank. Printed, a table.

    Everything is about *which cases were labelled*: what the same models would score on other
    cases of the same kind, not how well a score predicts performance after fine-tuning.

    Attributes
    ----------
    names : sequence of str
        Models in bank order, as in all arrays.
    scores : ndarray of shape (n_models,)
        Their scores.
    centres : ndarray of shape (n_models,)
        What intervals are around: the scores, less the bias of few cases for estimators whose
        ``tags.corrects_bias`` is True.
    standard_errors : ndarray of shape (n_models,)
        NaN for failed and collapsed models, and where a score is undefined without one of the
        cases.
    intervals : ndarray of shape (n_models, 2)
        Confidence interval of each score, one at a time: ``centre ± t(n_cases - 1) *
        standard_error``, or quantiles of the resamples for scores relative to the bank.
    rank_intervals : ndarray of shape (n_models, 2)
        Lowest and highest rank that the data allow, for all models at once.
    first_share : ndarray of shape (n_models,)
        Share of the resampled sets of cases in which the model comes first.
    groups : ndarray of shape (n_models,)
        1 for the best model and those that the data cannot tell from it, 2 for the best of
        the others and those that cannot be distinguished from that one, and so on. 0: failed.
    difference_errors : ndarray of shape (n_models, n_models)
        Standard error of the difference of two scores, of models that see the same voxels.
    critical_value : float
        Two models are told apart where their scores differ by more than this number of
        standard errors.
    confidence_level : float
        Of intervals, of all rank intervals together and of all groups together.
    n_cases : int
        Labelled cases.

    Notes
    -----
    The critical value is the quantile of the *largest* standardised difference over all pairs of
    models, from the joint law of the scores (single-step max-t [1]_): with the stated
    confidence no two models of equal score are told apart. Rank intervals count the models
    that can be told apart from one ([2]_), so all of them hold together, and groups too.

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
    first_share: NDArray[np.float64]
    groups: NDArray[np.intp]
    difference_errors: NDArray[np.float64]
    critical_value: float
    confidence_level: float
    n_cases: int

    def told_apart(self, first: str, second: str) -> bool:
        """Whether two models, by name, differ by more than chance allows over all pairs."""
        i, j = self._position(first), self._position(second)
        return bool(tell_apart(self.centres, self.difference_errors, self.critical_value)[i, j])

    def _position(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"There is no model {name!r}; the bank has {list(self.names)}.")
        return list(self.names).index(name)

    def behind(self) -> list[str]:
        """Name the models that are clearly behind the first, in the order of ranks."""
        first, *others = best_first(self.scores)
        apart = tell_apart(self.centres, self.difference_errors, self.critical_value)[first]
        return [self.names[i] for i in others if apart[i] and not np.isnan(self.scores[i])]

    def rows(self) -> list[tuple[Any, ...]]:
        """Cells of the table, best first; `header` names them."""
        ranks = rank_scores(self.scores)
        behind = set(self.behind())
        return [
            (
                rank_cell(ranks[i]),
                self.names[i],
                float(self.scores[i]),
                _span(*self.intervals[i]),
                "{}-{}".format(*self.rank_intervals[i]),
                _percent(self.first_share[i]),
                "clearly" if self.names[i] in behind else "",
            )
            for i in best_first(self.scores)
        ]

    @property
    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        interval = f"{100 * self.confidence_level:g} % interval"
        return ["rank", "model", "score", interval, "ranks", "first in", "behind the first"]

    def __str__(self) -> str:
        """Lay out the table, and what it says of the first place."""
        return f"{format_table(self.header, self.rows())}\n{self.verdict()}"

    def verdict(self) -> str:
        """Say in one line which models may be the best."""
        best, *ranked = best_first(self.scores).tolist()
        sure = f"at {100 * self.confidence_level:g} % confidence, {self.n_cases} cases"
        others = [i for i in ranked if self.groups[i] == 1]
        if not others:
            return f"{self.names[best]} is ahead of all others ({sure})."
        n_others = np.count_nonzero(self.groups) - 1  # failed models have no group
        if len(others) == n_others > _NAMED:
            return (
                f"None of the {n_others} others can be distinguished from {self.names[best]} "
                f"({sure})."
            )
        who = f"{len(others)} of the {n_others} other models"
        if len(others) <= _NAMED:
            *first, last = (self.names[i] for i in others)
            who = f"{', '.join(first)} and {last}" if first else last
        line = f"{who} cannot be distinguished from {self.names[best]} ({sure})."
        # What is clearly behind has a score above theirs.
        far = [self.names[i] for k, i in enumerate(others) if ranked[k] != i]
        if 0 < len(far) <= _NAMED:
            line += f" Of {' and '.join(far)}, that is because the scores of cases differ so much."
        return line


def tell_apart(
    scores: NDArray[np.float64], errors: NDArray[np.float64], critical_value: float
) -> NDArray[np.bool_]:
    """Which pairs of models differ by more than the critical value; NaN errors: none."""
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


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.0f} %"


def without_each(n_cases: int) -> NDArray[np.intp]:
    """How often each case is drawn where each is left out in turn: (n_cases, n_cases)."""
    return 1 - np.eye(n_cases, dtype=np.intp)


def _leaves(part: Part, of: Callable[[Any], Any]) -> dict[str, Any]:
    """Apply a function to each number or array of a part, however deep."""
    return {
        key: _leaves(value, of) if isinstance(value, Mapping) else of(value)
        for key, value in part.items()
    }


def combined_scores(
    estimator: TransferabilityEstimator, parts: Sequence[Part]
) -> NDArray[np.float64]:
    """Scores of a bank for each resample, of shape (n_models, n_resamples)."""
    if not estimator.tags.relative_to_bank:
        return np.stack([part["score"] for part in parts])
    n_resamples = len(_first_leaf(parts[0]))
    scores = [
        estimator.combine([_leaves(part, itemgetter(b)) for part in parts])
        for b in range(n_resamples)
    ]
    return np.stack(scores, axis=1)


def _first_leaf(part: Part) -> Any:
    value = next(iter(part.values()))
    return _first_leaf(value) if isinstance(value, Mapping) else value


class _Law(NamedTuple):
    """What resampling says of the scores of the models that have any."""

    centres: NDArray[np.float64]  # (n_models,)
    errors: NDArray[np.float64]  # (n_models,)
    pair_errors: NDArray[np.float64]  # (n_models, n_models)
    draws: NDArray[np.float64]  # (n_models, n_draws), scores
    critical_value: float


def estimate_confidence(
    estimator: TransferabilityEstimator,
    names: Sequence[str],
    scores: NDArray[np.float64],
    parts: Sequence[Part | None],
    resampled: Sequence[Part | None],
    *,
    n_cases: int,
    confidence_level: float,
    n_resamples: int,
    random_state: int,
) -> BankConfidence:
    """From scores without each case to intervals, ranks and ties, in bank order."""
    usable = np.zeros(len(names), dtype=bool)
    for i, part in enumerate(resampled):
        if part is not None and np.isfinite(scores[i]):
            undefined = _undefined(part)
            usable[i] = not undefined
            if undefined:
                warnings.warn(
                    f"Model {names[i]!r}: its score is undefined or -inf without some of the cases "
                    f"(at positions {undefined}), so it has no standard error. Label more cases "
                    "that hold every class.",
                    SkteWarning,
                    stacklevel=4,
                )
    kept = np.flatnonzero(usable).tolist()
    law = _Law(np.zeros(0), np.zeros(0), np.zeros((0, 0)), np.zeros((0, n_resamples)), 0.0)
    if len(kept):
        chosen = [parts[i] for i in kept], [resampled[i] for i in kept]
        law = _law(
            estimator, scores[kept], *chosen, n_cases, n_resamples, random_state, confidence_level
        )
    relative = estimator.tags.relative_to_bank
    return _collect(names, scores, usable, law, n_cases, confidence_level, relative)


def _undefined(part: Part) -> list[int]:
    """Cases without which a score is unknown; a member of an ensemble may be collapsed in all."""
    values: list[NDArray[np.float64]] = []
    _leaves(part, lambda leaf: values.append(np.asarray(leaf)))
    known = [one for one in values if not (one == -np.inf).all()]
    return sorted({int(i) for one in known for i in np.flatnonzero(~np.isfinite(one))})


def _law(
    estimator: TransferabilityEstimator,
    scores: NDArray[np.float64],
    parts: Sequence[Any],
    resampled: Sequence[Any],
    n: int,
    n_draws: int,
    random_state: int,
    level: float,
) -> _Law:
    share = (n - 1) / n
    # Normal weights of the cases, the same for all models: they stay paired.
    shocks = np.random.default_rng([random_state, 2]).normal(size=(n, n_draws))
    # These turn normal deviations into those of Student's t.
    chi_square = np.random.default_rng([random_state, 1]).chisquare(n - 1, n_draws)
    factors = np.sqrt((n - 1) / chi_square)

    def drawn(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaps @ shocks * np.sqrt(share) * factors)

    if estimator.tags.relative_to_bank:  # members are drawn: an order has no derivative
        pairs = zip(parts, resampled, strict=True)
        draws = combined_scores(estimator, [_drawn(part, one, drawn) for part, one in pairs])
        gaps = draws - np.nanmean(draws, axis=1, keepdims=True)
        errors = np.sqrt(np.nanmean(gaps**2, axis=1))
        pair_errors = np.stack([np.sqrt(np.nanmean((gaps - one) ** 2, axis=1)) for one in gaps])
        return _Law(scores, errors, pair_errors, draws, _largest_gap(gaps, pair_errors, level))
    values = combined_scores(estimator, resampled)
    gaps = values - values.mean(axis=1, keepdims=True)
    errors = np.sqrt(share * (gaps**2).sum(axis=1))
    pair_errors = np.sqrt(share * ((gaps[:, None] - gaps) ** 2).sum(axis=2))
    centres = scores
    if estimator.tags.corrects_bias:
        centres = scores - (n - 1) * (values.mean(axis=1) - scores)
    critical = _critical_value(gaps, n_draws, random_state, level)
    return _Law(centres, errors, pair_errors, centres[:, None] + drawn(gaps), critical)


def _drawn(part: Part, resampled: Part, drawn: Callable[[Any], Any]) -> dict[str, Any]:
    """Draws of every member's score, from those without each case."""
    result: dict[str, Any] = {}
    for key, values in resampled.items():
        if isinstance(values, Mapping):
            result[key] = _drawn(part[key], values, drawn)
        elif np.isfinite(values).all():
            result[key] = part[key] + drawn(values - values.mean())
        else:  # always collapsed
            result[key] = np.full_like(drawn(np.zeros(len(values))), -np.inf)
    return result


def _collect(
    names: Sequence[str],
    scores: NDArray[np.float64],
    usable: NDArray[np.bool_],
    law: _Law,
    n_cases: int,
    level: float,
    relative: bool,
) -> BankConfidence:
    n_models = len(names)
    kept = np.flatnonzero(usable)
    errors = np.full(n_models, np.nan)
    errors[kept] = law.errors
    centres = scores.copy()
    centres[kept] = law.centres
    intervals = np.full((n_models, 2), np.nan)
    if relative and len(kept):
        tails = [(1 - level) / 2, (1 + level) / 2]
        intervals[kept] = np.nanquantile(law.draws, tails, axis=1).T
    else:
        half = student.ppf((1 + level) / 2, n_cases - 1) * law.errors
        intervals[kept] = np.stack([law.centres - half, law.centres + half], axis=1)
    collapsed = scores == -np.inf
    intervals[collapsed] = -np.inf
    intervals[np.isfinite(scores) & ~usable] = -np.inf, np.inf
    pair_errors = np.full((n_models, n_models), np.nan)
    pair_errors[np.ix_(usable, usable)] = law.pair_errors
    pair_errors[np.ix_(collapsed, usable)] = pair_errors[np.ix_(usable, collapsed)] = 0.0
    np.fill_diagonal(pair_errors, 0.0)
    apart = tell_apart(centres, pair_errors, law.critical_value)
    return BankConfidence(
        names=tuple(names),
        scores=scores,
        centres=centres,
        standard_errors=errors,
        intervals=intervals,
        rank_intervals=_rank_intervals(centres, apart),
        first_share=_first_share(scores, usable, law.draws),
        groups=_groups(scores, apart),
        difference_errors=pair_errors,
        critical_value=law.critical_value,
        confidence_level=level,
        n_cases=n_cases,
    )


def _critical_value(
    gaps: NDArray[np.float64], n_draws: int, random_state: int, level: float
) -> float:
    """Quantile of the largest of the paired t statistics of models that score alike.

    Cases are drawn from the normal law that the jackknife's deviations have, and each
    pair's error is estimated from the cases drawn, as it was from the labelled ones: with
    few cases, the smallest of many estimated errors is what tells models apart by chance.
    """
    n_models, n = gaps.shape
    i, j = np.triu_indices(n_models, k=1)
    squares = np.square(gaps).sum(axis=1)
    varies = np.square(gaps[i] - gaps[j]).sum(axis=1) > 1e-24 * (squares[i] + squares[j])
    i, j = i[varies], j[varies]
    if not len(i):
        return 0.0
    rng = np.random.default_rng([random_state, 3])
    largest = []
    step = max(1, _CHUNK // (n * n + n_models * n_models))
    for start in range(0, n_draws, step):
        cases = gaps @ rng.normal(size=(min(step, n_draws - start), n, n))
        means = cases.mean(axis=2)
        cases -= means[:, :, None]
        products = cases @ cases.transpose(0, 2, 1) / (n - 1)
        squares = np.einsum("bii->bi", products)
        variances = squares[:, i] + squares[:, j] - 2 * products[:, i, j]
        tiny = np.finfo(np.float64).tiny
        ratios = np.square(means[:, i] - means[:, j]) / np.maximum(variances, tiny)
        largest.append(ratios.max(axis=1))
    return float(np.sqrt(n * np.quantile(np.concatenate(largest), level)))


def _largest_gap(
    deviations: NDArray[np.float64], pair_errors: NDArray[np.float64], level: float
) -> float:
    """Quantile of the largest standardised difference of two models in draws of scores."""
    i, j = np.triu_indices(len(deviations), k=1)
    varies = pair_errors[i, j] > 0
    largest = np.zeros(deviations.shape[1])
    for a, b in zip(i[varies], j[varies], strict=True):
        gaps = np.abs(deviations[a] - deviations[b]) / pair_errors[a, b]
        largest = np.fmax(largest, gaps)
    return float(np.quantile(largest, level))


def _rank_intervals(scores: NDArray[np.float64], apart: NDArray[np.bool_]) -> NDArray[np.intp]:
    failed = np.isnan(scores)
    n_ran = int((~failed).sum())
    better = (apart & (scores > scores[:, None])).sum(axis=1)
    worse = (apart & (scores < scores[:, None])).sum(axis=1)
    found = np.stack([1 + better, n_ran - worse], axis=1)
    found[failed] = min(n_ran + 1, len(scores)), len(scores)
    return np.asarray(found, dtype=np.intp)


def _first_share(
    scores: NDArray[np.float64], usable: NDArray[np.bool_], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of the draws that each model wins; the winners of a tie share it."""
    result = np.zeros(len(scores))
    result[np.isfinite(scores) & ~usable] = np.nan
    complete = np.isfinite(draws).all(axis=0)
    if usable.any() and complete.any():
        best = draws[:, complete] == draws[:, complete].max(axis=0)
        result[usable] = (best / best.sum(axis=0)).mean(axis=1)
    return result


def _groups(scores: NDArray[np.float64], apart: NDArray[np.bool_]) -> NDArray[np.intp]:
    groups = np.zeros(len(scores), dtype=np.intp)
    order = [int(i) for i in best_first(scores) if not np.isnan(scores[i])]
    group = 0
    for leader in order:
        if groups[leader] == 0:
            group += 1
            alike = (groups == 0) & ~apart[leader] & ~np.isnan(scores)
            groups[alike] = group
    return groups
