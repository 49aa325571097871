"""GBC: overlap of the Gaussians fitted to each class."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import TransferabilityEstimator
from skte.estimators._labels import encode_labels
from skte.estimators._scaling import centred
from skte.exceptions import UnusableClassWarning
from skte.features import FeatureBlock

__all__ = ["GBC", "bhattacharyya_distances"]

_EPS = float(np.finfo(np.float64).eps)


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
    layer_scores_ : ndarray of shape (n_layers,)
        Score of each layer.
    layer_names_ : tuple of str
        Names of the layers.
    n_features_in_ : int
        Number of channels, when fitted on an array.

    Warns
    -----
    UnusableClassWarning
        When a class has a single row. Its variance is the floor, so that it seems
        separable from any other.

    See Also
    --------
    bhattacharyya_distances : The distance between each two classes.
    TransRate : Mutual information of features and classes.

    Notes
    -----
    Variances divide by the number of rows (maximum likelihood, as in the published
    code), which a class of one row needs, and makes the score independent of
    duplicating the sample. Principal components make the score invariant to
    rotation, shift and scale. It misleads in high dimension, where every pair is
    far apart and plain scores tie near zero (use ``log=True``), and for classes of
    several clusters.

    References
    ----------
    .. [1] Pandy, M., Agostinelli, A., Uijlings, J., Ferrari, V., Mensink, T.
       "Transferability Estimation using Bhattacharyya Class Separability". CVPR 2022.
       arXiv:2111.12780.

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
        # Differences of features are all that counts, and their scale cancels.
        Z, _ = centred(block.X)
        if self.n_components is not None:
            Z = _principal_components(Z, self.n_components)
        D = bhattacharyya_distances(
            Z, block.y, covariance=self.covariance, min_variance=self.min_variance
        )
        between = D[np.triu_indices(len(D), k=1)]
        log_overlap = float(logsumexp(-between) + np.log(2.0))  # ordered pairs
        return -log_overlap if self.log else -float(np.exp(log_overlap))


def bhattacharyya_distances(
    X: NDArray[np.floating],
    y: NDArray[np.generic],
    *,
    covariance: str = "diagonal",
    min_variance: float = 1e-6,
) -> NDArray[np.float64]:
    """Bhattacharyya distances between the Gaussians fitted to each two classes.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features.
    y : ndarray of shape (n_samples,)
        Labels, at least two distinct ones.
    covariance : {"diagonal", "full", "spherical"}, default="diagonal"
        Shape of the Gaussians.
    min_variance : float, default=1e-6
        Floor of the variances, relative to the mean squared distance from the mean.

    Returns
    -------
    ndarray of shape (n_classes, n_classes)
        Symmetric, non-negative, zero diagonal; classes in sorted order.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.estimators import bhattacharyya_distances
    >>> X = np.array([[-1.0], [1.0], [3.0], [5.0]])  # means 0 and 4, variances 1
    >>> bhattacharyya_distances(X, np.array([0, 0, 1, 1]))
    array([[0., 2.],
           [2., 0.]])
    """
    classes, codes = encode_labels(y)
    Z, _ = centred(X)
    n_classes = len(classes)
    distances = np.zeros((n_classes, n_classes))
    if not Z.size:
        return distances  # all features are constant: the classes are alike
    samples = [Z[codes == k] for k in range(n_classes)]
    means = np.stack([sample.mean(axis=0) for sample in samples])
    spread = [sample - mean for sample, mean in zip(samples, means, strict=True)]
    floor = min_variance * float(np.einsum("ij,ij->", Z, Z)) / len(Z)
    i, j = np.triu_indices(n_classes, k=1)
    gaps = means[i] - means[j]
    if covariance == "full":
        covariances = np.stack([_floored_covariance(A, floor) for A in spread])
        distances[i, j] = _distances_full(gaps, covariances, i, j)
    else:
        variances = np.stack([np.einsum("ij,ij->j", A, A) / len(A) for A in spread])
        if covariance == "spherical":
            variances[:] = variances.mean(axis=1, keepdims=True)
        variances = np.maximum(variances, floor)
        middle = (variances[i] + variances[j]) / 2
        logs = np.log(variances)
        volume = np.log(middle) - (logs[i] + logs[j]) / 2
        distances[i, j] = (gaps**2 / middle).sum(axis=1) / 8 + volume.sum(axis=1) / 2
    # The volumes differ from zero by rounding where two covariances agree.
    return np.maximum(distances + distances.T, 0.0)


def _distances_full(
    gaps: NDArray[np.float64],
    covariances: NDArray[np.float64],
    i: NDArray[np.intp],
    j: NDArray[np.intp],
) -> NDArray[np.float64]:
    logdets = np.linalg.slogdet(covariances).logabsdet
    result = np.empty(len(gaps))
    for pair, gap in enumerate(gaps):
        both = logdets[i[pair]] + logdets[j[pair]]
        factor = np.linalg.cholesky((covariances[i[pair]] + covariances[j[pair]]) / 2)
        whitened = solve_triangular(factor, gap, lower=True)
        logdet = 2.0 * np.log(np.diag(factor)).sum()
        result[pair] = whitened @ whitened / 8 + (logdet - both / 2) / 2
    return result


def _floored_covariance(A: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Covariance of centred rows with eigenvalues of at least `floor`."""
    eigenvalues, V = np.linalg.eigh(A.T @ A / len(A))
    return np.asarray((V * np.maximum(eigenvalues, floor)) @ V.T)


def _principal_components(Z: NDArray[np.float64], n_components: int) -> NDArray[np.float64]:
    """Scores on the leading principal axes of centred rows, those of zero spread left out."""
    n, d = Z.shape
    if d == 0:
        return Z
    eigenvalues, vectors = np.linalg.eigh(Z.T @ Z if d <= n else Z @ Z.T)
    rank = int(np.sum(eigenvalues > max(n, d) * _EPS * eigenvalues[-1]))
    kept = slice(len(eigenvalues) - min(rank, n_components), None)
    if d <= n:
        return np.asarray(Z @ vectors[:, kept])
    return np.asarray(vectors[:, kept] * np.sqrt(eigenvalues[kept]))


def _warn_single_rows(block: FeatureBlock) -> None:
    labels, counts = np.unique(block.y, return_counts=True)
    single = labels[counts == 1].tolist()
    if single:
        where = f"layer {block.name!r}" if block.name else "X"
        warnings.warn(
            f"Classes {single} have a single row in {where}: their variance is unknown and "
            "set to its floor, which makes them look separable. Sample more voxels of them.",
            UnusableClassWarning,
            stacklevel=2,
        )
