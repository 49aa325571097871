"""TransRate: mutual information of features and labels by coding rates."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import Array, centred, encode_labels
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
        if block.moments_suffice:
            encode_labels(block.y)  # refuses a single class
            return self._score_moments(block.moments)
        return transrate_score(block.X, block.y, eps=self.eps, normalize=self.normalize)

    def _score_moments(self, moments: ClassMoments) -> float:
        return _from_moments(moments, self.eps, self.normalize)


def transrate_score(
    X: NDArray[np.floating],
    y: NDArray[np.generic],
    *,
    eps: float = 1e-4,
    normalize: str | None = None,
) -> float:
    """Coding rate of features minus the weighted coding rates of the classes.

    Arrays X of shape (n_samples, n_features) and y of shape (n_samples,) are taken as they are; all
    else is as for `TransRate`.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.estimators import transrate_score
    >>> X = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    >>> transrate_score(X, np.array([0, 0, 1, 1]))  # classes alike
    0.0
    """
    classes, codes = encode_labels(y)
    n = len(X)
    if np.ndim(X) == 2 and X.shape[1] <= n:
        return _from_moments(ClassMoments.from_arrays(X, codes), eps, normalize)
    Z, exponent = centred(X)
    if not Z.size:
        return 0.0
    total = Z @ Z.T  # the same non-zero eigenvalues in a smaller matrix
    rows = [np.flatnonzero(codes == k) for k in range(len(classes))]
    grams = [total[np.ix_(r, r)] for r in rows]
    log_scale = _log_scale(float(np.trace(total)) / n, exponent, eps, normalize)
    return _gain(total, grams, [len(r) for r in rows], log_scale)


def _from_moments(moments: ClassMoments, eps: float, normalize: str | None) -> float:
    spread = float(np.trace(moments.total)) / moments.n_voxels
    if spread == 0.0:
        return 0.0
    outer = moments.centres[:, :, None] * moments.centres[:, None, :]
    grams = moments.scatters + moments.counts[:, None, None] * outer
    log_scale = _log_scale(spread, moments.exponent, eps, normalize)
    return _gain(grams.sum(axis=0), list(grams), moments.counts.tolist(), log_scale)


def _log_scale(spread: float, exponent: int, eps: float, normalize: str | None) -> float:
    """Logarithm of what Gram matrices are multiplied by: the scale, over `eps`."""
    scale = -np.log(spread) if normalize == "trace" else 2.0 * exponent * np.log(2.0)
    return float(scale - np.log(eps))


def _gain(total: Array, grams: Sequence[Array], counts: Sequence[int], log_scale: float) -> float:
    n = sum(counts)
    within = sum(
        count / n * _coding_rate(gram, count, log_scale)
        for gram, count in zip(grams, counts, strict=True)
    )
    # The log determinant is concave, so a negative value is rounding.
    return max(float(_coding_rate(total, n, log_scale) - within), 0.0)


def _coding_rate(gram: Array, n: int, log_scale: float) -> float:
    """``1/2 log |I + exp(log_scale) / n * gram|``, for scales that overflow, too."""
    eigenvalues = np.linalg.eigvalsh(gram)
    # Beyond its rank a Gram matrix has rounding, which a large scale would count.
    eigenvalues = eigenvalues[eigenvalues > max(len(gram), n) * _EPS * eigenvalues[-1]]
    return float(0.5 * np.logaddexp(0.0, np.log(eigenvalues) + log_scale - np.log(n)).sum())
