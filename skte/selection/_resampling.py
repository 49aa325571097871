"""Draws of the scores of a bank, from those of its models without each case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.estimators import TransferabilityEstimator

__all__ = ["combined_scores", "leaves", "resampling_weights", "student_factors"]

Part = Mapping[str, Any]


def resampling_weights(
    n_cases: int, n_resamples: int, random_state: int, method: str
) -> NDArray[np.intp]:
    """How often each case is drawn, the same for every model: that pairs their scores.

    Parameters
    ----------
    n_cases : int
        Labelled cases.
    n_resamples : int
        Draws with replacement, for "bootstrap".
    random_state : int
        Seed of the draws.
    method : {"jackknife", "bootstrap"}
        "jackknife" leaves out each case once.

    Returns
    -------
    ndarray of shape (n_cases or n_resamples, n_cases)
        Rows sum to ``n_cases - 1`` or ``n_cases``.
    """
    if method == "jackknife":
        return 1 - np.eye(n_cases, dtype=np.intp)
    rng = np.random.default_rng(random_state)
    drawn = rng.multinomial(n_cases, np.full(n_cases, 1 / n_cases), size=n_resamples)
    return np.asarray(drawn, dtype=np.intp)


def student_factors(n_cases: int, n_resamples: int, random_state: int) -> NDArray[np.float64]:
    """Draw what turns normal deviations into those of Student's t."""
    rng = np.random.default_rng([random_state, 1])
    degrees = n_cases - 1
    return np.asarray(np.sqrt(degrees / rng.chisquare(degrees, n_resamples)))


def leaves(part: Part, of: Callable[[Any], Any]) -> dict[str, Any]:
    """Apply a function to each number or array of a part, however deep."""
    return {
        key: leaves(value, of) if isinstance(value, Mapping) else of(value)
        for key, value in part.items()
    }


def combined_scores(
    estimator: TransferabilityEstimator, parts: Sequence[Part]
) -> NDArray[np.float64]:
    """Scores of a bank for each resample.

    Parameters
    ----------
    estimator : TransferabilityEstimator
        Combines the models of a resample.
    parts : sequence of mapping
        Of each model; arrays of shape (n_resamples,) in place of numbers.

    Returns
    -------
    ndarray of shape (n_models, n_resamples)
        Higher is better.
    """
    if not estimator.tags.relative_to_bank:
        return np.stack([part["score"] for part in parts])
    n_resamples = len(_first_leaf(parts[0]))
    scores = [
        estimator.combine([leaves(part, itemgetter(b)) for part in parts])
        for b in range(n_resamples)
    ]
    return np.stack(scores, axis=1)


def _first_leaf(part: Part) -> Any:
    value = next(iter(part.values()))
    return _first_leaf(value) if isinstance(value, Mapping) else value
