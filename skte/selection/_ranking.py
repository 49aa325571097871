"""The order of a bank: names, best first, that print as a table with the answer around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte._table import NONE, format_html_table, format_table, rank_cell
from skte.metrics import best_first, rank_scores
from skte.selection._answer import Answer
from skte.selection._confidence import BankConfidence


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

    Attributes
    ----------
    names, scores, ranks, confidence, columns, facts, untrained, answer
        As given.

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
        """Rank models given in any order, by `rank_scores`.

        Parameters
        ----------
        names, scores, confidence
            As for `Ranking`, but in any order.

        Returns
        -------
        Ranking
            Best first.
        """
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
        # What is no estimator stands in parentheses.
        return [
            "rank",
            "model",
            *(self.columns or ["score"]),
            *sure,
            *(f"({f})" for f in self.facts),
        ]

    def rows(self) -> list[tuple[Any, ...]]:
        """Cells of the table, best first; untrained models are marked, failed ones have no rank."""
        sure = None if self._several else self._sure_cells()
        _, *others = self.columns.values() if self._several else ((),)
        ranks = [self.ranks, *map(rank_scores, others)]
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
