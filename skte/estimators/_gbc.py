"""GBC: overlap of the Gaussians fitted to each class."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import Array, encode_labels, moments_of
from skte.exceptions import SaturatedScoreWarning, UnusableClassWarning
from skte.features import ClassMoments, FeatureBlock

_EPS = float(np.finfo(np.float64).eps)
# Logarithm of an overlap at which scores no longer differ in print.
_UNDERFLOW = float(np.log(1e-12))


class GBC(TransferabilityEstimator):
    r"""Gaussian Bhattacharyya Coefficient (GBC).

    Fit a Gaussian to the features of each class and sum, over ordered pairs of
    classes, how much two of them overlap::

        GBC = - sum over i != j of exp(-D_B(i, j))
        D_B(i, j) = 1/8 (mu_i - mu_j)^T S^-1 (mu_i - mu_j)
                    + 1/2 log(|S| / sqrt(|S_i| |S_j|)),    S = (S_i + S_j) / 2

    Parameters
    ----------
    n_components : int or None, default=64
        Principal components (of all rows together) that features are reduced to
        first; no more than the rank of the features. None: features as they come.
    covariance : {"diagonal", "full", "spherical"}, default="diagonal"
        Shape of the Gaussians: axis-parallel, any, or one variance (the mean of those
        along the axes) for all directions.
    log : bool, default=False
        Return ``-log(-GBC)`` instead, computed without underflow. The order of scores
        is the same, but well-separated classes no longer tie at zero.
    min_variance : float, default=1e-6
        Floor of every variance (of every eigenvalue, if ``covariance="full"``),
        relative to the mean squared distance of the features from their mean.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Between ``-C(C-1)`` for C classes (all alike) and 0 (no overlap); with
        ``log=True`` at least ``-log(C(C-1))``. Higher is better.

    References
    ----------
    .. [1] Pandy, M. et al. "Transferability Estimation using Bhattacharyya Class Separability".
       CVPR 2022. arXiv:2111.12780.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import GBC
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 300)
    >>> noise = rng.normal(size=(300, 8))
    >>> informative = noise + 3 * np.eye(8)[labels]
    >>> bool(GBC().fit(informative, labels).score() > GBC().fit(noise, labels).score())
    True
    >>> round(GBC().fit(np.ones((6, 2)), [0, 0, 2, 2, 7, 7]).score())  # -C(C-1)
    -6
    """

    _tags: ClassVar[EstimatorTags] = EstimatorTags(moments=True, corrects_bias=True)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "covariance": [StrOptions({"diagonal", "full", "spherical"})],
        "log": ["boolean"],
        "min_variance": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        n_components: int | None = 64,
        covariance: str = "diagonal",
        log: bool = False,
        min_variance: float = 1e-6,
        layer_reduction: str = "mean",
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.n_components = n_components
        self.covariance = covariance
        self.log = log
        self.min_variance = min_variance

    def _score_block(self, block: FeatureBlock) -> float:
        _warn_single_rows(block)
        encode_labels(block.y)  # refuses a single class
        # Variances along the axes of channels do not survive a rotation.
        return self._score_moments(
            block.moments if self.n_components is None else moments_of(block)
        )

    def _score_moments(self, moments: ClassMoments) -> float:
        covariances = moments.scatters / moments.counts[:, None, None]
        centres, total = moments.centres, moments.total
        floor = self.min_variance * float(np.trace(total)) / moments.n_voxels
        if floor == 0.0:  # all features are constant: the classes are alike
            return self._overlap(np.zeros((len(centres), len(centres))), moments.label)
        if self.n_components is not None:
            V = _principal_axes(total, moments.n_voxels, self.n_components)
            centres, covariances = centres @ V, V.T @ covariances @ V
            floor = self.min_variance * float(np.trace(V.T @ total @ V)) / moments.n_voxels
        if self.covariance == "full":
            D = _full_distances(centres, covariances, floor)
        else:
            variances = np.diagonal(covariances, axis1=1, axis2=2)
            D = _axis_distances(centres, variances, floor, self.covariance)
        return self._overlap(D, moments.label)

    def _overlap(self, D: Array, where: str) -> float:
        between = D[np.triu_indices(len(D), k=1)]
        log_overlap = float(logsumexp(-between) + np.log(2.0))  # ordered pairs
        if self.log:
            return -log_overlap
        if log_overlap < _UNDERFLOW:
            warnings.warn(
                f"{where}: the classes overlap by {np.exp(log_overlap):.1g} in all, so models "
                "tie near the ceiling of GBC, zero. Use GBC(log=True).",
                SaturatedScoreWarning,
                stacklevel=2,
            )
        return -float(np.exp(log_overlap))


def _axis_distances(means: Array, variances: Array, floor: float, covariance: str) -> Array:
    """Distances between Gaussians of diagonal or spherical covariance."""
    distances = np.zeros((len(means), len(means)))
    if covariance == "spherical":
        variances = np.broadcast_to(variances.mean(axis=1, keepdims=True), variances.shape)
    variances = np.maximum(variances, floor)
    i, j = np.triu_indices(len(means), k=1)
    middle = (variances[i] + variances[j]) / 2
    logs = np.log(variances)
    volume = np.log(middle) - (logs[i] + logs[j]) / 2
    gaps = means[i] - means[j]
    distances[i, j] = (gaps**2 / middle).sum(axis=1) / 8 + volume.sum(axis=1) / 2
    # The volumes differ from zero by rounding where two covariances agree.
    return np.maximum(distances + distances.T, 0.0)


def _full_distances(means: Array, covariances: Array, floor: float) -> Array:
    """Distances between Gaussians of any covariance."""
    distances = np.zeros((len(means), len(means)))
    covariances = np.stack([_floored(S, floor) for S in covariances])
    logdets = np.linalg.slogdet(covariances).logabsdet
    for i, j in zip(*np.triu_indices(len(means), k=1), strict=True):
        factor = np.linalg.cholesky((covariances[i] + covariances[j]) / 2)
        whitened = solve_triangular(factor, means[i] - means[j], lower=True)
        logdet = 2.0 * np.log(np.diag(factor)).sum()
        volume = logdet - (logdets[i] + logdets[j]) / 2
        distances[i, j] = whitened @ whitened / 8 + volume / 2
    return np.maximum(distances + distances.T, 0.0)


def _floored(S: Array, floor: float) -> Array:
    """Covariance with eigenvalues of at least `floor`."""
    eigenvalues, V = np.linalg.eigh(S)
    return np.asarray((V * np.maximum(eigenvalues, floor)) @ V.T)


def _principal_axes(total: Array, n: int, n_components: int) -> Array:
    """Leading eigenvectors of a scatter matrix, those of zero spread left out."""
    eigenvalues, vectors = np.linalg.eigh(total)
    rank = int(np.sum(eigenvalues > max(n, len(total)) * _EPS * max(eigenvalues[-1], 0.0)))
    return np.asarray(vectors[:, len(eigenvalues) - min(rank, n_components) :])


def _warn_single_rows(block: FeatureBlock) -> None:
    labels, counts = np.unique(block.y, return_counts=True)
    single = labels[counts == 1].tolist()
    if single:
        warnings.warn(
            f"Classes {single} have a single row in {block.label}: their variance is unknown and "
            "set to its floor, which makes them look separable. Sample more voxels of them.",
            UnusableClassWarning,
            stacklevel=2,
        )
