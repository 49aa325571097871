"""The columns of a selector's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte._table import NONE, Html, format_html_table, format_table, rank_cell
from skte._text import clean_lines, clean_text
from skte.metrics import rank_scores
from skte.selection._confidence import BankConfidence
from skte.selection._workers import ModelRecord

# One number or one word per model; the rest is lists and seconds.
_SHOWN = ("name", "rank", "score")
# What Python itself hides by default: for programmers, not about a model's score.
_NOT_OF_A_MODEL = (
    DeprecationWarning,
    ImportWarning,
    PendingDeprecationWarning,
    ResourceWarning,
)


class Results(dict[str, "NDArray[Any]"]):
    """Columns of equal length by name, one entry per model, that print as a short table.

    It is a dict in every other way: ``pandas.DataFrame(results)`` has all columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.selection import Results
    >>> Results(name=np.array(["a"]), score=np.array([0.5]), seconds_load=np.array([1.2]))
    name  score
    a       0.5
    and 1 more column: seconds_load
    """

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame with all columns.

        Returns
        -------
        pandas.DataFrame
            In bank order; models that failed have no rank.
        """
        import pandas as pd

        return pd.DataFrame(self).astype(dict.fromkeys(self._ranks(), "Int64"))

    def __repr__(self) -> str:
        table = format_table(self._shown(), self._rows())
        return clean_lines("\n".join([table, *self._rest()]))

    def _repr_html_(self) -> str:
        rest = "".join(Html(f"<p>{line}</p>") for line in self._rest())
        return f"{format_html_table(self._shown(), self._rows())}{rest}"

    def _shown(self) -> list[str]:
        keys = [name.removeprefix("score") for name in self if name.startswith("score_")]
        own = [f"{what}{key}" for key in keys for what in ("score", "rank")]
        return [name for name in (*_SHOWN, *own, "error") if name in self]

    def _rows(self) -> list[list[Any]]:
        columns = [
            map(rank_cell if name in self._ranks() else _known_or_none, self[name].tolist())
            for name in self._shown()
        ]
        return [list(row) for row in zip(*columns, strict=True)]

    def _ranks(self) -> list[str]:
        """Name the columns of ranks, which models that failed lack."""
        return [name for name in self if name == "rank" or name.startswith("rank_")]

    def _rest(self) -> list[str]:
        rest = [name for name in self if name not in self._shown()]
        if not rest:
            return []
        count = "1 more column" if len(rest) == 1 else f"{len(rest)} more columns"
        return [f"and {count}: {', '.join(rest)}"]


def _known_or_none(value: Any) -> Any:
    """Return the sign for none in place of NaN, which alone differs from itself."""
    return NONE if value != value else value


def results_table(
    records: Sequence[ModelRecord],
    scores: Mapping[str, NDArray[np.float64]],
    ranks: NDArray[np.float64],
    confidences: Mapping[str, BankConfidence],
    untrained: Sequence[bool],
) -> Results:
    """Columns of `results_`; `ranks` are by the first estimator. Named ones have their own."""
    first, known = next(iter(scores)), known_scores(records, scores)
    several = first != ""
    table: dict[str, NDArray[Any]] = {
        "name": _objects(record.name for record in records),
        "score": scores[first],
        "rank": ranks,
    }
    if several:
        for key, values in scores.items():
            table[f"score_{key}"] = values
            table[f"rank_{key}"] = ranks if key == first else rank_scores(known[key])
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
    table["layers_certainty"] = _objects(record.layers_certainty for record in records)
    table["layer_scores"] = _objects(
        record.layer_scores.get(first, np.array([])) for record in records
    )
    for name in (
        "n_parameters",
        "width",
        "zero_shot",
        "n_axes",
        "n_windows",
        "n_cached",
        "seconds_load",
        "seconds_forward",
        "seconds_tap",
        "seconds_score",
    ):
        table[name] = np.array([getattr(record, name) for record in records])
    table["window"] = _objects(record.window for record in records)
    table["device"] = _objects(record.device for record in records)
    table["untrained"] = np.array(untrained)
    table["warnings"] = _objects(_warnings(record) for record in records)
    table["error"] = _objects(
        "; ".join(dict.fromkeys(map(clean_text, r.errors.values()))) for r in records
    )
    return Results(table)


def known_scores(
    records: Sequence[ModelRecord], scores: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """Scores by estimator with NaN for models that failed, whatever ``error_score`` is."""
    return {
        key: np.where([key in record.parts for record in records], values, np.nan)
        for key, values in scores.items()
    }


def _confidence_columns(confidence: BankConfidence, suffix: str) -> dict[str, NDArray[Any]]:
    ranks = np.where(confidence.groups[:, None] > 0, confidence.rank_intervals, np.nan)
    columns = {
        "standard_error": confidence.standard_errors,
        "interval_low": confidence.intervals[:, 0],
        "interval_high": confidence.intervals[:, 1],
        "rank_low": ranks[:, 0],
        "rank_high": ranks[:, 1],
        "first_share": confidence.first_share,
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
