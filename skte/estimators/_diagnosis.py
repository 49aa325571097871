"""What drives a score: layers, classes and cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from skte._table import format_table

__all__ = ["CaseShare", "ClassShare", "Diagnosis", "PairDistance"]

_SHOWN = 5


class ClassShare(NamedTuple):
    """How much of a layer's inconsistency one class makes up.

    Attributes
    ----------
    layer : str
        The layer.
    label : object
        The class.
    distance : float
        Mean distance between cases of the class's feature distribution.
    share : float
        Of the sum over classes, from 0 to 1.
    """

    layer: str
    label: object
    distance: float
    share: float


class CaseShare(NamedTuple):
    """How far one class in one case lies from the same class in the other cases.

    Attributes
    ----------
    case : str
        The case.
    label : object
        The class.
    ratio : float
        Mean distance to the other cases over the median of that over all cases,
        averaged over layers. 1 is ordinary; well above it, look at the case: its
        label may be wrong, or its image from another domain.
    """

    case: str
    label: object
    ratio: float


class PairDistance(NamedTuple):
    """The two cases that lie farthest apart in a class and layer."""

    layer: str
    label: object
    cases: tuple[str, str]
    distance: float


@dataclass(frozen=True)
class Diagnosis:
    """What drives a fitted score.

    Attributes
    ----------
    estimator : str
        Name of the estimator's class.
    score : float
        Its score.
    layers : sequence of (str, float)
        Score of each layer, coarse to fine.
    classes : sequence of ClassShare
        For CC-FV: layer by layer, the class that costs most first.
    cases : sequence of CaseShare
        For CC-FV: the class and case that lie farthest out first.
    pairs : sequence of PairDistance
        For CC-FV: of each layer and class, the two cases that lie farthest apart.
    """

    estimator: str
    score: float
    layers: Sequence[tuple[str, float]]
    classes: Sequence[ClassShare] = field(default_factory=tuple)
    cases: Sequence[CaseShare] = field(default_factory=tuple)
    pairs: Sequence[PairDistance] = field(default_factory=tuple)

    def __str__(self) -> str:
        """Lay the tables out as text; of the cases, the farthest out alone."""
        parts = [
            f"{self.estimator}: {self.score:.4g}",
            format_table(["layer", "score"], self.layers),
        ]
        if self.classes:
            header = ["layer", "class", "mean distance between cases", "share"]
            parts.append(format_table(header, self.classes))
        if self.pairs:
            rows = [(p.layer, p.label, *p.cases, p.distance) for p in self.pairs]
            parts.append(format_table(["layer", "class", "case", "and case", "distance"], rows))
        if self.cases:
            header = ["case", "class", "distance over the median"]
            parts.append(format_table(header, self.cases[:_SHOWN]))
        return "\n\n".join(parts)
