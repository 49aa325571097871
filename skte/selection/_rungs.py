"""The record of a race, rung by rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.selection._racing import RaceStep
from skte.selection._record import ModelRecord

__all__ = ["Rung", "race_table"]


@dataclass(frozen=True, eq=False)
class Rung:
    """One round of a race.

    Attributes
    ----------
    n_cases : int
        Cases that its models were scored on.
    records : sequence of ModelRecord
        Of its models.
    scores : ndarray of shape (n_models,)
        NaN for models that failed.
    step : RaceStep
        Who is behind, and who is dropped.
    """

    n_cases: int
    records: Sequence[ModelRecord]
    scores: NDArray[np.float64]
    step: RaceStep

    @property
    def kept(self) -> list[str]:
        """Names of the models that go on."""
        pairs = zip(self.records, self.step.dropped, strict=True)
        return [record.name for record, dropped in pairs if not dropped]


def race_table(rungs: Sequence[Rung]) -> dict[str, NDArray[Any]]:
    """Equal-length columns, one entry a rung and model.

    Parameters
    ----------
    rungs : sequence of Rung
        In order.

    Returns
    -------
    dict of str to ndarray
        See `HalvingModelBankSelector.rung_results_`.
    """
    rows = [
        {
            "iter": i,
            "n_cases": rung.n_cases,
            "name": record.name,
            "score": float(rung.scores[k]),
            "gap": float(rung.step.gap[k]),
            "gap_error": float(rung.step.gap_error[k]),
            "dropped": bool(rung.step.dropped[k]),
            "n_windows": record.n_windows,
            "seconds_forward": record.seconds_forward,
            "error": "; ".join(dict.fromkeys(record.errors.values())),
        }
        for i, rung in enumerate(rungs)
        for k, record in enumerate(rung.records)
    ]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}
