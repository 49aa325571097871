"""TransRate: mutual information of features and labels by coding rates."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import Array, encode_labels, moments_of
from skte.features import ClassMoments, FeatureBlock

_EPS = float(np.finfo(np.float64).eps)
# Mean squared distances from the mean, over eps: below, all is noise; above, the
# logarithm of the scale is most of the score.
_LEAST_SPREAD, _MOST_SPREAD = 1e-2, 1e16


class TransRate(TransferabilityEstimator):
    r"""TransRate: coding rate of all features minus that within classes.

    With ``Z`` the features centred on their common mean, ``Z_c`` its ``n_c`` rows of
    class ``c`` (not centred again) and R the coding rate in nats::

        TransRate = R(Z) - sum over c of n_c/n R(Z_c)
        R(Z) = 1/2 log |I + Z^T Z / (n eps)|

    Parameters
    ----------
    eps : float, default=1e-4
        Squared distortion of the coding rate: below this variance a direction counts as noise.
    normalize : {"trace"} or None, default=None
        "trace" scales ``Z`` to mean squared row norm 1, which makes models with
        different feature scales comparable. None: features as they come.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        At least 0 (every class fills the same directions). Higher is better.

    References
    ----------
    .. [1] Huang, L.-K. et al. "Frustratingly Easy Transferability Estimation". ICML 2022.
       arXiv:2106.09362.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import TransRate
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 300)
    >>> noise = rng.normal(size=(300, 8))
    >>> informative = noise + 3 * np.eye(8)[labels]
    >>> bool(TransRate().fit(informative, labels).score() > TransRate().fit(noise, labels).score())
    True
    """

    _tags: ClassVar[EstimatorTags] = EstimatorTags(moments=True, corrects_bias=True)
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "eps": [Interval(Real, 0, None, closed="neither")],
        "normalize": [StrOptions({"trace"}), None],
    }

    def __init__(
        self, *, eps: float = 1e-4, normalize: str | None = None, layer_reduction: str = "mean"
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.eps = eps
        self.normalize = normalize

    def _spread_bounds(self) -> tuple[float, float]:
        if self.normalize == "trace":
            return 0.0, np.inf
        return _LEAST_SPREAD * self.eps, _MOST_SPREAD * self.eps

    def _score_block(self, block: FeatureBlock) -> float:
        encode_labels(block.y)  # refuses a single class
        return self._score_moments(moments_of(block))

    def _score_moments(self, moments: ClassMoments) -> float:
        n = moments.n_voxels
        spread = float(np.trace(moments.total)) / n
        if spread == 0.0:
            return 0.0
        log_scale = 2.0 * moments.exponent * np.log(2.0)
        if self.normalize == "trace":
            log_scale = -np.log(spread)
        log_scale -= np.log(self.eps)
        outer = moments.centres[:, :, None] * moments.centres[:, None, :]
        grams = moments.scatters + moments.counts[:, None, None] * outer
        within = sum(
            count / n * _coding_rate(gram, count, log_scale)
            for gram, count in zip(grams, moments.counts.tolist(), strict=True)
        )
        # The log determinant is concave, so a negative value is rounding.
        return float(max(_coding_rate(grams.sum(axis=0), n, log_scale) - within, 0.0))


def _coding_rate(gram: Array, n: int, log_scale: float) -> float:
    """``1/2 log |I + exp(log_scale) / n * gram|``, for scales that overflow, too."""
    eigenvalues = np.linalg.eigvalsh(gram)
    # Beyond its rank a Gram matrix has rounding, which a large scale would count.
    eigenvalues = eigenvalues[eigenvalues > max(len(gram), n) * _EPS * eigenvalues[-1]]
    return float(0.5 * np.logaddexp(0.0, np.log(eigenvalues) + log_scale - np.log(n)).sum())
