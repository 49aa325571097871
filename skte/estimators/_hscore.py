"""H-score: how much of the features' variance lies between the classes."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skte._sklearn import StrOptions
from skte.estimators._base import EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import Array, centred, encode_labels
from skte.exceptions import SaturatedScoreWarning
from skte.features import ClassMoments, FeatureBlock

_EPS = float(np.finfo(np.float64).eps)
# Within this share of its ceiling the score no longer separates models.
_AT_CEILING = 0.99


class HScore(TransferabilityEstimator):
    r"""H-score: between-class variance, measured in units of the features' variance.

    With ``cov(f)`` the covariance of all features and ``cov(E[f | y])`` that of the
    class means, each weighted by its share of rows::

        H = tr(cov(f)^+ cov(E[f | y]))

    The trace of a matrix *product*: a popular copy multiplies element by element.

    Parameters
    ----------
    shrinkage : {"ledoit-wolf"} or None, default=None
        "ledoit-wolf" replaces ``cov(f)`` by ``(1 - a) cov(f) + a m I``, with ``m`` the
        mean variance and ``a`` as Ledoit and Wolf choose it, and multiplies
        ``cov(E[f | y])`` by ``1 - a``: for features with few voxels per channel.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Between 0 (the class means coincide) and C - 1 for C classes (every class is a
        point, or there are more channels than voxels). Higher is better.

    References
    ----------
    .. [1] Bao, Y. et al. "An Information-Theoretic Approach to Transferability in Task Transfer
       Learning". ICIP 2019. arXiv:2212.10082.
    .. [2] Ibrahim, S. et al. "Newer is not always better: Rethinking transferability metrics,
       their peculiarities, stability and performance". ECML PKDD 2022. arXiv:2110.06893.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import HScore
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 300)
    >>> noise = rng.normal(size=(300, 8))
    >>> informative = noise + 3 * np.eye(8)[labels]
    >>> bool(HScore().fit(informative, labels).score() > HScore().fit(noise, labels).score())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "shrinkage": [StrOptions({"ledoit-wolf"}), None],
    }

    def __init__(self, *, shrinkage: str | None = None, layer_reduction: str = "mean") -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.shrinkage = shrinkage

    @property
    def tags(self) -> EstimatorTags:
        """What the score needs and accepts."""
        return EstimatorTags(moments=self.shrinkage is None, corrects_bias=True)

    def _score_block(self, block: FeatureBlock) -> float:
        encode_labels(block.y)  # refuses a single class
        if self.shrinkage is None and block.moments_suffice:
            return self._score_moments(block.moments)
        score = h_score(block.X, block.y, shrinkage=self.shrinkage)
        self._warn_at_ceiling(score, len(np.unique(block.y)), block.label)
        return score

    def _score_moments(self, moments: ClassMoments) -> float:
        score = _from_moments(moments)
        self._warn_at_ceiling(score, len(moments.classes), moments.label)
        return score

    def _warn_at_ceiling(self, score: float, n_classes: int, where: str) -> None:
        if self.shrinkage is None and score > _AT_CEILING * (n_classes - 1):
            warnings.warn(
                f"{where}: the H-score is {score:.4g}, its ceiling C - 1 = {n_classes - 1}, where "
                "models cannot be separated. Use HScore(shrinkage='ledoit-wolf'), or sample "
                "more voxels.",
                SaturatedScoreWarning,
                stacklevel=2,
            )


def h_score(
    X: NDArray[np.floating], y: NDArray[np.generic], *, shrinkage: str | None = None
) -> float:
    """H-score of features for labels.

    Arrays X of shape (n_samples, n_features) and y of shape (n_samples,) are taken as they are; all
    else is as for `HScore`.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.estimators import h_score
    >>> X = np.array([[-1.0], [1.0], [3.0], [5.0]])  # means 0 and 4, variance 5 in all
    >>> round(h_score(X, np.array([0, 0, 1, 1])), 6)
    0.8
    """
    classes, codes = encode_labels(y)
    if shrinkage is None and X.shape[1] <= len(X):
        return _from_moments(ClassMoments.from_arrays(X, codes))
    Z, _ = centred(X)
    if not Z.size:
        return 0.0
    counts = np.bincount(codes)
    means = np.stack([Z[codes == k].mean(axis=0) for k in range(len(classes))])
    between = means * np.sqrt(counts / len(Z))[:, None]  # between^T between = cov(E[f | y])
    variances, axes = _principal_axes(Z)
    along = (between @ axes) ** 2
    if shrinkage is None:
        kept = variances > max(Z.shape) * _EPS * variances[0]
        return float((along[:, kept] / variances[kept]).sum())
    amount, mean_variance = _ledoit_wolf(Z, X.shape[1], variances)
    shrunk = (1 - amount) * variances + amount * mean_variance
    return float((1 - amount) * (along / shrunk).sum())


def _principal_axes(Z: Array) -> tuple[Array, Array]:
    """Variances, largest first, along orthonormal columns that span the rows of `Z`."""
    if Z.shape[1] <= len(Z):
        eigenvalues, vectors = np.linalg.eigh(Z.T @ Z)
        return np.maximum(eigenvalues[::-1], 0.0) / len(Z), vectors[:, ::-1]
    _, singular, axes = np.linalg.svd(Z, full_matrices=False)
    return singular**2 / len(Z), axes.T


def _from_moments(moments: ClassMoments) -> float:
    total = moments.total
    eigenvalues, V = np.linalg.eigh(total)
    largest = eigenvalues[-1] if len(eigenvalues) else 0.0
    kept = eigenvalues > max(moments.n_voxels, len(total)) * _EPS * largest
    if largest <= 0.0 or not kept.any():
        return 0.0
    along = (moments.centres * np.sqrt(moments.counts)[:, None]) @ V[:, kept]
    return float((along**2 / eigenvalues[kept]).sum())


def _ledoit_wolf(Z: Array, n_features: int, variances: Array) -> tuple[float, float]:
    """Amount of shrinkage and its target, the mean variance over all channels."""
    # ``a = b / d``: d is the squared distance of the covariance from its target, b the
    # expected squared error of the covariance, both per channel, and ``a <= 1``. Only sums
    # are needed: no matrix of channels by channels is formed.
    n = len(Z)
    squares = np.einsum("ij,ij->i", Z, Z)
    norm = float((variances**2).sum())  # |cov|^2
    mean_variance = float(variances.sum()) / n_features
    error = (float((squares**2).sum()) / n - norm) / n
    distance = norm - n_features * mean_variance**2
    return (min(error, distance) / distance if distance > 0 else 0.0), mean_variance
