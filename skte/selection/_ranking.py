"""What a selector found: the order of a bank, and columns with all that is known of its models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte._table import NONE, Html, format_html_table, format_table, rank_cell
from skte._text import clean_lines, clean_text
from skte.metrics import best_first, rank_scores
from skte.selection._answer import Answer
from skte.selection._confidence import BankConfidence
from skte.selection._workers import ModelRecord

# One number or one word per model; the rest is lists and seconds.
_SHOWN = ("name", "rank", "score")
_NUMBERS = (
    "n_parameters", "width", "zero_shot", "n_axes", "n_windows", "n_cached", "seconds_load",
    "seconds_forward", "seconds_tap", "seconds_score",
)  # fmt: skip
# What Python itself hides by default: for programmers, not about a model's score.
_NOT_OF_A_MODEL = (DeprecationWarning, ImportWarning, PendingDeprecationWarning, ResourceWarning)


@dataclass(repr=False, eq=False)
class RankedName(str):
    """A name with its row of the table: pandas makes a table of a sequence of dataclasses."""

    rank: float
    model: str
    score: float

    __slots__ = ("model", "rank", "score")

    def __new__(cls, rank: float, model: str, score: float) -> Self:
        """Make the text."""
        return super().__new__(cls, model)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.rank, self.model, self.score


class Ranking(Sequence[str]):
    """Model names, best first. Its repr is the answer: sentences around a table.

    Parameters
    ----------
    names : sequence of str
        Best first.
    scores : array-like of shape (n_models,)
        Score of each name; NaN for models that failed.
    ranks : array-like of shape (n_models,), optional
        Rank of each name, NaN for none, where scores alone do not decide. Default: `rank_scores`.
    confidence : BankConfidence, optional
        How sure the order of the same models is; a table then shows it.
    columns : mapping of str to array-like of shape (n_models,), optional
        Scores by several estimators, of which the first one ranks. The table shows them with
        the rank that each estimator gives.
    facts : mapping of str to sequence, optional
        Columns that are no scores, such as the number of parameters.
    untrained : sequence of str
        Models that the table marks as untrained.
    answer : Answer, optional
        The sentences.

    Examples
    --------
    >>> from skte.selection import Ranking
    >>> ranking = Ranking.from_scores(["a", "b"], [-2.5, -1.5])
    >>> ranking
    rank  model  score
       1  b       -1.5
       2  a       -2.5
    >>> ranking[0], list(ranking)
    ('b', ['b', 'a'])
    """

    def __init__(
        self,
        names: Sequence[str],
        scores: ArrayLike,
        confidence: BankConfidence | None = None,
        *,
        ranks: ArrayLike | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        facts: Mapping[str, Sequence[Any]] | None = None,
        untrained: Sequence[str] = (),
        answer: Answer | None = None,
    ) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.scores: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
        if self.scores.shape != (len(self.names),):
            raise ValueError(
                f"A ranking needs one score per name: {len(self.names)} names, scores of "
                f"shape {self.scores.shape}."
            )
        own = rank_scores(self.scores) if ranks is None else ranks
        self.ranks: NDArray[np.float64] = np.asarray(own, dtype=np.float64)
        self.confidence = confidence
        self.columns = {key: np.asarray(v, np.float64) for key, v in (columns or {}).items()}
        self.facts = dict(facts or {})
        self.untrained = frozenset(untrained)
        self.answer = Answer() if answer is None else answer

    @classmethod
    def from_scores(
        cls, names: Sequence[str], scores: ArrayLike, confidence: BankConfidence | None = None
    ) -> Self:
        """Rank models given in any order, by `rank_scores`; parameters are those of `Ranking`."""
        order = best_first(scores)
        ordered = np.asarray(scores, dtype=np.float64)[order]
        return cls([names[i] for i in order], ordered, confidence)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return self.names[index]
        rank, score = float(self.ranks[index]), float(self.scores[index])
        return RankedName(rank, self.names[index], score)

    def __eq__(self, other: object) -> bool:
        """Compare the order of names with another ranking's, a list's or a tuple's."""
        if isinstance(other, (Ranking, list, tuple)):
            return self.names == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return self.answer.around(*(format_table(*t[1:]) for t in self._titled()))

    def _repr_html_(self) -> str:
        return self.answer.around_html(*(format_html_table(*t[1:]) for t in self._titled()))

    @property
    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        sure = self.confidence.header[3:] if self.confidence and not self._several else []
        facts = [f"({fact})" for fact in self.facts]  # no estimators
        return ["rank", "model", *(self.columns or ["score"]), *sure, *facts]

    def rows(self) -> list[tuple[Any, ...]]:
        """Cells of the table, best first; untrained models are marked, failed ones have no rank."""
        sure = None if self._several else self._sure_cells()
        ranks = self.ranks_by_column()
        rows: list[tuple[Any, ...]] = []
        for i, (name, score) in enumerate(zip(self.names, self.scores, strict=True)):
            cells: list[Any] = [NONE if np.isnan(score) else float(score)]
            if self._several:
                cells = [
                    NONE if np.isnan(values[i]) else f"{values[i]:.4g} ({rank[i]:g})"
                    for values, rank in zip(self.columns.values(), ranks, strict=True)
                ]
            cells += sure[i] if sure else []
            cells += [column[i] for column in self.facts.values()]
            rows.append((rank_cell(self.ranks[i]), self.marked(name), *cells))
        return rows

    def ranks_by_column(self) -> list[NDArray[np.float64]]:
        """Ranks by each estimator; the first one's are those of the ranking."""
        return [self.ranks, *map(rank_scores, list(self.columns.values())[1:])]

    def sure_table(self) -> tuple[str, list[str], list[tuple[Any, ...]]] | None:
        """Title, header and rows of what is only of the first of several estimators, or None."""
        sure = self._sure_cells()
        if sure is None or self.confidence is None or not self._several:
            return None
        first = next(iter(self.columns))
        rows = [(*row[:2], *cells) for row, cells in zip(self.rows(), sure, strict=True)]
        interval, *more = self.confidence.header[3:]
        header = ["rank", "model", f"{interval} of {first}", *more]
        return f"How sure the order of {first} is", header, rows

    @property
    def _several(self) -> bool:
        return len(self.columns) > 1

    def _sure_cells(self) -> list[tuple[Any, ...]] | None:
        """Interval, ranks, share of first places, and whether clearly behind, best first."""
        if self.confidence is None:
            return None
        cells = {row[1]: row[3:] for row in self.confidence.rows()}
        nothing = ("", "", "", "")
        return [
            nothing if np.isnan(score) else cells[name]
            for name, score in zip(self.names, self.scores, strict=True)
        ]

    def _titled(self) -> list[tuple[str, list[str], list[tuple[Any, ...]]]]:
        more = self.sure_table()
        return [("Models, best first", self.header, self.rows()), *([more] if more else [])]

    def marked(self, name: str) -> str:
        """Return a model's name as tables show it."""
        return f"{name} (untrained)" if name in self.untrained else name

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame with columns rank, model and score, best first."""
        import pandas as pd

        return pd.DataFrame(self).astype({"rank": "Int64"})


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
        """Convert to a pandas DataFrame in bank order; models that failed have no rank."""
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
        ranks = self._ranks()
        columns = [
            # NaN alone differs from itself.
            [rank_cell(v) if name in ranks else NONE if v != v else v for v in self[name].tolist()]
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
    table = {"name": _objects(r.name for r in records), "score": scores[first], "rank": ranks}
    if several:
        for key, values in scores.items():
            table[f"score_{key}"] = values
            table[f"rank_{key}"] = ranks if key == first else rank_scores(known[key])
    if confidences:
        table |= _confidence_columns(confidences[first], "")
        if several:
            for key, confidence in confidences.items():
                table |= _confidence_columns(confidence, f"_{key}")
    table["layers"] = _objects(record.layers for record in records)
    table["layers_certainty"] = _objects(record.layers_certainty for record in records)
    table["layer_scores"] = _objects(r.layer_scores.get(first, np.array([])) for r in records)
    for name in _NUMBERS:
        table[name] = np.array([getattr(record, name) for record in records])
    table["window"] = _objects(record.window for record in records)
    table["device"] = _objects(record.device for record in records)
    table["untrained"] = np.array(untrained)
    table["warnings"] = _objects(
        tuple(clean_text(text) for kind, text in r.warned if not issubclass(kind, _NOT_OF_A_MODEL))
        for r in records
    )
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


def _objects(values: Iterable[Any]) -> NDArray[Any]:
    listed = list(values)
    column = np.empty(len(listed), dtype=object)
    for i, value in enumerate(listed):  # assigning a list would broadcast tuples
        column[i] = value
    return column
