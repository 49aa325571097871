"""The order of a bank: names, best first, that print as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte._table import format_html_table, format_table
from skte._text import clean_lines
from skte.metrics import rank_scores

if TYPE_CHECKING:
    from skte.selection._confidence import BankConfidence

__all__ = ["Ranking"]


class Ranking(Sequence[str]):
    """Model names, best first. Its repr is the table of ranks and scores.

    Parameters
    ----------
    names : sequence of str
        Best first.
    scores : array-like of shape (n_models,)
        Score of each name.
    confidence : BankConfidence, optional
        How sure the order of the same models is; the table then shows it.

    Attributes
    ----------
    names, scores, confidence
        As given.

    Examples
    --------
    >>> from skte.selection import Ranking
    >>> ranking = Ranking.from_scores(["a", "b"], [-2.5, -1.5])
    >>> ranking
    rank  model    score
       1  b         -1.5
       2  a         -2.5
    >>> ranking[0], list(ranking)
    ('b', ['b', 'a'])
    """

    def __init__(
        self, names: Sequence[str], scores: ArrayLike, confidence: BankConfidence | None = None
    ) -> None:
        self.confidence = confidence
        self.names: tuple[str, ...] = tuple(names)
        self.scores: NDArray[np.float64] = np.asarray(scores, dtype=np.float64)
        if self.scores.shape != (len(self.names),):
            raise ValueError(
                f"A ranking needs one score per name: {len(self.names)} names, scores of "
                f"shape {self.scores.shape}."
            )

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
        order = np.argsort(rank_scores(scores))
        ordered = np.asarray(scores, dtype=np.float64)[order]
        return cls([names[i] for i in order], ordered, confidence)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.names[index]

    def __eq__(self, other: object) -> bool:
        """Compare the order of names with another ranking's, a list's or a tuple's."""
        if isinstance(other, (Ranking, list, tuple)):
            return self.names == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        if self.confidence is not None:
            return clean_lines(self.confidence)
        return format_table(["rank", "model", "score"], self._rows())

    def _repr_html_(self) -> str:
        if self.confidence is None:
            return format_html_table(["rank", "model", "score"], self._rows())
        table = format_html_table(self.confidence.header, self.confidence.rows())
        return f"{table}<p>{escape(clean_lines(self.confidence.verdict()))}</p>"

    def _rows(self) -> list[tuple[int, str, float]]:
        return [
            (i + 1, name, float(score))
            for i, (name, score) in enumerate(zip(self.names, self.scores, strict=True))
        ]

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame with columns rank, model and score, best first."""
        import pandas as pd

        return pd.DataFrame(self._rows(), columns=["rank", "model", "score"])
