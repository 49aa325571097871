"""k nearest neighbours in other cases: whether they carry the voxel's label."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import TransferabilityEstimator
from skte.estimators._labels import encode_labels
from skte.estimators._resample import held_groups
from skte.estimators._resample_neighbors import find_neighbors, weighted_hits
from skte.estimators._scaling import unit_length, unit_range
from skte.estimators._subsample import canonical_subsample
from skte.exceptions import CollapsedFeaturesWarning, SkteWarning, UnusableClassWarning
from skte.features import FeatureBlock

__all__ = ["KNN"]

# Entries of the matrix of distances computed at a time.
_CHUNK = 4_000_000
# Squared distances are equal where they differ by less than this share of the row's and
# their own size: products of matrices round differently from place to place.
_TIE = 1e-12


class KNN(TransferabilityEstimator):
    r"""Share of a voxel's nearest neighbours in *other* cases that carry its label.

    With ``N_k(i)`` the k voxels nearest to voxel i among those of other cases::

        hit_i = 1/k sum over j in N_k(i) of 1[y_j = y_i]
        KNN = mean over classes of the mean of hit_i over the voxels of a class

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours looked at, k.
    metric : {"euclidean", "cosine"}, default="euclidean"
        Distance between features. "cosine" does not see their length.
    balanced : bool, default=True
        True: every class counts the same. False: every voxel does.
    max_samples : int, default=5000
        With more voxels, about this many are drawn, in proportion from every class of
        every case: the cost grows with the square of their number.
    random_state : int, default=0
        Seed of the draw.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Between 0 and 1; the share of the classes for features that know nothing of the
        labels. Higher is better.
    layer_scores_ : ndarray of shape (n_layers,)
        Score of each layer.
    layer_names_ : tuple of str
        Names of the layers.
    n_features_in_ : int
        Number of channels, when fitted on an array.

    Raises
    ------
    ValueError
        If all rows come from one case, or no class occurs in two cases.

    Warns
    -----
    UnusableClassWarning
        When a class that occurs in one case only is left out of the mean.
    CollapsedFeaturesWarning
        When all voxels have the same features.
    SkteWarning
        When other cases hold fewer voxels than `n_neighbors`, and all are taken.

    See Also
    --------
    PARC : Looks at all pairs of voxels, within cases as well.
    LogME : Fits a linear model to the labels.

    Notes
    -----
    Neighbours within a case share its scanner, its patient and, in deep layers, the
    receptive field: counting them would measure how smooth features are. Without
    ``groups`` every row is a case of its own (leave one out). Voxels at the same
    distance as the k-th neighbour share the places left equally, so that the order of
    rows does not matter even where features coincide.

    The score is invariant to scale, rotation and duplicated channels, with "euclidean"
    also to a shift and to constant channels, with "cosine" to the length of each
    feature. It is not invariant to duplicating rows. It misleads when channels differ
    in scale, since the largest decide; in wide layers, where all distances are alike;
    and it sees what is close already, not what fine-tuning could separate.

    References
    ----------
    .. [1] Renggli, C., Pinto, A. S., Rimanic, L., Puigcerver, J., Riquelme, C., Zhang,
       C., Lucic, M. "Which Model to Transfer? Finding the Needle in the Growing
       Haystack". CVPR 2022. arXiv:2010.06402. (Their proxy; leaving out cases is ours.)

    Examples
    --------
    >>> import numpy as np
    >>> from skte import KNN
    >>> rng = np.random.default_rng(0)
    >>> labels, cases = rng.integers(0, 3, 300), np.repeat(np.arange(6), 50)
    >>> noise = rng.normal(size=(300, 8))
    >>> informative = noise + 3 * np.eye(8)[labels]
    >>> round(KNN().fit(informative, labels, groups=cases).score_, 1)
    0.9
    >>> round(KNN().fit(noise, labels, groups=cases).score_, 1)
    0.3
    """

    _warns_of_constants: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions({"euclidean", "cosine"})],
        "balanced": ["boolean"],
        "max_samples": [Interval(Integral, 2, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        metric: str = "euclidean",
        balanced: bool = True,
        max_samples: int = 5000,
        random_state: int = 0,
        layer_reduction: str = "mean",
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.balanced = balanced
        self.max_samples = max_samples
        self.random_state = random_state

    def _score_block(self, block: FeatureBlock) -> float:
        classes, codes = encode_labels(block.y)
        cases = _case_codes(block)
        rows = self._chosen_rows(block, codes, cases)
        X, codes, cases = block.X[rows], codes[rows], cases[rows]
        usable = _usable_classes(classes, codes, cases, block.label)
        if not (X.min(axis=0) < X.max(axis=0)).any():
            warnings.warn(
                f"{block.label}: all voxels have the same features; every voxel is every "
                "other's nearest neighbour.",
                CollapsedFeaturesWarning,
                stacklevel=2,
            )
        k = self._affordable_neighbors(cases, block.label)
        hits = _hits(X, codes, cases, k=k, metric=self.metric)
        counted = usable[codes]
        totals = np.bincount(codes[counted], hits[counted], minlength=len(classes))
        counts = np.bincount(codes[counted], minlength=len(classes))
        if self.balanced:
            return float((totals[usable] / counts[usable]).mean())
        return float(totals.sum() / counts.sum())

    def _chosen_rows(
        self, block: FeatureBlock, codes: NDArray[np.intp], cases: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        return canonical_subsample(
            block.X,
            # Without groups a case is a row, and strata of one row would all be kept.
            codes if block.groups is None else cases * (codes.max() + 1) + codes,
            max_samples=self.max_samples,
            random_state=self.random_state,
        )

    def _resample_block(
        self, block: FeatureBlock, details: Mapping[str, Any], weights: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """From the nearest rows of each row, searched once among those chosen of all cases."""
        classes, codes = encode_labels(block.y)
        cases = held_groups(block)
        rows = self._chosen_rows(block, codes, _case_codes(block))
        codes, cases = codes[rows], cases[rows]
        Z = _located(block.X[rows], self.metric)
        squares = np.einsum("ij,ij->i", Z, Z)
        neighbors = find_neighbors(
            lambda part: _distances(Z[part], Z, self.metric), cases, self.n_neighbors
        )
        counts = np.zeros((weights.shape[1], len(classes)))
        np.add.at(counts, (cases, codes), 1.0)
        scores = np.full(len(weights), np.nan)
        for b, w in enumerate(weights):
            drawn = w[:, None] * counts
            usable = (drawn > 0).sum(axis=0) > 1
            others = int(drawn.sum() - drawn.sum(axis=1).max())
            if not usable.any() or (drawn.sum(axis=0) > 0).sum() < 2:
                continue
            row_weights = w[cases].astype(np.float64)
            hits = weighted_hits(
                neighbors, codes, row_weights, squares, k=min(self.n_neighbors, others), tie=_TIE
            )
            counted = usable[codes] & (row_weights > 0)
            found = codes[counted]
            totals = np.bincount(found, (row_weights * hits)[counted], minlength=len(classes))
            sizes = np.bincount(found, row_weights[counted], minlength=len(classes))
            shares = totals[usable] / sizes[usable]
            scores[b] = shares.mean() if self.balanced else totals.sum() / sizes.sum()
        return scores

    def _affordable_neighbors(self, cases: NDArray[np.intp], where: str) -> int:
        """Neighbours that every voxel has in other cases, at most `n_neighbors`."""
        others = len(cases) - int(np.bincount(cases).max())
        if others < self.n_neighbors:
            warnings.warn(
                f"{where}: a case has only {others} voxels in other cases, fewer than "
                f"n_neighbors={self.n_neighbors}; {others} neighbours are looked at.",
                SkteWarning,
                stacklevel=3,
            )
        return min(self.n_neighbors, others)


def _case_codes(block: FeatureBlock) -> NDArray[np.intp]:
    """Position of each row's case; without groups, every row is a case of its own."""
    if block.groups is None:
        return np.arange(block.n_voxels)
    cases, codes = np.unique(block.groups, return_inverse=True)
    if len(cases) < 2:
        raise ValueError(
            f"{block.label}: all rows come from one case. KNN looks for neighbours in other "
            "cases and needs at least two."
        )
    return np.asarray(codes, dtype=np.intp)


def _usable_classes(
    classes: NDArray[np.generic], codes: NDArray[np.intp], cases: NDArray[np.intp], where: str
) -> NDArray[np.bool_]:
    """Which classes occur in two cases; the others cannot have a neighbour of their own."""
    usable = np.array([len(np.unique(cases[codes == k])) > 1 for k in range(len(classes))])
    if not usable.any():
        raise ValueError(
            f"{where}: no class occurs in two cases, so no voxel can have a neighbour of its "
            "class in another case. Pass more cases."
        )
    for label in classes[~usable]:
        warnings.warn(
            f"{where}: class {label!r} occurs in one case only and is left out.",
            UnusableClassWarning,
            stacklevel=3,
        )
    return usable


def _hits(
    X: NDArray[np.float64],
    codes: NDArray[np.intp],
    cases: NDArray[np.intp],
    *,
    k: int,
    metric: str,
) -> NDArray[np.float64]:
    """Share of each row's k nearest rows of other cases that have its label.

    scikit-learn's neighbour search breaks ties by position. Whole matrices of
    distances, in chunks, let tied rows share, and leave out any case at once.
    """
    Z = _located(X, metric)
    squares = np.einsum("ij,ij->i", Z, Z)[:, None]
    hits = np.empty(len(Z))
    step = max(1, _CHUNK // len(Z))
    for start in range(0, len(Z), step):
        part = slice(start, start + step)
        distances = _distances(Z[part], Z, metric)
        distances[cases[part, None] == cases] = np.inf
        farthest = np.partition(distances, k - 1, axis=1)[:, k - 1, None]
        tie = _TIE * (squares[part] + farthest)
        closer = distances < farthest - tie
        tied = (distances <= farthest + tie) & ~closer
        same = codes[part, None] == codes
        places = k - closer.sum(axis=1)
        shared = places * (tied & same).sum(axis=1) / tied.sum(axis=1)
        hits[part] = ((closer & same).sum(axis=1) + shared) / k
    return hits


def _located(X: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Rows as distances are taken of."""
    # Distances lose digits far from the origin; the median stays where most rows are.
    return unit_length(X) if metric == "cosine" else unit_range(X - np.median(X, axis=0))[0]


def _distances(A: NDArray[np.float64], B: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    if metric == "cosine":  # a zero row is as far from all as a row at a right angle
        return np.asarray(1.0 - A @ B.T)
    return np.asarray(euclidean_distances(A, B, squared=True))
