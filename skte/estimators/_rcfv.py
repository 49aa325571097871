"""RCFV: CC-FV with a class consistency relative to how far classes are apart."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skte._sklearn import Interval
from skte.estimators._base import Details, EstimatorTags, TransferabilityEstimator
from skte.estimators._ccfv import CCFV
from skte.estimators._consistency import (
    Gaussians,
    case_codes,
    check_usable,
    fitted_gaussians,
    pairwise_wasserstein,
)
from skte.estimators._samples import Array, Ints, as_plain, encode_labels, unit_range
from skte.exceptions import CollapsedFeaturesWarning
from skte.features import FeatureBlock

# A distance below this share of the features' spread is rounding, as in CC-FV.
_ROUNDING = 1e-6


class RCFV(TransferabilityEstimator):
    r"""Relative Class consistency and Feature Variety (RCFV).

    CC-FV with another consistency: a class should look the same in every case
    *compared with how far it is from the other classes of the case*::

        T = log(F_v * B / W)

    ``W`` is the geometric mean over classes of the mean Wasserstein distance between
    the Gaussians fitted to the class in two cases (*within*); ``B`` the geometric mean
    over pairs of classes of the mean distance between the two in one case (*between*).
    ``F_v`` is the feature variety of CC-FV, on the unit sphere.

    Parameters
    ----------
    min_distance : float, default=0.01
        Floor of distances: of those in the energy of ``F_v``, and, times the spread of the features
        (their root mean squared distance from the mean), of the mean ones in ``B`` and ``W``.
        Without it a class that is constant in every case would make the score infinite.
    layer_reduction : {"last", "mean"}, default="last"
        The last (finest) layer alone, or the mean over layers.

    Attributes
    ----------
    score_ : float
        Higher is better. ``-inf`` where a layer collapsed.
    layer_details_ : tuple of dict
        For each layer: ``within`` (mapping of label to its part of ``W``), ``between``
        (mapping of pairs of labels to their part of ``B``), ``spread``, the parts of CC-FV's
        variety and all ``pair_distances`` with the ``pairs`` of cases and the ``class_pairs`` that
        they are between (positions).

    Raises
    ------
    ValueError
        If there are fewer than two classes or cases, no class is in two cases, or the
        whole-case sample is empty.

    References
    ----------
    .. [1] Yang, Y. et al. "Pick the Best Pre-trained Model: Towards Transferability Estimation
       for Medical Image Segmentation". MICCAI 2023. arXiv:2307.11958. (CC-FV)

    Examples
    --------
    >>> import numpy as np
    >>> from skte import RCFV
    >>> rng = np.random.default_rng(0)
    >>> labels, cases = rng.integers(0, 3, 300), np.repeat(np.arange(6), 50)
    >>> noise = rng.normal(size=(300, 8))  # alike in every case, and in every class
    >>> informative = noise + 2 * np.eye(8)[labels]
    >>> estimator = RCFV().fit(informative, labels, groups=cases)
    >>> bool(estimator.score_ > RCFV().fit(noise, labels, groups=cases).score_)
    True
    """

    _tags: ClassVar[EstimatorTags] = EstimatorTags(case_sample=True, warns_of_constants=True)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "min_distance": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, *, min_distance: float = 0.01, layer_reduction: str = "last") -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.min_distance = min_distance

    @property
    def _variety(self) -> CCFV:
        return CCFV(class_consistency=False, min_distance=self.min_distance)

    def _score_block(self, block: FeatureBlock) -> tuple[float, Details]:
        classes, _ = encode_labels(block.y)  # refuses a single class
        variety, parts = self._variety._score_block(block)
        details = dict(parts)
        _, codes = case_codes(block)
        X, exponent = unit_range(block.X)  # squares and products stay numbers
        block = replace(block, X=X)
        spread = float(np.sqrt(X.var(axis=0).sum()))
        details |= _compare(block, codes, classes)
        means = _means(details, len(classes))
        details["pair_distances"] = np.ldexp(details["pair_distances"], exponent)
        details["spread"] = float(np.ldexp(spread, exponent))
        within, between = np.diag(means), means[np.triu_indices(len(means), k=1)]
        plain = [as_plain(label) for label in classes]
        unusable = [k for k, w in zip(plain, within, strict=True) if np.isnan(w)]
        usable = len(unusable) < len(plain)
        check_usable(block.label, usable, unusable, "distance within classes", "Label more cases.")
        details["within"] = {
            k: float(np.ldexp(w, exponent)) for k, w in zip(plain, within, strict=True) if w == w
        }
        details["between"] = {
            pair: float(np.ldexp(b, exponent))
            for pair, b in zip(itertools.combinations(plain, 2), between, strict=True)
        }
        if np.isfinite(variety) and _is_rounding(within, spread):
            warnings.warn(
                f"{block.label}: features are the same in every case, class by class; they "
                "collapsed, and the score is -inf.",
                CollapsedFeaturesWarning,
                stacklevel=2,
            )
            return -np.inf, details
        return variety + _log_ratio(means, self.min_distance * spread), details

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """From the distances and energies at hand."""
        scores = np.array(self._variety._resample_block(block, details, weights))
        held = np.unique(np.asarray(block.groups, dtype=np.intp))
        for b in np.flatnonzero(np.isfinite(scores)):
            means = _means(details, len(details["classes"]), weights[b, held])
            if _is_rounding(np.diag(means), details["spread"]):
                scores[b] = -np.inf
            else:
                scores[b] += _log_ratio(means, self.min_distance * details["spread"])
        return scores


def _compare(block: FeatureBlock, codes: Ints, classes: NDArray[np.generic]) -> dict[str, Any]:
    """Distances of a class between cases, and of two classes within a case."""
    # Two classes that no case holds both of are compared across cases.
    fitted = [fitted_gaussians(block, codes, label) for label in classes]
    cases = np.concatenate([present for present, _ in fitted])
    labels = np.repeat(np.arange(len(classes)), [len(present) for present, _ in fitted])
    units = Gaussians(
        np.concatenate([one.means for _, one in fitted]),
        [factor for _, one in fitted for factor in one.factors],
    )
    where = [np.flatnonzero(labels == k) for k in range(len(classes))]
    found: list[Iterator[tuple[Any, Any]]] = [itertools.combinations(rows, 2) for rows in where]
    found += [itertools.combinations(np.flatnonzero(cases == case), 2) for case in set(cases)]
    found += [
        itertools.product(where[k], where[m])
        for k, m in itertools.combinations(range(len(classes)), 2)
        if not np.isin(cases[where[k]], cases[where[m]]).any()
    ]
    pairs = np.array(sorted(itertools.chain(*found)), dtype=np.intp).reshape(-1, 2)
    return {
        "pair_distances": pairwise_wasserstein(units, pairs),
        "pairs": cases[pairs],
        "classes": classes,
        "class_pairs": labels[pairs],
    }


def _means(compared: Mapping[str, Any], n_classes: int, weights: Ints | None = None) -> Array:
    """Mean distance of each class (diagonal) and of two classes; NaN where none is known."""
    # With weights, case i counts ``weights[i]`` times; two copies of it are not a pair of
    # cases.
    k, m = compared["class_pairs"].T
    cell = k * n_classes + m
    weight = np.ones(len(cell))
    if weights is not None:
        i, j = compared["pairs"].T
        weight = weights[i] * np.where(i == j, 1.0, weights[j])
    totals = np.bincount(cell, weight * compared["pair_distances"], minlength=n_classes**2)
    counts = np.bincount(cell, weight, minlength=n_classes**2)
    means = np.divide(totals, counts, out=np.full(n_classes**2, np.nan), where=counts > 0)
    return np.asarray(means.reshape(n_classes, n_classes))


def _log_ratio(means: Array, floor: float) -> float:
    """Log of B / W: geometric means over pairs of classes and classes; NaN where unknown."""
    within, between = np.diag(means), means[np.triu_indices(len(means), k=1)]
    within, between = within[np.isfinite(within)], between[np.isfinite(between)]
    if not (len(within) and len(between)):
        return np.nan
    least = max(floor, float(np.finfo(np.float64).smallest_subnormal))
    return float(
        np.log(np.maximum(between, least)).mean() - np.log(np.maximum(within, least)).mean()
    )


def _is_rounding(within: Array, spread: float) -> bool:
    """Return whether no class differs between cases."""
    known = within[np.isfinite(within)]
    return len(known) > 0 and not (known > _ROUNDING * spread).any()
