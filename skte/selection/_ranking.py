"""The order of a bank: names, best first, that print as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skte._table import format_html_table, format_table
from skte._text import clean_lines
from skte.metrics import rank_scores
from skte.selection._confidence import BankConfidence
from skte.selection._reference import Reference, notes, verdicts

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
    reference : sequence of Reference
        Untrained networks to compare with, shown around the table.
    untrained : sequence of str
        Models that the table marks as untrained.
    agreement : float
        Mean weighted Kendall correlation between the orders of several estimators; NaN where
        there is one, or fewer than four models.

    Attributes
    ----------
    names, scores, confidence, reference, untrained, agreement
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
        self,
        names: Sequence[str],
        scores: ArrayLike,
        confidence: BankConfidence | None = None,
        *,
        reference: Sequence[Reference] = (),
        untrained: Sequence[str] = (),
        agreement: float = np.nan,
    ) -> None:
        self.agreement = agreement
        self.reference = reference
        self.untrained = frozenset(untrained)
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
        cls,
        names: Sequence[str],
        scores: ArrayLike,
        confidence: BankConfidence | None = None,
        **shown: Any,
    ) -> Self:
        """Rank models given in any order, by `rank_scores`.

        Parameters
        ----------
        names, scores, confidence, **shown
            As for `Ranking`, but in any order.

        Returns
        -------
        Ranking
            Best first.
        """
        order = np.argsort(rank_scores(scores))
        ordered = np.asarray(scores, dtype=np.float64)[order]
        return cls([names[i] for i in order], ordered, confidence, **shown)

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
        table = format_table(self.header, self.rows())
        return clean_lines("\n".join([*self.warnings(), table, *self.notes()]))

    def _repr_html_(self) -> str:
        above, below = (
            "".join(f"<p>{escape(clean_lines(line))}</p>" for line in lines)
            for lines in (self.warnings(), self.notes())
        )
        return f"{above}{format_html_table(self.header, self.rows())}{below}"

    @property
    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        return ["rank", "model", "score", *(self.confidence.header[3:] if self.confidence else [])]

    def rows(self) -> list[tuple[Any, ...]]:
        """Cells of the table, best first; untrained models are marked."""
        more = [row[3:] for row in self.confidence.rows()] if self.confidence else None
        return [
            (i + 1, self.marked(name), float(score), *(more[i] if more else ()))
            for i, (name, score) in enumerate(zip(self.names, self.scores, strict=True))
        ]

    def marked(self, name: str) -> str:
        """Return a model's name as tables show it."""
        return f"{name} (untrained)" if name in self.untrained else name

    def warnings(self) -> list[str]:
        """Sentences that belong before the table: estimators that rank chance as high."""
        return verdicts(self.reference)

    def notes(self) -> list[str]:
        """Lines below the table: untrained networks, agreement, and what may be the best."""
        lines = notes(self.reference)
        if not np.isnan(self.agreement):
            lines.append(
                f"The estimators agree at {self.agreement:.2f} on average (weighted Kendall; 1 is "
                "the same order, 0 chance). Where they disagree, trust none of them much."
            )
        return lines + ([self.confidence.verdict()] if self.confidence else [])

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame with columns rank, model and score, best first."""
        import pandas as pd

        rows = zip(range(1, len(self) + 1), self.names, self.scores, strict=True)
        return pd.DataFrame(rows, columns=["rank", "model", "score"])
