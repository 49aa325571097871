"""How well a ranking agrees with what models reached, beside what needs no features."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from skte._table import format_table

__all__ = ["Agreement", "EvaluationCard", "WithinArchitecture"]


@dataclass(frozen=True)
class Agreement:
    """Agreement of one list of scores with true performances.

    Attributes
    ----------
    method : str
        What the scores are of.
    weighted_kendall : float
        In [-1, 1]; NaN where all scores are equal.
    pvalue : float
        Share of random orders that agree as well, see `weighted_kendall_test`.
    interval : tuple of float
        Of the weighted Kendall, had other models been in the bank (bootstrap over models).
    pearson : float
        In [-1, 1]; NaN where a score is infinite.
    spearman : float
        In [-1, 1].
    regret : mapping of int to float
        By k: the best performance less the best one of the k models scored highest.
    """

    method: str
    weighted_kendall: float
    pvalue: float
    interval: tuple[float, float]
    pearson: float
    spearman: float
    regret: Mapping[int, float]


@dataclass(frozen=True)
class WithinArchitecture:
    """Agreement among the models of one architecture.

    Attributes
    ----------
    method : str
        What the scores are of.
    architecture : str
        Whose models.
    n_models : int
        At least three.
    weighted_kendall : float
        In [-1, 1]; NaN where all scores are equal.
    pvalue : float
        Of as many models; with three it is at least 1/6.
    """

    method: str
    architecture: str
    n_models: int
    weighted_kendall: float
    pvalue: float


@dataclass(frozen=True)
class EvaluationCard:
    """What is to be said beside a correlation with true performances. Prints as a text.

    Attributes
    ----------
    n_models : int
        Models compared.
    excluded : sequence of str
        Models without a score or a performance.
    rows : sequence of Agreement
        The scores first, then the baselines.
    within : sequence of WithinArchitecture
        Empty where architectures are not told.
    confidence_level : float
        Of the intervals.
    null_std : float
        Standard deviation of the weighted Kendall of random orders of so many models.

    See Also
    --------
    evaluate_ranking : Makes one.
    """

    n_models: int
    excluded: Sequence[str]
    rows: Sequence[Agreement]
    within: Sequence[WithinArchitecture]
    confidence_level: float
    null_std: float

    def __getitem__(self, method: str) -> Agreement:
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(f"{method!r}; the card has {[row.method for row in self.rows]}.")

    def __str__(self) -> str:
        """Lay out tables, and what to keep in mind with so many models."""
        sure = f"{100 * self.confidence_level:g} % interval"
        ks = list(self.rows[0].regret)
        header = ["", "weighted Kendall", sure, "p", "Pearson", "Spearman"]
        rows = [
            [
                row.method,
                _rounded(row.weighted_kendall),
                "{:.2f} to {:.2f}".format(*row.interval),
                _rounded(row.pvalue, 4),
                _rounded(row.pearson),
                _rounded(row.spearman),
                *(_rounded(row.regret[k], 4) for k in ks),
            ]
            for row in self.rows
        ]
        parts = [
            f"{self.n_models} models; random orders have a weighted Kendall of 0 ± "
            f"{self.null_std:.2f}",
            format_table([*header, *(f"regret@{k}" for k in ks)], rows),
        ]
        if self.within:
            table = [
                [one.method, one.architecture, one.n_models, _rounded(one.weighted_kendall),
                 _rounded(one.pvalue, 4)]
                for one in self.within
            ]  # fmt: skip
            header = ["", "within", "models", "weighted Kendall", "p"]
            parts.append(format_table(header, table))
        if self.excluded:
            parts.append("left out, without score or performance: " + ", ".join(self.excluded))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Turn the card into plain values; NaN becomes None.

        Returns
        -------
        dict
            For JSON.
        """
        return dict(_plain(asdict(self)))

    def to_json(self) -> str:
        """Turn the card into JSON text.

        Returns
        -------
        str
            Without a final newline; NaN is null.
        """
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


def _rounded(value: float, digits: int = 3) -> float:
    return round(float(value), digits)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
