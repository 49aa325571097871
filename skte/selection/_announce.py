"""What is said of models while a bank runs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from sklearn.exceptions import FitFailedWarning

from skte._text import clean_text, say
from skte.exceptions import SkteError
from skte.selection._record import ModelRecord

__all__ = ["announce", "check_not_all_failed"]

_log = logging.getLogger("skte")


def announce(record: ModelRecord, place: str, *, error_score: str | float, verbose: int) -> None:
    """Pass on a model's warnings and failures under its name, and log its scores.

    Parameters
    ----------
    record : ModelRecord
        Of the model.
    place : str
        Which of how many, ``"1/8"``.
    error_score : "raise" or float
        What a failed model scores.
    verbose : int
        Above 0, the line is also printed.
    """
    for category, text in record.warned:
        warnings.warn(f"Model {record.name!r}: {clean_text(text)}", category, stacklevel=2)
    for key, reason in record.errors.items():
        for_what = f" ({key})" if key else ""
        warnings.warn(
            f"Model {record.name!r}{for_what} failed and scores {error_score}: "
            f"{clean_text(reason)}",
            FitFailedWarning,
            stacklevel=2,
        )
    shown = ", ".join(
        f"{key} {part['score']:.4g}".strip()
        for key, part in record.parts.items()
        if "score" in part  # else it takes the whole bank to have one
    )
    shown = shown or ("failed" if record.errors else "done")
    line = clean_text(f"[{place}] {record.name}: {shown} ({record.seconds:.1f} s)")
    _log.info(line)
    if verbose:
        say(line, flush=True)


def check_not_all_failed(records: Sequence[ModelRecord], key: str) -> None:
    """Raise the reasons where no model of a bank has a score by the estimator `key`."""
    if all(key in record.errors for record in records):
        listed = "\n".join(
            f"- {record.name}: {clean_text(record.errors[key])}" for record in records
        )
        raise SkteError(f"Every model of the bank failed:\n{listed}")
