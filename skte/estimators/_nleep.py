"""NLEEP: LEEP of a Gaussian mixture fitted to the features."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import Details, EstimatorTags, TransferabilityEstimator
from skte.estimators._leep import leep_of, weighted_leep
from skte.estimators._samples import Array, Ints, centred, encode_labels, held_groups, warn_at_floor
from skte.exceptions import SaturatedScoreWarning
from skte.features import FeatureBlock

# The mixture sees coordinates (of unit total variance) rounded to this many decimals:
# the order of rows that coincide, and the k-means that starts it, can depend on the
# last bit, and that on the order of rows and channels.
_DECIMALS = 8
_EPS = float(np.finfo(np.float64).eps)


class NLEEP(TransferabilityEstimator):
    r"""LEEP with a Gaussian mixture in place of the source head (NLEEP).

    With ``v`` a component of a Gaussian mixture fitted to the principal coordinates
    ``s`` of the features, and ``p(v | s)`` its posterior at a voxel::

        P(y, v) = 1/n sum over i with y_i = y of p(v | s_i)
        P(y | v) = P(y, v) / sum over y of P(y, v)
        NLEEP = 1/n sum_i log sum_v P(y_i | v) p(v | s_i)

    Parameters
    ----------
    variance : float, default=0.8
        Principal coordinates are kept up to this share of the variance.
    n_components_per_class : int, default=5
        Mixture components, as a multiple of the number of classes.
    covariance : {"full", "diag"}, default="full"
        Shape of a component's covariance in principal coordinates. "diag" is faster
        and needs fewer voxels.
    random_state : int, default=0
        Seed of the mixture's first guess.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Between ``-H(y)``, the negative entropy of the labels in nats, and 0. Higher is better.

    References
    ----------
    .. [1] Li, Y. et al. "Ranking Neural Checkpoints". CVPR 2021. arXiv:2011.11200.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import NLEEP
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 300)
    >>> noise = rng.normal(size=(300, 4))
    >>> informative = noise + 6 * np.eye(4)[labels]
    >>> NLEEP().fit(informative, labels).score() > NLEEP().fit(noise, labels).score()
    True
    """

    _tags: ClassVar[EstimatorTags] = EstimatorTags(warns_of_constants=True)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "variance": [Interval(Real, 0, 1, closed="right")],
        "n_components_per_class": [Interval(Integral, 1, None, closed="left")],
        "covariance": [StrOptions({"full", "diag"})],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        variance: float = 0.8,
        n_components_per_class: int = 5,
        covariance: str = "full",
        random_state: int = 0,
        layer_reduction: str = "mean",
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.variance = variance
        self.n_components_per_class = n_components_per_class
        self.covariance = covariance
        self.random_state = random_state

    def _score_block(self, block: FeatureBlock) -> tuple[float, Details]:
        posterior = self._posterior(block)
        score = leep_of(posterior, block.y)
        warn_at_floor("NLEEP", score, block)
        return score, {"posterior": posterior}

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """Scores with the mixture of all cases: one of its own would be another local optimum."""
        return weighted_leep(details["posterior"], block.y, held_groups(block), weights)

    def _posterior(self, block: FeatureBlock) -> Array:
        """Probabilities of the components of a mixture fitted to principal coordinates."""
        classes, _ = encode_labels(block.y)
        T = principal_coordinates(block.X, self.variance)
        if not T.shape[1]:  # constant features: one component holds all
            return np.ones((block.n_voxels, 1))
        T = np.round(T, _DECIMALS)
        order = np.lexsort(T.T[::-1])
        T = T[order]
        n_distinct = 1 + int((np.diff(T, axis=0) != 0).any(axis=1).sum())
        wanted = self.n_components_per_class * len(classes)
        n_components = min(wanted, max(1, n_distinct // 2))
        if n_components < wanted:
            warnings.warn(
                f"{block.label}: {n_distinct} distinct voxels are too few for a mixture of "
                f"{wanted} components; NLEEP fits {n_components}, and its score is optimistic. "
                "Sample more voxels, or lower n_components_per_class.",
                SaturatedScoreWarning,
                stacklevel=3,
            )
        mixture = GaussianMixture(
            n_components, covariance_type=self.covariance, random_state=self.random_state
        )
        posterior = np.empty((len(T), n_components))
        with warnings.catch_warnings():
            # A fit cut off after 100 steps has a posterior all the same; only its optimum differs.
            warnings.simplefilter("ignore", ConvergenceWarning)
            posterior[order] = mixture.fit(T).predict_proba(T)
        return posterior


def principal_coordinates(X: NDArray[np.floating], variance: float) -> Array:
    """Project features of unit total variance on the axes that hold `variance` of it."""
    # Axes point to where their coordinates are skewed, which rows in any order tell: the
    # result depends on no scale, shift or rotation. Axes of equal variance, or with exactly
    # symmetric coordinates, stay ambiguous.
    Z, _ = centred(X)
    n, d = Z.shape
    if not d:
        return Z
    Z *= np.sqrt(n / np.einsum("ij,ij->", Z, Z))
    wide = d > n
    eigenvalues, vectors = np.linalg.eigh(Z @ Z.T if wide else Z.T @ Z)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    rank = int((eigenvalues > max(n, d) * _EPS * eigenvalues[0]).sum())
    shares = np.cumsum(eigenvalues[:rank]) / eigenvalues[:rank].sum()
    kept = min(rank, int(np.searchsorted(shares, variance, side="right")) + 1)
    vectors = vectors[:, :kept]
    T = vectors * np.sqrt(eigenvalues[:kept]) if wide else Z @ vectors
    return np.asarray(T * np.where((T**3).sum(axis=0) < 0, -1.0, 1.0))
