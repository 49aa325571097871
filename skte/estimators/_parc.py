"""PARC: whether features are alike where labels are alike."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skte._sklearn import Interval
from skte.estimators._base import Details, EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import (
    Array,
    Ints,
    canonical_subsample,
    encode_labels,
    held_groups,
    unit_length,
)
from skte.exceptions import CollapsedFeaturesWarning
from skte.features import FeatureBlock

# Distances that agree to this many decimals are ties: what differs is rounding.
_DECIMALS = 12


class PARC(TransferabilityEstimator):
    r"""Pairwise Annotation Representation Comparison (PARC).

    For every pair of voxels, take the distance of their features and that of their
    labels, and correlate the two lists by ranks::

        D_X(i, j) = 1 - Pearson(x_i, x_j), over the channels
        D_y(i, j) = 1 - Pearson(onehot(y_i), onehot(y_j))
        PARC = Spearman(D_X(i, j), D_y(i, j)), over all pairs i < j

    Parameters
    ----------
    max_samples : int, default=1000
        With more voxels, about this many are drawn, class by class in proportion: the
        cost grows with the square of their number.
    random_state : int, default=0
        Seed of the draw.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Between -1 and 1; around 0 for features that know nothing of the labels. Higher is better.

    References
    ----------
    .. [1] Bolya, D. et al. "Scalable Diverse Model Selection for Accessible Transfer Learning".
       NeurIPS 2021. arXiv:2111.06977.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import PARC
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 300)
    >>> noise = rng.normal(size=(300, 8))
    >>> informative = noise + 3 * np.eye(8)[labels]
    >>> PARC().fit(informative, labels).score() > PARC().fit(noise, labels).score()
    True
    """

    _tags: ClassVar[EstimatorTags] = EstimatorTags(warns_of_constants=True)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "max_samples": [Interval(Integral, 2, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self, *, max_samples: int = 1000, random_state: int = 0, layer_reduction: str = "mean"
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.max_samples = max_samples
        self.random_state = random_state

    def _score_block(self, block: FeatureBlock) -> tuple[float, Details]:
        rows = canonical_subsample(
            block, block.y, max_samples=self.max_samples, random_state=self.random_state
        )
        pairs = _Pairs(block.X, block.y, rows)
        if len(pairs.starts) == 1:
            warnings.warn(
                f"{block.label}: all pairs of voxels are equally far apart, so PARC has nothing "
                "to correlate with the labels; its score is 0.",
                CollapsedFeaturesWarning,
                stacklevel=2,
            )
        return pairs.spearman(), {"pairs": pairs}

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """From the pairs of the rows chosen of all cases, ordered by distance once."""
        # Two rows of one case make a pair for each time that the case is drawn, and two
        # rows of different cases one for each two times.
        pairs = details["pairs"]
        cases, y = held_groups(block)[pairs.rows], block.y[pairs.rows]
        n_cases = weights.shape[1]
        both = cases[pairs.first] * n_cases + cases[pairs.second]
        scores = np.full(len(weights), np.nan)
        for b, w in enumerate(weights.astype(np.float64)):
            if len(np.unique(y[w[cases] > 0])) > 1:
                often = np.outer(w, w)
                np.fill_diagonal(often, w)
                scores[b] = pairs.spearman(often.take(both))
        return scores


class _Pairs:
    """Pairs of some rows, in the order of the distance of their features."""

    def __init__(self, X: NDArray[np.floating], y: NDArray[np.generic], rows: Ints) -> None:
        _, codes = encode_labels(y[rows])
        distances = _distances(X[rows])
        order = np.argsort(distances)
        first, second = np.triu_indices(len(rows), 1)
        self.rows, self.first, self.second = rows, first[order], second[order]
        self.alike = codes[self.first] == codes[self.second]
        #: Where a distance begins that the pair before does not have.
        self.starts = np.flatnonzero(np.diff(distances[order], prepend=-np.inf) != 0)

    def spearman(self, weights: Array | None = None) -> float:
        """Rank correlation with the label distances, which take two values (or one)."""
        sizes = np.ones(len(self.alike)) if weights is None else weights
        alike = sizes * self.alike
        if len(self.starts) < len(alike):
            sizes, alike = (np.add.reduceat(each, self.starts) for each in (sizes, alike))
        ranks = np.cumsum(sizes)
        total, share = float(ranks[-1]), float(alike.sum()) / max(ranks[-1], 1.0)
        if share in (0.0, 1.0) or np.count_nonzero(sizes) < 2:
            return 0.0
        # Ranks have the mean total / 2, and without ties the variance total**2 / 12.
        ranks -= sizes / 2
        ranks -= total / 2
        spread = np.sqrt((total**2 - float(sizes**2 @ sizes) / total) / 12)
        # Correlation with a two-valued variable: the gap of means over the spread.
        gap = -float(alike @ ranks) / (total * share * (1 - share))
        return float(np.clip(gap * np.sqrt(share * (1.0 - share)) / spread, -1.0, 1.0))


def _distances(X: NDArray[np.floating]) -> Array:
    """One minus the correlation over channels of all pairs i < j of rows."""
    # Row by row: neither the size of a row nor that of the others matters.
    largest = np.abs(X).max(axis=1, keepdims=True)
    Z = X / np.where(largest > 0, largest, 1.0)
    varies = X.min(axis=1) < X.max(axis=1)
    Z -= Z.mean(axis=1, keepdims=True)
    Z -= Z.mean(axis=1, keepdims=True)  # removes what rounding left of a large mean
    Z = unit_length(np.where(varies[:, None], Z, 0.0))
    return np.round(1.0 - (Z @ Z.T)[np.triu_indices(len(Z), 1)], _DECIMALS)
