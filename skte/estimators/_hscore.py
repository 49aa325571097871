"""H-score: how much of the features' variance lies between the classes."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage

from skte._sklearn import StrOptions
from skte.estimators._base import EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import encode_labels, moments_of, unit_range
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
        if self.shrinkage is None:
            return self._score_moments(moments_of(block))
        amount = float(ledoit_wolf_shrinkage(unit_range(block.X)[0]))
        return _ratio(moments_of(block), amount, block.n_channels)

    def _score_moments(self, moments: ClassMoments) -> float:
        score, ceiling = _ratio(moments), len(moments.classes) - 1
        if score > _AT_CEILING * ceiling:
            warnings.warn(
                f"{moments.label}: the H-score is {score:.4g}, its ceiling C - 1 = {ceiling}, "
                "where models cannot be separated. Use HScore(shrinkage='ledoit-wolf'), or sample "
                "more voxels.",
                SaturatedScoreWarning,
                stacklevel=2,
            )
        return score


def _ratio(moments: ClassMoments, amount: float = 0.0, n_channels: int = 1) -> float:
    """Trace of the ratio of covariances, shrunk by an amount toward the mean over channels."""
    eigenvalues, V = np.linalg.eigh(moments.total)
    largest = max(eigenvalues, default=0.0)
    kept = eigenvalues > max(moments.n_voxels, len(eigenvalues)) * _EPS * largest
    if largest <= 0.0:
        return 0.0
    along = (moments.centres * np.sqrt(moments.counts)[:, None]) @ V[:, kept]
    mean = float(eigenvalues.sum()) / n_channels
    shrunk = (1 - amount) * eigenvalues[kept] + amount * mean
    return float((1 - amount) * (along**2 / shrunk).sum())
