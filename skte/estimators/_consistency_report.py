"""What the distances between cases tell beside the score: its error, and outliers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.estimators._diagnosis import CaseShare, ClassShare, PairDistance

__all__ = ["diagnose_consistency", "pair_standard_error"]

Details = Sequence[Mapping[str, Any]]


def pair_standard_error(details: Details) -> float:
    """Estimate the standard error of the score from comparing some of the pairs of cases.

    Parameters
    ----------
    details : sequence of mapping
        ``layer_details_`` of CC-FV, of the layers that the score is the mean of.

    Returns
    -------
    float
        0 where every pair was compared.

    Notes
    -----
    To first order the score moves by ``-dC/C`` in each layer, and C is a sum of
    means over pairs. Layers and classes share pairs, so what a pair contributes is
    summed over them before it is squared. Pairs are drawn without replacement, which
    takes ``1 - m/M`` off the variance of a mean over m of M pairs.
    """
    influence = 0.0
    for layer in details:
        total = sum(layer.get("consistency", {}).values())
        for label, D in layer.get("distances", {}).items():
            chosen = np.isfinite(D) & (np.arange(len(D))[:, None] < np.arange(len(D)))
            m, n_pairs = np.count_nonzero(chosen), layer["n_pairs"][label]
            if m < n_pairs and total > 0:
                scale = np.sqrt((1 - m / n_pairs) * m / (m - 1)) / (m * total)
                deviation = np.where(chosen, D - layer["consistency"][label], 0.0)
                influence = influence + scale * deviation
    return float(np.sqrt(np.sum(np.square(influence)))) / max(1, len(details))


def diagnose_consistency(layers: Sequence[str], details: Details) -> dict[str, Any]:
    """Classes, cases and pairs of cases that class consistency suffers from.

    Parameters
    ----------
    layers : sequence of str
        Names of the layers.
    details : sequence of mapping
        ``layer_details_`` of CC-FV.

    Returns
    -------
    dict
        The fields ``classes``, ``cases`` and ``pairs`` of a `Diagnosis`.
    """
    classes: list[ClassShare] = []
    pairs: list[PairDistance] = []
    ratios: dict[tuple[str, Any], list[float]] = defaultdict(list)
    for name, layer in zip(layers, details, strict=True):
        consistency = layer.get("consistency", {})
        total = sum(consistency.values())
        shares = [
            ClassShare(name, label, distance, distance / total if total > 0 else 0.0)
            for label, distance in consistency.items()
        ]
        classes += sorted(shares, key=lambda one: -one.distance)
        for label, D in layer.get("distances", {}).items():
            upper = np.where(np.tri(len(D), dtype=bool), np.nan, D)  # no case is far from itself
            i, j = np.unravel_index(np.nanargmax(upper), D.shape)
            farthest = (str(layer["cases"][i]), str(layer["cases"][j]))
            pairs.append(PairDistance(name, label, farthest, float(D[i, j])))
            for case, ratio in zip(layer["cases"], _ratios(D), strict=True):
                if np.isfinite(ratio):
                    ratios[str(case), label].append(float(ratio))
    cases = [CaseShare(case, label, float(np.mean(r))) for (case, label), r in ratios.items()]
    cases.sort(key=lambda one: -one.ratio)
    return {"classes": tuple(classes), "cases": tuple(cases), "pairs": tuple(pairs)}


def _ratios(D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean distance of each case to the others over the median of these means."""
    known = np.isfinite(D) & ~np.eye(len(D), dtype=bool)
    counts = known.sum(axis=1)
    sums = np.where(known, D, 0.0).sum(axis=1)
    means = np.full(len(D), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    middle = float(np.nanmedian(means))
    return means / middle if middle > 0 else np.where(np.isfinite(means), 1.0, np.nan)
