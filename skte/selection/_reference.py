"""Untrained twins: what an estimator gives the architectures of a bank by chance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte._text import clean_text
from skte.bank import BankEntry
from skte.estimators import TransferabilityEstimator
from skte.exceptions import BankError
from skte.metrics import best_first
from skte.selection._confidence import BankConfidence, estimate_confidence
from skte.selection._engine import Engine
from skte.selection._workers import ModelRecord

REFERENCE_LEVEL = 0.9  # confidence of the comparison, where none is asked for


@dataclass(frozen=True)
class Reference:
    """What an estimator says of an untrained network, beside the model that it ranks first.

    Attributes
    ----------
    estimator : str
        Key of the estimator, or the name of its class.
    name : str
        The untrained network; it is named after its architecture.
    models : tuple of str
        Models of the bank that have this architecture.
    score : float
        Higher is better; relative scores (`Ensemble`) are relative to the bank and this
        network. NaN where there is no score.
    leader, leader_score : str and float
        The model that the estimator ranks first.
    is_below : bool
        Whether the network is clearly below the leader: beyond what the resampled cases
        allow by chance, where cases were resampled; else by score.
    problem : str
        Why there is no such network or no score; empty otherwise.
    """

    estimator: str
    name: str
    models: tuple[str, ...]
    score: float = np.nan
    leader: str = ""
    leader_score: float = np.nan
    is_below: bool = True
    problem: str = ""


def find_references(
    engine: Engine,
    entries: Sequence[BankEntry],
    records: Sequence[ModelRecord],
    cases: Sequence[Any],
    weights: NDArray[np.intp] | None,
    *,
    confidence_level: float = REFERENCE_LEVEL,
    n_resamples: int = 1000,
) -> list[Reference]:
    """Score a twin of each architecture that ran, and compare each estimator's leader with it.

    They are compared in pairs by cases, where `weights` resample these.
    """
    twins, models, problems = _twins([e for e, r in zip(entries, records, strict=True) if r.parts])
    ran = list(engine.run(twins, cases, weights=weights, is_reference=True))
    resampling = {
        "n_cases": len(cases),
        "confidence_level": confidence_level,
        "n_resamples": n_resamples,
        "random_state": engine.random_state,
    }
    found = []
    for key, estimator in engine.estimators.items():
        label = key or type(estimator).__name__
        known = [record for record in records if key in record.parts]
        found += [Reference(label, "", names, problem=why) for names, why in problems.items()]
        for record in ran if known else ():
            one = Reference(label, record.name, models[record.name])
            if key in record.parts:
                found.append(_compared(one, key, estimator, [*known, record], resampling))
            else:
                found.append(replace(one, problem=clean_text(record.errors[key])))
    return found


def _twins(
    entries: Sequence[BankEntry],
) -> tuple[list[BankEntry], dict[str, tuple[str, ...]], dict[tuple[str, ...], str]]:
    """Return a twin of each architecture, its models, and models without one with the reason."""
    recipes: dict[Any, list[BankEntry]] = {}
    for entry in entries:
        named = entry.factory if isinstance(entry.factory, str) else id(entry.factory)
        recipes.setdefault((named, repr(entry.arguments)), []).append(entry)
    twins: dict[str, BankEntry] = {}
    models: dict[str, tuple[str, ...]] = {}
    problems: dict[tuple[str, ...], str] = {}
    for alike in recipes.values():
        names = tuple(entry.name for entry in alike)
        try:
            twin = alike[0].untrained()
        except BankError as error:
            problems[names] = clean_text(error)
        else:
            twins.setdefault(twin.name, twin)
            models[twin.name] = (*models.get(twin.name, ()), *names)
    return list(twins.values()), models, problems


def _compared(
    known: Reference,
    key: str,
    estimator: TransferabilityEstimator,
    records: Sequence[ModelRecord],
    resampling: Mapping[str, Any],
) -> Reference:
    """Compare the last record with the best of the others."""
    scores = estimator.combine([record.parts[key] for record in records])
    best = int(best_first(scores[:-1])[0])
    is_below = not scores[-1] >= scores[best]
    if is_below and all(key in record.resampled for record in records):
        # Only relative scores need the whole bank.
        chosen = range(len(records)) if estimator.tags.relative_to_bank else (best, -1)
        pair = (records[best].name, records[-1].name)
        shown = [records[i] for i in chosen]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # given for the bank's own models
            sure = confidence_of(key, estimator, shown, scores[list(chosen)], resampling)
        i, j = (sure.names.index(name) for name in pair)
        # Where the error is not known, the scores alone decide.
        is_below = bool(np.isnan(sure.difference_errors[i, j])) or sure.told_apart(*pair)
    return replace(
        known, score=float(scores[-1]), leader=records[best].name,
        leader_score=float(scores[best]), is_below=is_below,
    )  # fmt: skip


def confidence_of(
    key: str,
    estimator: TransferabilityEstimator,
    records: Sequence[ModelRecord],
    scores: NDArray[np.float64],
    resampling: Mapping[str, Any],
) -> BankConfidence:
    """Estimate how sure an estimator's scores of some models are."""
    return estimate_confidence(
        estimator,
        [record.name for record in records],
        scores,
        [record.parts.get(key) for record in records],
        [record.resampled.get(key) for record in records],
        **resampling,
    )


def chance_verdict(references: Sequence[Reference], estimator: str) -> str:
    """Say that an estimator ranks chance as high as its first choice; empty where it does not."""
    flagged = [one for one in references if one.estimator == estimator and not one.is_below]
    if not flagged:
        return ""
    worst = max(flagged, key=lambda one: np.nan_to_num(one.score, neginf=-1e300))
    return (
        f"{estimator} cannot tell training from chance here: an {worst.name} does not score "
        "clearly below the leader."
    )


def twin_scores(names: Sequence[str], references: Sequence[Reference]) -> NDArray[np.float64]:
    """Scores that the first estimator gives the models' untrained twins; NaN where unknown."""
    own = [one for one in references if one.estimator == references[0].estimator]
    scores = {model: one.score for one in own for model in one.models}
    return np.array([scores.get(name, np.nan) for name in names])


def reference_notes(references: Sequence[Reference]) -> list[str]:
    """Say what each estimator gives untrained networks, and where there are none."""
    known: dict[str, list[float]] = {}
    missing: dict[str, dict[str, None]] = {}
    for one in references:
        if one.problem:
            line = f"no untrained reference for {', '.join(one.models)}{{}}: {one.problem}"
            missing.setdefault(line, {})[one.estimator] = None
        else:
            known.setdefault(one.estimator, []).append(one.score)
    ranges = []
    for key, scores in known.items():
        low, high = f"{min(scores):.4g}", f"{max(scores):.4g}"
        ranges.append(f"{low if low == high else f'{low} to {high}'} by {key}")
    said = f"Untrained networks of these architectures score {', '.join(ranges)}."
    every = {one.estimator for one in references}
    # What no estimator has is said once.
    problems = [
        line.replace("{}", "" if every == set(who) else f" by {', '.join(who)}", 1)
        for line, who in missing.items()
    ]
    return [said] * bool(ranges) + sorted(problems)
