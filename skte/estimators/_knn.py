"""k nearest neighbours in other cases: whether they carry the voxel's label."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import Details, EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import (
    Array,
    Ints,
    canonical_subsample,
    classes_of_two_cases,
    encode_labels,
    group_codes,
    held_groups,
    unit_length,
    unit_range,
)
from skte.exceptions import CollapsedFeaturesWarning, SkteWarning
from skte.features import FeatureBlock

# Entries of the matrix of distances computed at a time.
_CHUNK = 4_000_000
# Squared distances are equal where they differ by less than this share of the row's and
# their own size: products of matrices round differently from place to place.
_TIE = 1e-12
# Neighbours kept of each row; those of rows that need more are searched again.
_KEPT = 64
# Columns of distances whose smallest is looked at first.
_GROUP = 8


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

    Raises
    ------
    ValueError
        If all rows come from one case, or no class occurs in two cases.

    References
    ----------
    .. [1] Renggli, C. et al. "Which Model to Transfer? Finding the Needle in the Growing
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

    _tags: ClassVar[EstimatorTags] = EstimatorTags(warns_of_constants=True)
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

    def _score_block(self, block: FeatureBlock) -> tuple[float, Details]:
        classes, codes = encode_labels(block.y)
        cases = _case_codes(block)
        rows = canonical_subsample(
            block,
            # Without groups a case is a row, and strata of one row would all be kept.
            codes if block.groups is None else cases * (codes.max() + 1) + codes,
            max_samples=self.max_samples,
            random_state=self.random_state,
        )
        X, codes, cases = block.X[rows], codes[rows], cases[rows]
        why = (
            "no class occurs in two cases, so no voxel can have a neighbour of its class in another"
        )
        classes_of_two_cases(block, classes, codes, cases, why)
        if not (X.min(axis=0) < X.max(axis=0)).any():
            warnings.warn(
                f"{block.label}: all voxels have the same features; every voxel is every "
                "other's nearest neighbour.",
                CollapsedFeaturesWarning,
                stacklevel=2,
            )
        others = len(cases) - int(np.bincount(cases).max())
        if others < self.n_neighbors:
            warnings.warn(
                f"{block.label}: a case has only {others} voxels in other cases, fewer than "
                f"n_neighbors={self.n_neighbors}; {others} neighbours are looked at.",
                SkteWarning,
                stacklevel=2,
            )
        neighbors = _Neighbors(X, codes, cases, metric=self.metric, n_neighbors=self.n_neighbors)
        once = np.ones((1, int(cases.max()) + 1), dtype=np.intp)
        return float(self._weighted(neighbors, once)[0]), {"neighbors": neighbors}

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """From the nearest rows of each row, searched once among those chosen of all cases."""
        return self._weighted(details["neighbors"], weights[:, np.unique(held_groups(block))])

    def _weighted(self, neighbors: _Neighbors, weights: Ints) -> Array:
        """Score where case i is drawn ``weights[b, i]`` times, for each b; NaN if undefined."""
        codes, cases = neighbors.codes, neighbors.cases
        counts = np.zeros((weights.shape[1], codes.max() + 1))
        np.add.at(counts, (cases, codes), 1.0)
        scores = np.full(len(weights), np.nan)
        for b, w in enumerate(weights):
            drawn = w[:, None] * counts
            usable = (drawn > 0).sum(axis=0) > 1
            if not usable.any() or (drawn.sum(axis=0) > 0).sum() < 2:
                continue
            others = int(drawn.sum() - drawn.sum(axis=1).max())
            row_weights = w[cases].astype(np.float64)
            hits = neighbors.hits(row_weights, min(self.n_neighbors, others))
            counted = usable[codes] & (row_weights > 0)
            found = codes[counted]
            totals = np.bincount(found, (row_weights * hits)[counted], minlength=len(usable))
            sizes = np.bincount(found, row_weights[counted], minlength=len(usable))
            shares = totals[usable] / sizes[usable]
            scores[b] = shares.mean() if self.balanced else totals.sum() / sizes.sum()
        return scores


def _case_codes(block: FeatureBlock) -> Ints:
    """Position of each row's case; without groups, every row is a case of its own."""
    if block.groups is None:
        return np.arange(block.n_voxels)
    return group_codes(block, "KNN looks for neighbours in other cases")[1]


class _Neighbors:
    """The nearest rows of other cases of each row, nearest first.

    scikit-learn's neighbour search breaks ties by position. Whole matrices of distances,
    in chunks, let tied rows share, and leave out any case at once.
    """

    def __init__(
        self, X: Array, codes: Ints, cases: Ints, *, metric: str, n_neighbors: int
    ) -> None:
        self.codes, self.cases = codes, cases
        # Distances lose digits far from the origin; the median stays where most rows are.
        cosine = metric == "cosine"
        Z = unit_length(X) if cosine else unit_range(X - np.median(X, axis=0))[0]
        self.squares = np.einsum("ij,ij->i", Z, Z)
        # A product of these is |a|^2 - 2 ab + |b|^2, or 1 - ab: a zero row is then as far from
        # all as a row at a right angle.
        one, squares = np.ones((len(Z), 1)), self.squares[:, None]
        self.left = np.hstack([-Z, one] if cosine else [-2 * Z, squares, one])
        self.right = np.hstack([Z, one] if cosine else [Z, one, squares])
        # More than a score looks at, since cases may be left out.
        kept = min(len(cases), max(_KEPT, 8 * n_neighbors))
        parts = [self._search(rows, kept) for rows in self._chunks(np.arange(len(cases)))]
        self.distances = np.concatenate([distances for distances, _ in parts], axis=1)
        self.indices = np.concatenate([indices for _, indices in parts], axis=1)

    def hits(self, row_weights: Array, k: int) -> Array:
        """Share of each row's k nearest that have its label, rows counted with weights."""
        hits = np.zeros(len(self.cases))
        open_rows = np.flatnonzero(row_weights > 0)
        for width in (2 * k, len(self.distances)):  # the first nearly always tell
            D, indices = self.distances[:width, open_rows], self.indices[:width, open_rows]
            hits[open_rows], complete = self._hits(open_rows, D, indices, row_weights, k)
            open_rows = open_rows[~complete]
        for rows in self._chunks(open_rows):
            hits[rows], _ = self._hits(rows, *self._search(rows, len(self.cases)), row_weights, k)
        return hits

    def _chunks(self, rows: Ints) -> list[Ints]:
        step = max(1, _CHUNK // len(self.cases))
        return [rows[start : start + step] for start in range(0, len(rows), step)]

    def _search(self, rows: Ints, kept: int) -> tuple[Array, Ints]:
        """Distances (inf within the case) and indices of the nearest, (n_kept, n_rows) each."""
        D = self.left[rows] @ self.right.T
        for case in np.unique(self.cases[rows]):
            D[np.ix_(self.cases[rows] == case, self.cases == case)] = np.inf
        n_groups = D.shape[1] // _GROUP
        indices = np.broadcast_to(np.arange(D.shape[1]), D.shape)
        if n_groups > kept:
            # That many groups hold a number up to this bound: so do at least as many columns.
            least = D[:, : _GROUP * n_groups].reshape(len(D), _GROUP, n_groups).min(axis=1)
            bound = np.partition(least, kept - 1, axis=1)[:, kept - 1]
            at, columns = np.nonzero(bound[:, None] >= D)
            counts = np.bincount(at, minlength=len(D))
            place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
            found = np.full((len(D), int(counts.max())), np.inf)
            indices = np.zeros(found.shape, dtype=np.intp)
            found[at, place], indices[at, place] = D[at, columns], columns
            D = found
        order = np.argsort(D, axis=1, kind="stable")[:, :kept]
        nearest = (np.take_along_axis(each, order, axis=1) for each in (D, indices))
        distances, indices = (np.ascontiguousarray(each.T) for each in nearest)
        return distances, indices

    def _hits(
        self, rows: Ints, D: Array, indices: Ints, row_weights: Array, k: int
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Hits of rows, and whether the neighbours at hand were enough to tell."""
        W = np.where(np.isfinite(D), row_weights[indices], 0.0)
        reached = np.cumsum(W, axis=0)
        last = np.minimum((reached < k).sum(axis=0), len(D) - 1)
        farthest = D[last, np.arange(len(rows))]
        slack = _TIE * (self.squares[rows] + farthest)
        closer = farthest - slack > D
        tied = (farthest + slack >= D) & ~closer
        same = W * (self.codes[indices] == self.codes[rows])
        places = k - (W * closer).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            shared = places * (same * tied).sum(axis=0) / (W * tied).sum(axis=0)
        hits = ((same * closer).sum(axis=0) + shared) / k
        # A tie may go on beyond the neighbours at hand.
        whole = len(D) == len(self.codes)
        return hits, (reached[-1] >= k) & (whole | (D[-1] > farthest + slack))
