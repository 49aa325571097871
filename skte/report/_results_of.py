"""The tables that displays and files are made of, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.utils.validation import check_is_fitted

from skte.selection import ModelBankSelector

__all__ = ["check_at_least_one", "check_columns", "results_of"]


def results_of(selector: ModelBankSelector) -> Mapping[str, Any]:
    """Return the results of a fitted selector.

    Parameters
    ----------
    selector : ModelBankSelector
        Fitted.

    Returns
    -------
    mapping of str to ndarray
        ``results_``.

    Raises
    ------
    TypeError
        If it is something else.
    NotFittedError
        If it is not fitted.
    """
    if not isinstance(selector, ModelBankSelector):
        raise TypeError(f"Give a fitted ModelBankSelector, got {type(selector).__name__}.")
    check_is_fitted(selector, "results_")
    return selector.results_


def check_columns(results: Mapping[str, Any], needed: Sequence[str]) -> None:
    """Refuse a table that lacks columns.

    Parameters
    ----------
    results : mapping of str to sequence
        ``selector.results_``, or a table read back.
    needed : sequence of str
        Its columns, at least.

    Raises
    ------
    TypeError
        If it is no table.
    ValueError
        If a column is missing.
    """
    if not hasattr(results, "keys"):
        raise TypeError(
            "results map the names of columns to values, as selector.results_ does; got "
            f"{type(results).__name__}."
        )
    missing = [key for key in needed if key not in results]
    if missing:
        raise ValueError(f"results lack {missing}; they have {sorted(results)}.")


def check_at_least_one(name: str, value: int) -> None:
    """Refuse a number of things to draw that leaves none.

    Parameters
    ----------
    name : str
        Of the parameter.
    value : int
        Its value.

    Raises
    ------
    ValueError
        If it is below 1.
    """
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value!r}.")
