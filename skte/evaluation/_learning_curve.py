"""How many labelled cases a ranking needs: its stability against their number."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from skte._table import format_table
from skte.bank import BankLike, load_bank
from skte.datasets import DatasetLike
from skte.estimators import TransferabilityEstimator
from skte.evaluation._card import check_level
from skte.extraction import FeatureCache, SegmentationFeatureExtractor
from skte.metrics import best_first, weighted_kendall_rows
from skte.selection import Engine


@dataclass(frozen=True, eq=False)
class RankLearningCurve:
    """Stability of a ranking against the number of labelled cases. Prints as a table.

    Attributes
    ----------
    n_cases : ndarray of shape (n_sizes,)
        Cases drawn.
    names : sequence of str
        Models that could be scored.
    scores : ndarray of shape (n_models,)
        With all cases.
    score_mean, score_std : ndarray of shape (n_models, n_sizes)
        Of the scores, over the draws.
    kendall_to_all, top1_to_all : ndarray of shape (n_sizes,)
        Mean weighted Kendall of a draw's ranking with that of all cases, and share of the draws
        with the same best model. Draws are part of all cases, so both end at 1.
    kendall_apart, top1_apart : ndarray of shape (n_sizes,)
        The same between two draws without a case in common: what to expect if as many *other*
        cases had been labelled. NaN above half of the cases.
    reliability : float
        Mean Spearman correlation between the rankings of the largest two separate draws.
    target : float
        Agreement that is enough.
    """

    n_cases: NDArray[np.intp]
    names: Sequence[str]
    scores: NDArray[np.float64]
    score_mean: NDArray[np.float64]
    score_std: NDArray[np.float64]
    kendall_to_all: NDArray[np.float64]
    top1_to_all: NDArray[np.float64]
    kendall_apart: NDArray[np.float64]
    top1_apart: NDArray[np.float64]
    reliability: float
    target: float

    @property
    def suggested_n_cases(self) -> int | None:
        """Cases from which on rankings of separate draws agree as well as `target`; None: unknown.

        Above half of the cases, extrapolated by Spearman-Brown from the largest draws.
        """
        known = np.isfinite(self.kendall_apart)
        good = self.kendall_apart >= self.target
        for i in np.flatnonzero(known):
            if good[i:][known[i:]].all():
                return int(self.n_cases[i])
        if not 0.0 < self.reliability < self.target:
            return None
        odds = self.target / (1 - self.target) * (1 - self.reliability) / self.reliability
        return math.ceil(odds * int(self.n_cases[known][-1]))

    @property
    def suggestion(self) -> str:
        """What to do, in a sentence."""
        n, now = self.suggested_n_cases, int(self.n_cases[-1])
        if n is None and self.reliability >= self.target:
            return (
                f"Rankings of separate draws agree as a whole (Spearman {self.reliability:.2f}), "
                "but not on the first places: models there may be alike. See the groups that "
                "confidence_level gives."
            )
        if n is None:
            return (
                f"Rankings of separate draws do not agree: {now} cases do not tell these models "
                "apart, and more may not."
            )
        if n <= now:
            return f"{n} of the {now} cases give a stable ranking (agreement {self.target:g})."
        return (
            f"{now} cases do not give a stable ranking (agreement {self.target:g}); it may take "
            f"about {n}."
        )

    def __str__(self) -> str:
        """Lay out the table, and the suggestion."""
        columns = (self.kendall_apart, self.top1_apart, self.kendall_to_all, self.top1_to_all)
        rows = [
            [int(n), *("" if np.isnan(c[i]) else f"{c[i]:.2f}" for c in columns)]
            for i, n in enumerate(self.n_cases)
        ]
        header = ["cases", "tau, other cases", "same best", "tau, all cases", "same best"]
        return f"{format_table(header, rows)}\n{self.suggestion}"


def rank_learning_curve(
    estimator: TransferabilityEstimator,
    bank: BankLike,
    dataset: DatasetLike,
    *,
    n_cases: Sequence[int] | None = None,
    n_draws: int = 50,
    target: float = 0.9,
    extractor: SegmentationFeatureExtractor | None = None,
    n_jobs: int | None = None,
    device: str | torch.device | None = None,
    cache: str | os.PathLike[str] | FeatureCache | None = None,
    random_state: int = 0,
) -> RankLearningCurve:
    """Rank a bank on random parts of the cases, from one extraction.

    Parameters
    ----------
    estimator, bank, dataset, extractor, n_jobs, device, cache
        As for `ModelBankSelector`, with one estimator and at least four labelled cases.
    n_cases : sequence of int, optional
        Sizes of the parts, from 2 to the number of cases. Default: about six sizes from 2,
        each about half as much again as the one before; the last is all cases.
    n_draws : int, default=50
        Draws of each size.
    target : float, default=0.9
        Weighted Kendall between rankings of separate draws that is called stable.
    random_state : int, default=0
        Seed of the voxels and of the draws.

    Returns
    -------
    RankLearningCurve
        Prints as a table.

    Raises
    ------
    SkteError
        As for `ModelBankSelector`, and if there are fewer than four cases.

    Examples
    --------
    >>> from torch import nn
    >>> from skte import LogME, SegmentationFeatureExtractor
    >>> from skte.datasets import make_phantoms
    >>> from skte.evaluation import rank_learning_curve
    >>> bank = {
    ...     name: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    ...     for name in "abc"
    ... }
    >>> curve = rank_learning_curve(
    ...     LogME(), bank, make_phantoms(6, size=(12, 12, 12)), n_cases=[2, 3, 6], n_draws=4,
    ...     extractor=SegmentationFeatureExtractor(n_class_samples=50),
    ... )
    >>> curve.n_cases, float(curve.kendall_to_all[-1])
    (array([2, 3, 6]), 1.0)
    """
    check_level("target", target)
    if not isinstance(n_draws, Integral) or n_draws < 2:
        raise ValueError(f"n_draws must be an integer of at least 2, got {n_draws!r}.")
    models = list(load_bank(bank))
    cases = Engine.load_cases(
        dataset, 4, "a learning curve needs at least four, so that two separate draws of two exist."
    )
    sizes = _sizes(n_cases, len(cases))
    weights, rows = _draws(len(cases), sizes, n_draws, random_state)
    engine = Engine.from_settings(
        estimator, extractor=extractor, device=device, cache=cache,
        random_state=random_state, n_jobs=n_jobs, error_score=np.nan,
    )  # fmt: skip
    with closing(engine.run(models, cases, weights=weights)) as running:
        records = [record for record in running if record.parts]
    if len(records) < 2:
        raise ValueError("Fewer than two models could be scored: there is nothing to rank.")
    scores = engine.resampled_scores(records)
    return _curve([record.name for record in records], scores, sizes, rows, target)


def _sizes(given: Sequence[int] | None, n_total: int) -> list[int]:
    if given is None:
        sizes, size = [], 2.0
        while size <= n_total / 2:
            sizes.append(round(size))
            size *= 1.5
        return list(dict.fromkeys([*sizes, n_total // 2, n_total]))
    sizes = sorted({int(n) for n in given if isinstance(n, Integral)})
    if len(sizes) != len(given) or not sizes or sizes[0] < 2 or sizes[-1] > n_total:
        what = f"distinct whole numbers from 2 to {n_total}, the number of cases"
        raise ValueError(f"n_cases={list(given)!r} must hold {what}.")
    if 2 * sizes[0] > n_total:
        raise ValueError(
            f"n_cases={list(given)!r} has no size of at most half of the {n_total} cases: two "
            "separate draws are needed to tell what other cases would give."
        )
    return sizes


def _draws(
    n_total: int, sizes: Sequence[int], n_draws: int, seed: int
) -> tuple[NDArray[np.intp], dict[int, list[tuple[int, ...]]]]:
    """Weights of all draws, the first of all cases, and the rows of each size: separate ones."""
    rng = np.random.default_rng(seed)
    weights = [np.ones(n_total, dtype=np.intp)]
    rows: dict[int, list[tuple[int, ...]]] = {size: [] for size in sizes}
    for size in sizes:
        n_apart = 2 if 2 * size <= n_total else 1
        for _ in range(n_draws if size < n_total else 1):
            order = rng.permutation(n_total)
            rows[size].append(tuple(range(len(weights), len(weights) + n_apart)))
            for which in range(n_apart):
                chosen = np.zeros(n_total, dtype=np.intp)
                chosen[order[which * size : (which + 1) * size]] = 1
                weights.append(chosen)
    return np.stack(weights), rows


def _curve(
    names: Sequence[str],
    scores: NDArray[np.float64],
    sizes: Sequence[int],
    rows: Mapping[int, Sequence[tuple[int, ...]]],
    target: float,
) -> RankLearningCurve:
    table = np.full((4, len(sizes)), np.nan)
    mean, std = np.full((2, len(names), len(sizes)), np.nan)
    reliability = np.nan
    for k, size in enumerate(sizes):
        own = [i for apart in rows[size] for i in apart]
        pairs = [(apart[0], apart[1]) for apart in rows[size] if len(apart) == 2]
        finite = np.where(np.isfinite(scores[:, own]), scores[:, own], np.nan)
        known = np.isfinite(finite).any(axis=1)
        mean[known, k], std[known, k] = (
            np.nanmean(finite[known], axis=1),
            np.nanstd(finite[known], axis=1),
        )
        table[2, k], table[3, k] = _agreement(scores, [(i, 0) for i in own])
        if pairs:
            table[0, k], table[1, k] = _agreement(scores, pairs)
            reliability = _reliability(scores, pairs)
    return RankLearningCurve(
        np.array(sizes, dtype=np.intp), tuple(names), scores[:, 0], mean, std,
        kendall_to_all=table[2], top1_to_all=table[3], kendall_apart=table[0],
        top1_apart=table[1], reliability=reliability, target=float(target),
    )  # fmt: skip


def _agreement(
    scores: NDArray[np.float64], pairs: Sequence[tuple[int, int]]
) -> tuple[float, float]:
    """Mean weighted Kendall of columns of scores, and share with the same best model."""
    a, b = (np.stack([_ranks(scores[:, k]) for k in column]) for column in zip(*pairs, strict=True))
    taus = weighted_kendall_rows(-a, -b)
    return float(taus.mean()), float((a.argmin(axis=1) == b.argmin(axis=1)).mean())


def _reliability(scores: NDArray[np.float64], pairs: Sequence[tuple[int, int]]) -> float:
    found = [spearmanr(_ranks(scores[:, i]), _ranks(scores[:, j])).statistic for i, j in pairs]
    return float(np.mean(found))


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.argsort(best_first(scores)).astype(np.float64) + 1
