"""SFDA: class posteriors in a Fisher space, once features were made harder."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import Details, EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import (
    Array,
    Ints,
    centred,
    encode_labels,
    fewest_coordinates,
    fits_in_memory,
    held_groups,
    warn_at_floor,
)
from skte.features import FeatureBlock

# The released code's least shrinkage: exp(-a sigma) vanishes on large features.
_MIN_SHRINKAGE = 1e-10
# Below this a sigma, lambda is 1 within a thousandth.
_LEAST_EXPONENT = 1e-3
# Variance, as a share of the mean over channels, below which features differ by rounding.
_ROUNDING = 1e-24
# Numbers held for each row, class and resample together, and rows squared together.
_HELD = 2**23
_CHUNK = 1024


class SFDA(TransferabilityEstimator):
    r"""Self-challenging Fisher Discriminant Analysis (SFDA).

    Classify voxels in the space of a regularised Fisher discriminant analysis (FDA),
    move each toward the other classes by as much as its class was in doubt (ConfMix),
    and classify the moved features in the space of a second FDA. With ``S_W`` the
    covariance within classes, ``S_B`` that of class means, ``q_c`` the share of a class
    and ``mu_{-c}`` the mean of the voxels of all other classes::

        lambda = exp(-a sigma), sigma the largest eigenvalue of S_W
        S = (1 - lambda) S_W + lambda tr(S_W)/d I
        U: the C - 1 leading solutions u of S_B u = v S u, with U^T S U = I
        p(y | x) proportional to q_y exp(-1/2 |U^T (x - mu_y)|^2)
        x'_i = p(y_i | x_i) x_i + (1 - p(y_i | x_i)) mu_{-y_i}
        SFDA = 1/n sum_i log p'(y_i | x'_i), p' by the FDA of x' with the same lambda

    Parameters
    ----------
    a : float, default=5.0
        How fast shrinkage falls with the spread within classes.
    normalize : {"trace"} or None, default=None
        "trace" scales centred features to mean squared row norm 1, which makes models
        with different feature scales comparable. None: features as they come.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        At most 0 (every voxel's class is certain). ``-H(y)``, the negative entropy of the
        labels in nats, where features know nothing of the labels. Higher is better.

    References
    ----------
    .. [1] Shao, W. et al. "Not All Models Are Equal: Predicting Model Transferability in a
       Self-challenging Fisher Space". ECCV 2022. arXiv:2207.03036.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import SFDA
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 300)
    >>> weak = rng.normal(size=(300, 8)) + np.eye(8)[labels]
    >>> informative = weak + 3 * np.eye(8)[labels]
    >>> SFDA().fit(informative, labels).score() > SFDA().fit(weak, labels).score()
    True
    """

    _tags: ClassVar[EstimatorTags] = EstimatorTags(corrects_bias=True, warns_of_constants=True)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "a": [Interval(Real, 0, None, closed="neither")],
        "normalize": [StrOptions({"trace"}), None],
    }

    def __init__(
        self, *, a: float = 5.0, normalize: str | None = None, layer_reduction: str = "mean"
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.a = a
        self.normalize = normalize

    def _spread_bounds(self) -> tuple[float, float]:
        # Below, lambda is 1 and all shape is shrunk away; above, it is at its least.
        return (0.0 if self.normalize == "trace" else _LEAST_EXPONENT / self.a), np.inf

    def _score_block(self, block: FeatureBlock) -> float:
        once = np.zeros(block.n_voxels, dtype=np.intp)
        score = float(self._weighted(block, once, np.ones((1, 1), dtype=np.intp))[0])
        warn_at_floor("SFDA", score, block)
        return score

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        if not fits_in_memory(block, weights.shape[1]):
            return super()._resample_block(block, details, weights)
        return self._weighted(block, held_groups(block), weights)

    def _weighted(self, block: FeatureBlock, groups: Ints, weights: Ints) -> Array:
        """Score where case i is drawn ``weights[b, i]`` times, for each b; NaN if undefined."""
        problem = _Problem(block, groups, weights.shape[1])
        counts = weights @ problem.case_counts
        shares = counts / counts.sum(axis=1, keepdims=True)
        scores: Array = (shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
        scores[(counts > 0).sum(axis=1) < 2] = np.nan
        n_varying = problem.n_varying(weights)
        todo = np.flatnonzero(np.isfinite(scores) & (n_varying > 0))
        step = max(1, _HELD // (block.n_voxels * counts.shape[1]))
        for start in range(0, len(todo), step):
            b = todo[start : start + step]
            scores[b] = self._of_drawn(problem, weights[b], counts[b], n_varying[b])
        return scores

    def _of_drawn(self, problem: _Problem, weights: Ints, counts: Array, d: Ints) -> Array:
        n = counts.sum(axis=1)
        w = weights[:, problem.cases].astype(np.float64)
        grams = np.tensordot(weights, problem.squares, axes=1)
        still = np.broadcast_to(problem.means, (len(w), *problem.means.shape))
        first = problem.fisher(grams, w, np.ones_like(w), still, counts)
        sigma = np.maximum(first.eigenvalues[:, -1], np.finfo(np.float64).tiny)
        log_scale = 2.0 * problem.exponent * np.log(2.0)
        if self.normalize == "trace":
            log_scale = -np.log(first.spread)
        with np.errstate(over="ignore"):  # then shrinkage is at its least
            shrinkage = np.exp(-self.a * np.exp(np.log(sigma) + log_scale))
        shrinkage = np.maximum(shrinkage, _MIN_SHRINKAGE)
        confidence = np.exp(problem.log_posterior(first, shrinkage, d))
        rest = n[:, None] - counts
        total = np.einsum("bk,bkd->bd", counts, first.means)
        others = (total[:, None] - counts[..., None] * first.means) / rest[..., None]
        grams = problem.grams(np.sqrt(w) * confidence)
        second = problem.fisher(grams, w, confidence, others, counts)
        log_posterior = problem.log_posterior(second, shrinkage, d)
        return np.asarray(np.einsum("bi,bi->b", w, log_posterior) / n)


@dataclass(frozen=True)
class _Fisher:
    """Classes of moved rows ``x' = o + p (x - o)``, of each resample: o the mean of the others."""

    p: Array  # (n_resamples, n_rows)
    shares: Array  # (n_resamples, n_classes)
    means: Array  # (n_resamples, n_classes, n_channels), as those that follow
    to_others: Array  # from the means of all cases
    shifts: Array  # p u, mean over the class
    mean_p: Array  # (n_resamples, n_classes)
    eigenvalues: Array  # of the covariance within classes, (n_resamples, n_channels)
    vectors: Array
    spread: Array  # mean squared distance from the mean, (n_resamples,)


class _Problem:
    """Features about the means of their classes: what all resamples share.

    With ``u`` a row less the mean of its class over all cases, a resample differs by the weights
    of the rows in sums of ``u`` and ``u u^T`` alone, and no row is moved or copied.
    """

    def __init__(self, block: FeatureBlock, groups: Ints, n_cases: int) -> None:
        classes, codes = encode_labels(block.y)
        order = np.argsort(codes, kind="stable")
        self.cases = groups[order]
        ends = np.cumsum(np.bincount(codes))
        self.rows = [slice(i, j) for i, j in zip([0, *ends[:-1]], ends, strict=True)]
        self.case_counts = np.zeros((n_cases, len(classes)))
        np.add.at(self.case_counts, (groups, codes), 1.0)
        Z, self.exponent = centred(block.X)
        Z = Z[order]
        in_case = [np.flatnonzero(self.cases == case) for case in range(n_cases)]
        self.low = np.stack([Z[i].min(axis=0, initial=np.inf) for i in in_case])
        self.high = np.stack([Z[i].max(axis=0, initial=-np.inf) for i in in_case])
        if Z.shape[1] > len(Z):  # all rows lie in n dimensions: fewer coordinates
            Z = fewest_coordinates(Z)
        self.means = np.stack([Z[rows].mean(axis=0) for rows in self.rows])
        for rows, mean in zip(self.rows, self.means, strict=True):
            Z[rows] -= mean
        self.U = Z
        self.squares = np.stack([A.T @ A for A in (Z[i] for i in in_case)])

    def n_varying(self, weights: Ints) -> Ints:
        """Channels that vary over the cases drawn."""
        return np.array(
            [
                np.count_nonzero(self.low[w > 0].min(axis=0) < self.high[w > 0].max(axis=0))
                for w in weights
            ],
            dtype=np.intp,
        )

    def grams(self, roots: Array) -> Array:
        """Sum ``r^2 u u^T`` for each row of roots, (n_resamples, n_channels, n_channels)."""
        d = self.U.shape[1]
        grams = np.zeros((len(roots), d, d))
        for start in range(0, len(self.U), _CHUNK):
            U = self.U[start : start + _CHUNK]
            for gram, r in zip(grams, roots[:, start : start + _CHUNK], strict=True):
                A = U * r[:, None]
                gram += A.T @ A
        return grams

    def fisher(self, grams: Array, w: Array, p: Array, others: Array, counts: Array) -> _Fisher:
        """Means and covariance within of the rows moved; `grams` are sums of ``w p^2 u u^T``."""
        t = others - self.means
        wp = w * p
        shifts, mean_p = np.zeros_like(t), np.ones_like(counts)
        within = grams.copy()
        for k, rows in enumerate(self.rows):
            size = np.maximum(counts[:, k], 1.0)[:, None]
            shifts[:, k] = wp[:, rows] @ self.U[rows] / size
            mean_p[:, k] = wp[:, rows].sum(axis=1) / size[:, 0]
            # About the mean, x' is p u - (its mean) - (p - mean p) t.
            gap = p[:, rows] - mean_p[:, k, None]
            e, tk = shifts[:, k], t[:, k]
            cross = (wp[:, rows] * gap) @ self.U[rows]
            spread = np.einsum("bi,bi,bi->b", w[:, rows], gap, gap)
            within -= (size * e)[:, :, None] * e[:, None, :]
            mixed = (0.5 * spread[:, None] * tk - cross)[:, :, None] * tk[:, None, :]
            within += mixed + mixed.transpose(0, 2, 1)
        n = counts.sum(axis=1)
        shares = counts / n[:, None]
        means = others + shifts - mean_p[..., None] * t
        centres = means - np.einsum("bk,bkd->bd", shares, means)[:, None]
        within /= n[:, None, None]
        spread = np.einsum("bk,bkd,bkd->b", shares, centres, centres)
        spread += np.trace(within, axis1=1, axis2=2)
        return _Fisher(p, shares, means, t, shifts, mean_p, *np.linalg.eigh(within), spread)

    def log_posterior(self, fisher: _Fisher, shrinkage: Array, d: Ints) -> Array:
        """Log probability of each row's own class, (n_resamples, n_rows)."""
        eigenvalues = np.maximum(fisher.eigenvalues, 0.0)
        trace = fisher.eigenvalues.sum(axis=1)
        ridge = np.maximum(shrinkage * trace, _ROUNDING * fisher.spread) / d
        variances = (1.0 - shrinkage)[:, None] * eigenvalues + ridge[:, None]
        alive = variances.min(axis=1) > 0  # else the moved features coincide
        whitening = fisher.vectors / np.sqrt(np.where(alive[:, None], variances, np.inf))[:, None]
        log_shares = np.log(np.where(fisher.shares > 0, fisher.shares, 1.0))
        result = np.empty_like(fisher.p)
        for k, rows in enumerate(self.rows):
            # Differences, not products: rounding must not separate classes with one mean.
            gaps = (fisher.means - fisher.means[:, k, None]) @ whitening
            V = gaps @ whitening.transpose(0, 2, 1)  # (n_resamples, n_classes, n_channels)
            toward = np.einsum("bjd,bd->jb", V, fisher.to_others[:, k])
            fixed = fisher.mean_p[:, k] * toward - np.einsum("bjd,bd->jb", V, fisher.shifts[:, k])
            fixed -= 0.5 * np.einsum("bjd,bjd->jb", gaps, gaps)
            fixed += (log_shares - log_shares[:, k, None]).T
            fixed[fisher.shares.T == 0] = -np.inf
            fixed[k] = 0.0
            logits = self.U[rows] @ V.transpose(2, 1, 0).reshape(self.U.shape[1], -1)
            logits = logits.reshape(-1, *fixed.shape)
            logits -= toward
            logits *= fisher.p[:, None, rows].transpose(2, 1, 0)
            logits += fixed
            largest = logits.max(axis=1)
            np.exp(logits - largest[:, None], out=logits)
            result[:, rows] = -(largest + np.log(logits.sum(axis=1))).T
        return result
