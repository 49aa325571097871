"""SFDA: class posteriors in a Fisher space, once features were made harder."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import (
    Array,
    Ints,
    centred,
    encode_labels,
    label_entropy,
    warn_at_floor,
)
from skte.features import FeatureBlock

# The released code's least shrinkage: exp(-a sigma) vanishes on large features.
_MIN_SHRINKAGE = 1e-10
# Below this a sigma, lambda is 1 within a thousandth.
_LEAST_EXPONENT = 1e-3
# Variance, as a share of the mean over channels, below which features differ by rounding.
_ROUNDING = 1e-24


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
        score = sfda_score(block.X, block.y, a=self.a, normalize=self.normalize)
        warn_at_floor("SFDA", score, block)
        return score


def sfda_score(
    X: NDArray[np.floating], y: NDArray[np.generic], *, a: float = 5.0, normalize: str | None = None
) -> float:
    """Mean log posterior of the labels by Fisher discriminants of harder features.

    Arrays X of shape (n_samples, n_features) and y of shape (n_samples,) are taken as they are; all
    else is as for `SFDA`.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.estimators import sfda_score
    >>> round(sfda_score(np.ones((4, 2)), np.array([0, 0, 1, 1])), 4)  # minus log 2
    -0.6931
    """
    _, codes = encode_labels(y)
    Z, exponent = centred(X)
    n, d = Z.shape
    if not d:
        return -label_entropy(y)
    trace = float(np.einsum("ij,ij->", Z, Z)) / n
    log_scale = -np.log(trace) if normalize == "trace" else 2.0 * exponent * np.log(2.0)
    if d > n:  # all rows lie in n dimensions: the same distances in fewer coordinates
        Z = np.asarray(np.linalg.qr(Z.T, mode="r")).T
    counts = np.bincount(codes)
    means, within = _fisher(Z, codes, counts)
    sigma = max(float(np.linalg.eigvalsh(within)[-1]), np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):  # then shrinkage is at its least
        shrinkage = max(float(np.exp(-a * np.exp(np.log(sigma) + log_scale))), _MIN_SHRINKAGE)
    confidence = np.exp(_log_posterior(Z, codes, counts, means, within, shrinkage, d))[:, None]
    others = (n * Z.mean(axis=0) - counts[:, None] * means) / (n - counts)[:, None]
    Z = confidence * Z + (1.0 - confidence) * others[codes]
    means, within = _fisher(Z, codes, counts)
    return float(_log_posterior(Z, codes, counts, means, within, shrinkage, d).mean())


def _fisher(Z: Array, codes: Ints, counts: Ints) -> tuple[Array, Array]:
    """Class means and the covariance within classes (divided by n)."""
    means = np.stack([Z[codes == k].mean(axis=0) for k in range(len(counts))])
    A = Z - means[codes]
    return means, A.T @ A / len(Z)


def _log_posterior(
    Z: Array, codes: Ints, counts: Ints, means: Array, within: Array, shrinkage: float, d: int
) -> Array:
    """Log probability of each row's own class."""
    eigenvalues, vectors = np.linalg.eigh(within)
    shares = counts / len(Z)
    spread = Z - Z.mean(axis=0)
    rounding = _ROUNDING * float(np.einsum("ij,ij->", spread, spread)) / len(Z)
    ridge = max(shrinkage * float(np.trace(within)), rounding) / d
    variances = (1.0 - shrinkage) * np.maximum(eigenvalues, 0.0) + ridge
    if not variances.min() > 0:  # the moved features coincide
        return np.log(shares)[codes]
    whitening = vectors / np.sqrt(variances)
    # Differences, not products: rounding must not separate classes with one mean.
    distances = cdist(Z @ whitening, means @ whitening, "sqeuclidean")
    scores = log_softmax(np.log(shares) - 0.5 * distances, axis=1)
    return np.asarray(scores[np.arange(len(Z)), codes])
