"""The table of a fitted selector: one row a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte._text import clean_text
from skte.metrics import rank_scores
from skte.selection._confidence import BankConfidence
from skte.selection._record import ModelRecord

__all__ = ["results_table"]

# What Python itself hides by default: for programmers, not about a model's score.
_NOT_OF_A_MODEL = (
    DeprecationWarning,
    ImportWarning,
    PendingDeprecationWarning,
    ResourceWarning,
)


def results_table(
    records: Sequence[ModelRecord],
    scores: Mapping[str, NDArray[np.float64]],
    *,
    several: bool,
    confidences: Mapping[str, BankConfidence] | None = None,
) -> dict[str, NDArray[Any]]:
    """Equal-length columns of what is known of the models.

    Parameters
    ----------
    records : sequence of ModelRecord
        In bank order.
    scores : mapping of str to ndarray of shape (n_models,)
        By estimator; the first one ranks.
    several : bool
        Whether every estimator has columns of its own.
    confidences : mapping of str to BankConfidence, optional
        By estimator, where cases were resampled.

    Returns
    -------
    dict of str to ndarray
        See `ModelBankSelector.results_`.
    """
    first = next(iter(scores))
    table: dict[str, NDArray[Any]] = {
        "name": _objects(record.name for record in records),
        "score": scores[first],
        "rank": rank_scores(scores[first]),
    }
    if several:
        for key, values in scores.items():
            table[f"score_{key}"] = values
            table[f"rank_{key}"] = rank_scores(values)
    if confidences:
        table |= _confidence_columns(confidences[first], "")
        if several:
            for key, confidence in confidences.items():
                table |= _confidence_columns(confidence, f"_{key}")
    for key in scores:
        if any(record.pair_standard_errors.get(key, 0.0) > 0.0 for record in records):
            name = f"pair_standard_error_{key}" if key else "pair_standard_error"
            errors = [record.pair_standard_errors.get(key, np.nan) for record in records]
            table[name] = np.array(errors)
    table["layers"] = _objects(record.layers for record in records)
    table["layer_scores"] = _objects(
        record.layer_scores.get(first, np.array([])) for record in records
    )
    for name in (
        "n_windows",
        "n_cached",
        "seconds_load",
        "seconds_forward",
        "seconds_tap",
        "seconds_score",
    ):
        table[name] = np.array([getattr(record, name) for record in records])
    table["warnings"] = _objects(_warnings(record) for record in records)
    table["error"] = _objects(
        "; ".join(dict.fromkeys(map(clean_text, r.errors.values()))) for r in records
    )
    return table


def _confidence_columns(confidence: BankConfidence, suffix: str) -> dict[str, NDArray[Any]]:
    columns = {
        "standard_error": confidence.standard_errors,
        "interval_low": confidence.intervals[:, 0],
        "interval_high": confidence.intervals[:, 1],
        "rank_low": confidence.rank_intervals[:, 0],
        "rank_high": confidence.rank_intervals[:, 1],
        "prob_best": confidence.prob_best,
        "group": confidence.groups,
    }
    return {f"{name}{suffix}": values for name, values in columns.items()}


def _warnings(record: ModelRecord) -> tuple[str, ...]:
    return tuple(
        clean_text(text) for kind, text in record.warned if not issubclass(kind, _NOT_OF_A_MODEL)
    )


def _objects(values: Iterable[Any]) -> NDArray[Any]:
    listed = list(values)
    column = np.empty(len(listed), dtype=object)
    for i, value in enumerate(listed):  # assigning a list would broadcast tuples
        column[i] = value
    return column
