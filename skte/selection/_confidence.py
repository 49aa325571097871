"""How sure the ranking of a bank is, given that other cases could have been labelled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
# Of the bootstrap's draws; such as those without a class.
_MOST_UNDEFINED = 0.5
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
    method : {"jackknife", "bootstrap"}
        How cases were resampled.

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
    method: str

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


def resampling_weights(
    n_cases: int, n_resamples: int, random_state: int, method: str
) -> NDArray[np.intp]:
    """How often each case is drawn, the same for every model: (n_resamples, n_cases)."""
    if method == "jackknife":
        return 1 - np.eye(n_cases, dtype=np.intp)
    rng = np.random.default_rng(random_state)
    drawn = rng.multinomial(n_cases, np.full(n_cases, 1 / n_cases), size=n_resamples)
    return np.asarray(drawn, dtype=np.intp)


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


@dataclass(frozen=True)
class _Design:
    """How cases were resampled, and what is to be concluded from it."""

    n_cases: int
    n_draws: int
    method: str
    random_state: int
    level: float

    @property
    def factors(self) -> NDArray[np.float64]:
        """Turn normal deviations into those of Student's t: (n_draws,)."""
        rng = np.random.default_rng([self.random_state, 1])
        degrees = self.n_cases - 1
        return np.asarray(np.sqrt(degrees / rng.chisquare(degrees, self.n_draws)))

    @property
    def shocks(self) -> NDArray[np.float64]:
        """Normal weights of the cases, the same for all models: they stay paired."""
        rng = np.random.default_rng([self.random_state, 2])
        return rng.normal(size=(self.n_cases, self.n_draws))


class _Law(NamedTuple):
    """What resampling says of the scores of the models that have any."""

    centres: NDArray[np.float64]  # (n_models,)
    errors: NDArray[np.float64]  # (n_models,)
    pair_errors: NDArray[np.float64]  # (n_models, n_models)
    draws: NDArray[np.float64]  # (n_models, n_draws), scores
    critical_value: Callable[[float], float]


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
    method: str,
    random_state: int,
) -> BankConfidence:
    """From resampled scores to intervals, ranks and ties, in bank order."""
    design = _Design(n_cases, n_resamples, method, random_state, confidence_level)
    usable = np.zeros(len(names), dtype=bool)
    for i, part in enumerate(resampled):
        usable[i] = part is not None and np.isfinite(scores[i]) and _all_finite(part, method)
    _warn_of_undefined(names, scores, resampled, usable, method)
    law = _nothing(n_resamples)
    if usable.any():
        kept = [int(i) for i in np.flatnonzero(usable)]
        chosen = [parts[i] for i in kept], [resampled[i] for i in kept]
        law = _law(estimator, scores[kept], *chosen, design)
    return _collect(names, scores, usable, law, design, estimator.tags.relative_to_bank)


def _all_finite(part: Part, method: str) -> bool:
    """Bootstrap draws may lose a class now and then; without a case, a score must exist."""
    for values in _arrays(part):
        collapsed = bool((values == -np.inf).all())  # a member of an ensemble that always is
        if method == "bootstrap" and np.isinf(values).any() and not collapsed:
            return False
        if method == "bootstrap" and np.isnan(values).mean() > _MOST_UNDEFINED:
            return False
        if method == "jackknife" and not (collapsed or np.isfinite(values).all()):
            return False
    return True


def _arrays(part: Part) -> list[NDArray[np.float64]]:
    found: list[NDArray[np.float64]] = []
    _leaves(part, lambda values: found.append(np.asarray(values)))
    return found


def _warn_of_undefined(
    names: Sequence[str],
    scores: NDArray[np.float64],
    resampled: Sequence[Part | None],
    usable: NDArray[np.bool_],
    method: str,
) -> None:
    for name, score, part, known in zip(names, scores, resampled, usable, strict=True):
        if part is None or known or not np.isfinite(score):
            continue
        which = ""
        if method == "jackknife":
            without = {int(i) for a in _arrays(part) for i in np.flatnonzero(~np.isfinite(a))}
            which = f" (at positions {sorted(without)})"
        warnings.warn(
            f"Model {name!r}: its score is undefined or -inf without some of the cases{which}, so "
            "it has no standard error. Label more cases that hold every class.",
            SkteWarning,
            stacklevel=4,
        )


def _nothing(n_draws: int) -> _Law:
    none = np.zeros((0, n_draws))
    return _Law(np.zeros(0), np.zeros(0), np.zeros((0, 0)), none, lambda level: 0.0)


def _law(
    estimator: TransferabilityEstimator,
    scores: NDArray[np.float64],
    parts: Sequence[Any],
    resampled: Sequence[Any],
    design: _Design,
) -> _Law:
    n, method = design.n_cases, design.method
    if estimator.tags.relative_to_bank:
        drawn = list(resampled)
        if method == "jackknife":  # of the members: an order has no derivative
            shocks, factors = design.shocks, design.factors
            drawn = [_drawn(p, r, shocks, factors) for p, r in zip(parts, resampled, strict=True)]
        draws = combined_scores(estimator, drawn)
        errors, pair_errors, deviations = _of_draws(draws, n if method == "bootstrap" else 0)
        return _Law(scores, errors, pair_errors, draws, _largest_gaps(deviations, pair_errors))
    values = combined_scores(estimator, resampled)
    if method == "bootstrap":
        errors, pair_errors, deviations = _of_draws(values, n)
        deviations = deviations * design.factors[: deviations.shape[1]]
        critical = _largest_gaps(deviations, pair_errors)
        if estimator.tags.corrects_bias:
            shift = scores - np.nanmean(values, axis=1)
            return _Law(scores + shift, errors, pair_errors, values + 2 * shift[:, None], critical)
        return _Law(scores, errors, pair_errors, values, critical)
    gaps = values - values.mean(axis=1, keepdims=True)
    share = (n - 1) / n
    errors = np.sqrt(share * (gaps**2).sum(axis=1))
    pair_errors = np.sqrt(share * ((gaps[:, None] - gaps) ** 2).sum(axis=2))
    deviations = gaps @ design.shocks * np.sqrt(share) * design.factors
    critical = partial(_critical_value, gaps, design.n_draws, design.random_state)
    centres = scores
    if estimator.tags.corrects_bias:
        centres = scores - (n - 1) * (values.mean(axis=1) - scores)
    return _Law(centres, errors, pair_errors, centres[:, None] + deviations, critical)


def _drawn(
    part: Mapping[str, Any],
    resampled: Mapping[str, Any],
    shocks: NDArray[np.float64],
    factors: NDArray[np.float64],
) -> dict[str, Any]:
    """Draws of every member's score, from those without each case."""
    result: dict[str, Any] = {}
    for key, values in resampled.items():
        if isinstance(values, Mapping):
            result[key] = _drawn(part[key], values, shocks, factors)
        elif not np.isfinite(values).all():  # always collapsed
            result[key] = np.full(len(factors), -np.inf)
        else:
            share = (len(values) - 1) / len(values)
            deviations = (values - values.mean()) @ shocks * np.sqrt(share) * factors
            result[key] = part[key] + deviations
    return result


def _of_draws(
    draws: NDArray[np.float64], n_cases: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return standard errors and deviations; a bootstrap's variance is (n - 1) / n too small."""
    deviations = draws - np.nanmean(draws, axis=1, keepdims=True)
    if n_cases:
        deviations = deviations * np.sqrt(n_cases / (n_cases - 1))
    errors = np.sqrt(np.nanmean(deviations**2, axis=1))
    pairs = [np.sqrt(np.nanmean((deviations - one) ** 2, axis=1)) for one in deviations]
    return errors, np.stack(pairs), deviations


def _collect(
    names: Sequence[str],
    scores: NDArray[np.float64],
    usable: NDArray[np.bool_],
    law: _Law,
    design: _Design,
    relative: bool,
) -> BankConfidence:
    n_models, level = len(names), design.level
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
        half = student.ppf((1 + level) / 2, design.n_cases - 1) * law.errors
        intervals[kept] = np.stack([law.centres - half, law.centres + half], axis=1)
    collapsed = scores == -np.inf
    intervals[collapsed] = -np.inf
    intervals[np.isfinite(scores) & ~usable] = -np.inf, np.inf
    pair_errors = _all_pair_errors(scores, usable, law.pair_errors)
    critical = law.critical_value(level)
    apart = tell_apart(centres, pair_errors, critical)
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
        critical_value=critical,
        confidence_level=level,
        n_cases=design.n_cases,
        method=design.method,
    )


def _all_pair_errors(
    scores: NDArray[np.float64], usable: NDArray[np.bool_], known: NDArray[np.float64]
) -> NDArray[np.float64]:
    errors = np.full((len(scores),) * 2, np.nan)
    errors[np.ix_(usable, usable)] = known
    collapsed = scores == -np.inf
    errors[np.ix_(collapsed, usable)] = errors[np.ix_(usable, collapsed)] = 0.0
    np.fill_diagonal(errors, 0.0)
    return errors


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


def _largest_gaps(
    deviations: NDArray[np.float64], pair_errors: NDArray[np.float64]
) -> Callable[[float], float]:
    """Quantiles of the largest standardised difference of two models in draws of scores."""
    i, j = np.triu_indices(len(deviations), k=1)
    varies = pair_errors[i, j] > 0
    largest = np.zeros(deviations.shape[1])
    for a, b in zip(i[varies], j[varies], strict=True):
        gaps = np.abs(deviations[a] - deviations[b]) / pair_errors[a, b]
        largest = np.fmax(largest, gaps)
    return lambda level: float(np.quantile(largest, level))


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
