"""True performances, brought into the order of a bank and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["align_performance", "check_pair"]


def align_performance(
    performance: ArrayLike | Mapping[str, float], names: Sequence[str]
) -> NDArray[np.float64]:
    """Bring performances given by name or in bank order into bank order.

    Parameters
    ----------
    performance : array-like of shape (n_models,) or mapping of str to float
        What each model reached; a mapping may hold more models than asked for.
    names : sequence of str
        Models in bank order.

    Returns
    -------
    ndarray of shape (n_models,)
        In the order of `names`.

    Raises
    ------
    ValueError
        If models are missing, or the length differs.
    """
    if isinstance(performance, Mapping):
        missing = [name for name in names if name not in performance]
        if missing:
            raise ValueError(f"performance lacks the models {missing}; add their values.")
        performance = [performance[name] for name in names]
    values = np.asarray(performance, dtype=np.float64)
    if values.shape != (len(names),):
        raise ValueError(
            f"performance has shape {values.shape}, but the bank has {len(names)} models: "
            "give one number a model, in bank order, or a mapping from names."
        )
    return values


def check_pair(
    performance: ArrayLike, scores: ArrayLike, *, finite: bool = False, varied: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Check two lists that are to be correlated.

    Parameters
    ----------
    performance, scores : array-like of shape (n_models,)
        Without NaN, at least two models. Performances must be finite.
    finite : bool, default=False
        Whether infinite scores are an error too (they have an order but no size).
    varied : bool, default=True
        Whether a constant list is an error.

    Returns
    -------
    performance, scores : ndarray of shape (n_models,)
        As float64.

    Raises
    ------
    ValueError
        If they are unusable; the message says which models.
    TypeError
        If one is a mapping.
    """
    for name, given in {"performance": performance, "scores": scores}.items():
        if isinstance(given, Mapping):
            raise TypeError(
                f"{name} is a mapping, which has no order: give one number a model, in the same "
                "order in both lists (align_performance(mapping, names) makes such a list)."
            )
    arrays = {
        "performance": np.asarray(performance, dtype=np.float64),
        "scores": np.asarray(scores, dtype=np.float64),
    }
    for name, values in arrays.items():
        if values.ndim != 1:
            raise ValueError(f"{name} must be 1-D, one number a model; got shape {values.shape}.")
    if len(arrays["performance"]) != len(arrays["scores"]):
        raise ValueError(
            f"performance has {len(arrays['performance'])} models, scores have "
            f"{len(arrays['scores'])}: give both for the same models in the same order."
        )
    for name, values in arrays.items():
        if len(values) < 2:
            raise ValueError(f"{name} holds {len(values)} model; a correlation needs two.")
        bad = ~np.isfinite(values) if finite or name == "performance" else np.isnan(values)
        if bad.any():
            raise ValueError(
                f"{name} of models {np.flatnonzero(bad).tolist()} are "
                f"{values[bad].tolist()}: leave those models out, of both lists."
            )
        if varied and (values == values[0]).all():
            raise ValueError(
                f"{name} are all equal ({values[0]:g}): there is no order to compare with."
            )
    return arrays["performance"], arrays["scores"]
