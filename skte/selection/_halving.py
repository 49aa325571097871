"""Race the models of a bank: all on few cases, the contenders on more."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from skte._files import scratch_folder
from skte._sklearn import Interval, StrOptions, fit_context
from skte.bank import BankEntry, BankLike, ModelBank, entry_digest, load_bank
from skte.datasets import CaseList, DatasetLike
from skte.exceptions import SkteError
from skte.features import FeatureSet
from skte.metrics import best_first, rank_scores
from skte.selection._base import BankSelector
from skte.selection._confidence import without_each
from skte.selection._engine import Engine, check_not_all_failed
from skte.selection._reference import Reference, find_references
from skte.selection._workers import COSTS, ModelRecord


class RaceStep(NamedTuple):
    """What one rung says of its models; arrays of shape (n_models,)."""

    gap: NDArray[np.float64]  # to the last model that would be kept; 0 for those
    gap_error: NDArray[np.float64]  # standard error, as an estimate of that of all cases
    dropped: NDArray[np.bool_]  # whether the gap is too large for chance


@dataclass(frozen=True, eq=False)
class Rung:
    """One round of a race."""

    n_cases: int
    records: Sequence[ModelRecord]
    scores: NDArray[np.float64]  # (n_models,), NaN for failed models
    step: RaceStep

    @property
    def kept(self) -> list[str]:
        """Names of the models that go on."""
        pairs = zip(self.records, self.step.dropped, strict=True)
        return [record.name for record, dropped in pairs if not dropped]


@dataclass(eq=False, repr=False)
class HalvingModelBankSelector(BankSelector):
    """Find the best models of a bank without running all of them over all cases.

    All models are scored on a few cases, drawn at random. Those that are out of the race
    for the best `n_keep` are dropped, the others go on to `factor` times as many cases, and
    so on, until all cases are used or the race is decided. No model runs a case twice.

    Parameters
    ----------
    estimator : TransferabilityEstimator or mapping of str to TransferabilityEstimator, optional
        What scores a model, as for `ModelBankSelector`. The first one decides who is dropped;
        it cannot be one that is relative to the bank (`Ensemble`), which changes while models
        are dropped. The others score the models of the last rung.
    extractor : SegmentationFeatureExtractor, optional
        As for `ModelBankSelector`.
    n_keep : int, default=1
        Number of models to find.
    elimination : {"both", "confidence", "halving"}, default="both"
        "confidence" drops a model where it is behind the `n_keep`-th best by more than
        chance allows: the cost depends on the data. "halving" keeps one of `factor` models
        after each rung, and at least `n_keep`, as sklearn's `HalvingGridSearchCV`: the cost
        is known, the risk is not. "both" drops what either would.
    confidence_level : float, default=0.95
        For "confidence" and "both": of the comparisons of all rungs together, which share the
        risk in equal parts.
    min_cases : int, default=4
        Cases of the first rung, at least 3.
    factor : float, default=1.5
        Cases of a rung over those of the one before.
    n_jobs, device, cache, timeout, error_score, reference, random_state, verbose
        As for `ModelBankSelector`. Without `cache`, a temporary folder serves. `timeout` is for
        a model and rung. The seed also draws the order of the cases. Untrained twins run once,
        those of the models of the last rung, on its cases, and are compared with the leader at
        90 % whatever `confidence_level` is; `cost_` does not count them.

    Attributes
    ----------
    ranking_ : Ranking
        Names, best first: the contenders of the last rung, then those of the rungs before.
    best_name_, answer_, names_, estimators_, date_
        As of `ModelBankSelector`.
    ranks_, scores_ : ndarray of shape (n_models,)
        In bank order; the score of a dropped model is that of its last rung, so scores of
        different rungs are not comparable.
    reference_ : list of Reference
        As of `ModelBankSelector`, on the cases of the last rung.
    results_ : Results
        As of `ModelBankSelector`, for the cases that a model has seen, which ``n_cases`` counts.
        Windows and seconds are of all rungs; ``n_cached`` includes what the race itself has
        kept. Estimators after the first have NaN for models that were dropped.
    n_iterations_ : int
        Rungs run.
    n_resources_, n_candidates_ : list of int
        Cases and models of each rung.
    rung_results_ : dict of ndarray
        One entry per rung and model, for ``pandas.DataFrame``: ``iter``, ``n_cases``, ``name``,
        ``score``, ``gap`` to the last model that would be kept, its ``gap_error``,
        ``dropped``, ``n_windows`` run in this rung, ``seconds_forward``, ``error``.
    cost_ : float
        Cases run, summed over models, as a share of running all models over all cases.

    See Also
    --------
    ModelBankSelector : Runs every model over every case; gives intervals.

    Notes
    -----
    The comparison counts that the cases seen are part of all cases, but not that the leader is
    the largest of many scores; ``benchmarks/confidence`` measures what that costs.

    References
    ----------
    .. [1] Jamieson, K., Talwalkar, A. "Non-stochastic Best Arm Identification and
       Hyperparameter Optimization". AISTATS 2016.
    .. [2] Maron, O., Moore, A. W. "The Racing Algorithm: Model Selection for Lazy
       Learners". Artificial Intelligence Review 11 (1997).

    Examples
    --------
    >>> from torch import nn
    >>> from skte import LogME, SegmentationFeatureExtractor
    >>> from skte.datasets import make_phantoms
    >>> from skte.selection import HalvingModelBankSelector
    >>> bank = {
    ...     name: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    ...     for name in "abcd"
    ... }
    >>> race = HalvingModelBankSelector(
    ...     LogME(), extractor=SegmentationFeatureExtractor(n_class_samples=50), min_cases=3
    ... )
    >>> race = race.fit(bank, make_phantoms(6, size=(12, 12, 12)))
    >>> race.n_resources_[0], race.n_candidates_[0], sorted(race.ranking_)
    (3, 4, ['a', 'b', 'c', 'd'])
    """

    _: KW_ONLY
    n_keep: int = 1
    elimination: str = "both"
    confidence_level: float = 0.95
    min_cases: int = 4
    factor: float = 1.5

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BankSelector._parameter_constraints,
        "n_keep": [Interval(Integral, 1, None, closed="left")],
        "elimination": [StrOptions({"both", "confidence", "halving"})],
        "confidence_level": [Interval(Real, 0.5, 1, closed="neither")],
        "min_cases": [Interval(Integral, 3, None, closed="left")],
        "factor": [Interval(Real, 1, None, closed="neither")],
    }

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, bank: BankLike, dataset: DatasetLike) -> Self:
        """Race the models of the bank over the cases of the dataset.

        Parameters
        ----------
        bank, dataset
            As for `ModelBankSelector`.

        Returns
        -------
        self : HalvingModelBankSelector
            The fitted selector.

        Raises
        ------
        SkteError
            As for `ModelBankSelector`, with fewer cases than `min_cases`, and if the scores of
            the first estimator are relative to the bank.
        """
        models = load_bank(bank)
        entries = list(models)
        cases = Engine.load_cases(
            dataset,
            self.min_cases,
            f"a race needs min_cases={self.min_cases}. Label more, or use ModelBankSelector (in "
            "the shell, leave --race out).",
        )
        has_cache = self.cache is not None or (self.extractor and self.extractor.cache)
        storage: Any = nullcontext(self.cache) if has_cache else scratch_folder("skte-race-")
        with storage as cache:
            engine = self._engine(cache=cache)
            first = next(iter(engine.estimators.values()))
            if first.tags.relative_to_bank:
                raise SkteError(
                    f"{type(first).__name__} scores models relative to the bank, which changes "
                    "while models are dropped: race with another estimator first."
                )
            # A dataset's order may follow scanner or hospital.
            order = np.random.default_rng(engine.random_state).permutation(len(cases))
            shuffled = [cases[i] for i in order]
            rungs = self._race(engine, entries, shuffled)
            references = []
            if self.reference:
                last, seen = rungs[-1], shuffled[: rungs[-1].n_cases]
                left = [models[record.name] for record in last.records]
                weights = without_each(len(seen))
                references = find_references(engine, left, last.records, seen, weights)
        if not has_cache:  # the folder is gone
            engine.extractor.set_params(cache=None)
        self._judge(engine, models, cases, rungs, references)
        return self

    def _race(
        self, engine: Engine, entries: Sequence[BankEntry], cases: Sequence[Any]
    ) -> list[Rung]:
        sizes = rung_sizes(len(cases), self.min_cases, self.factor)
        # The last rung drops no one, so the others share the risk.
        risk = (1 - self.confidence_level) / max(1, len(sizes) - 1)
        alive = {entry.name: entry for entry in entries}
        rungs: list[Rung] = []
        known: dict[str, FeatureSet] = {}
        for size in sizes:
            records = _run_rung(engine, list(alive.values()), cases[:size], known)
            rungs.append(self._rung(engine, records, size, len(cases), 1 - risk))
            alive = {name: alive[name] for name in rungs[-1].kept}
            if len(alive) <= self.n_keep:
                break
        return rungs

    def _rung(
        self,
        engine: Engine,
        records: Sequence[ModelRecord],
        n_cases: int,
        n_total: int,
        confidence: float,
    ) -> Rung:
        first = next(iter(engine.estimators))
        parts = [record.parts.get(first, {"score": np.nan}) for record in records]
        scores = np.array([float(part["score"]) for part in parts])
        check_not_all_failed(records, first)
        nothing = {"score": np.full(n_cases, np.nan)}
        jackknife = np.stack([record.resampled.get(first, nothing)["score"] for record in records])
        step = outpaced(
            scores, jackknife, n_total=n_total, n_keep=self.n_keep, confidence_level=confidence
        )
        dropped = step.dropped
        if n_cases == n_total:
            dropped = np.isnan(scores)
        elif self.elimination != "confidence":
            surplus = self._surplus(scores)
            dropped = surplus | dropped if self.elimination == "both" else surplus
        return Rung(n_cases, records, scores, step._replace(dropped=dropped))

    def _surplus(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        keep = max(self.n_keep, math.ceil(len(scores) / self.factor))
        order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
        dropped = np.isnan(scores)
        dropped[order[keep:]] = True
        return dropped

    def _judge(
        self,
        engine: Engine,
        models: ModelBank,
        cases: CaseList,
        rungs: Sequence[Rung],
        references: Sequence[Reference],
    ) -> None:
        """Order the models by how far they came, and say what is known of them."""
        first, *others = engine.estimators
        last: dict[str, tuple[int, float]] = {}
        for i, rung in enumerate(rungs):
            for record, score in zip(rung.records, rung.scores, strict=True):
                last[record.name] = (i, float(score))
        names = [entry.name for entry in models]
        scores = {first: np.array([last[name][1] for name in names])}
        for key in others:
            ran = [record for record in rungs[-1].records if key in record.parts]
            parts = [record.parts[key] for record in ran]
            found = engine.estimators[key].combine(parts) if ran else ()
            known = dict(zip((record.name for record in ran), found, strict=True))
            scores[key] = np.array([known.get(name, np.nan) for name in names])
        # Later rungs first, then the score; -inf of a last rung is ahead of what was dropped.
        reached = sorted(one for one in last.values() if not math.isnan(one[1]))
        ranks = rank_scores(
            [math.nan if math.isnan(last[n][1]) else bisect_left(reached, last[n]) for n in names]
        )
        self.n_iterations_: int = len(rungs)
        self.n_resources_: list[int] = [rung.n_cases for rung in rungs]
        self.n_candidates_: list[int] = [len(rung.records) for rung in rungs]
        self.rung_results_: dict[str, NDArray[Any]] = _race_table(rungs)
        before = [0, *self.n_resources_[:-1]]
        run = np.subtract(self.n_resources_, before) @ self.n_candidates_
        self.cost_: float = float(run / (len(names) * len(cases)))
        self._collect(
            engine, models, cases, [_whole(name, rungs) for name in names], scores, ranks,
            references, n_cases=[self.n_resources_[last[name][0]] for name in names],
        )  # fmt: skip


def _whole(name: str, rungs: Sequence[Rung]) -> ModelRecord:
    """Return the last record of a model, with the windows and seconds of all rungs."""
    records = [record for rung in rungs for record in rung.records if record.name == name]
    totals = {total: sum(getattr(r, total) for r in records) for total in COSTS}
    return replace(records[-1], **totals)


def _run_rung(
    engine: Engine, entries: Sequence[BankEntry], cases: Sequence[Any], known: dict[str, FeatureSet]
) -> list[ModelRecord]:
    """Score models on cases; `known` keeps the features of models that no cache can hold."""
    weights = without_each(len(cases))
    on_disk = [entry for entry in entries if entry_digest(entry) is not None]
    with closing(engine.run(on_disk, cases, weights=weights)) as running:
        records = {record.name: record for record in running}
    in_memory = [entry for entry in entries if entry.name not in records]
    if in_memory:
        # All have seen the same cases: a model that failed is out of the race.
        before = len(next(iter(known.values()), ()))
        engine = engine.with_extraction(cache=None)
        fresh = cases[before:]
        with closing(engine.run(in_memory, fresh, weights=weights, known=known)) as running:
            records.update((record.name, record) for record in running)
    known.clear()
    for name, record in records.items():
        if record.features is not None:
            known[name], record.features = record.features, None
    return [records[entry.name] for entry in entries]


def rung_sizes(n_cases: int, min_cases: int, factor: float) -> list[int]:
    """Cases of each rung: `min_cases`, then `factor` times as many, up to all."""
    sizes = []
    size = float(min_cases)
    # A last rung of hardly more cases than the one before would decide nothing.
    while size * np.sqrt(factor) <= n_cases:
        sizes.append(round(size))
        size *= factor
    return [*dict.fromkeys(sizes), n_cases]


def outpaced(
    scores: NDArray[np.float64],
    jackknife: NDArray[np.float64],
    *,
    n_total: int | None,
    n_keep: int,
    confidence_level: float,
) -> RaceStep:
    """Find the models that are out of the race for the best `n_keep`; failed ones are.

    `scores` (n_models,) is NaN for failed models, `jackknife` (n_models, n_cases) leaves out
    each case. A model is compared with the `n_keep`-th best in pairs: both saw the same cases.
    Those are a random part of the `n_total` cases (None: infinitely many) that would decide, which
    leaves the share ``1 - n_cases / n_total`` of the variance of a mean.
    """
    n_models, n_cases = jackknife.shape
    order = best_first(scores)
    failed, collapsed = np.isnan(scores), scores == -np.inf
    n_keep = min(n_keep, n_models)
    last = int(order[n_keep - 1])
    gap, gap_error = np.zeros(n_models), np.zeros(n_models)
    dropped = failed.copy()
    if not np.isfinite(scores[last]):
        return RaceStep(gap, gap_error, dropped)
    dropped |= collapsed
    behind = order[n_keep:]
    with np.errstate(invalid="ignore"):
        gap[behind] = scores[last] - scores[behind]
        paired = jackknife[last] - jackknife[behind]
        squares = np.square(paired - paired.mean(axis=1, keepdims=True)).sum(axis=1)
    unseen = 1.0 if n_total is None else 1 - n_cases / n_total
    share = (n_cases - 1) / n_cases * unseen
    gap_error[behind] = np.sqrt(share * squares)
    critical = student.ppf(confidence_level, n_cases - 1)
    with np.errstate(invalid="ignore"):  # an error that is unknown drops no model
        dropped |= gap > critical * gap_error
    dropped[order[:n_keep]] = failed[order[:n_keep]]
    return RaceStep(gap, gap_error, np.asarray(dropped))


def _race_table(rungs: Sequence[Rung]) -> dict[str, NDArray[Any]]:
    """Columns of `rung_results_`: one entry per rung and model."""
    rows = [
        {
            "iter": i,
            "n_cases": rung.n_cases,
            "name": record.name,
            "score": float(rung.scores[k]),
            "gap": float(rung.step.gap[k]),
            "gap_error": float(rung.step.gap_error[k]),
            "dropped": bool(rung.step.dropped[k]),
            "n_windows": record.n_windows,
            "seconds_forward": record.seconds_forward,
            "error": "; ".join(dict.fromkeys(record.errors.values())),
        }
        for i, rung in enumerate(rungs)
        for k, record in enumerate(rung.records)
    ]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}
