"""RankMe: how many directions the features of whole cases fill."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from skte.estimators._base import Details, EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import Array, Ints, unit_range
from skte.exceptions import CollapsedFeaturesWarning
from skte.features import FeatureBlock

_EPS = float(np.finfo(np.float64).eps)
# An effective rank this close to 1 is 1 up to rounding.
_RANK_ONE = 1e-6
# Second moments of every case, in bytes.
_MOST_BYTES = 2**29


class RankMe(TransferabilityEstimator):
    r"""RankMe: the effective rank of the features. Label-free.

    With ``s_1, s_2, ...`` the singular values of the features of whole cases (not centred)::

        RankMe = exp(-sum_i p_i log p_i),  p_i = s_i / sum_j s_j

    Parameters
    ----------
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Between 1 (all features are multiples of one vector) and the smaller number
        of voxels and channels (all directions alike). Higher is better.

    Raises
    ------
    ValueError
        If the whole-case sample is empty.

    References
    ----------
    .. [1] Garrido, Q. et al. "RankMe: Assessing the Downstream Performance of Pretrained Self-
       Supervised Representations by Their Rank". ICML 2023. arXiv:2210.02885.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import RankMe
    >>> float(round(RankMe().fit(np.eye(4)).score_, 9))
    4.0
    >>> rng = np.random.default_rng(0)
    >>> various = rng.normal(size=(300, 8))
    >>> narrow = various * np.array([1.0] * 2 + [0.01] * 6)
    >>> RankMe().score(various) > RankMe().score(narrow)
    True
    """

    _tags: ClassVar[EstimatorTags] = EstimatorTags(
        labels=False, case_sample=True, corrects_bias=True, warns_of_constants=True
    )

    def _score_block(self, block: FeatureBlock) -> float:
        X, _ = block.case_sample
        if not len(X):
            raise ValueError(
                f"{block.label}: the whole-case sample is empty, so RankMe has no features to "
                "look at. Sample voxels of whole cases: samples='all' of the extractor."
            )
        Z, _ = unit_range(X)  # squares neither overflow nor vanish
        n, d = Z.shape
        score = _effective_rank(np.linalg.eigvalsh(Z.T @ Z if d <= n else Z @ Z.T), n, d)
        if score < 1 + _RANK_ONE and block.n_channels > 1:
            warnings.warn(
                f"{block.label}: the features of all voxels are multiples of one vector, so "
                f"RankMe is {score:.4g}, its minimum.",
                CollapsedFeaturesWarning,
                stacklevel=2,
            )
        return score

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """From the second moments of each case."""
        X, groups = block.case_sample
        n, d = X.shape
        if d > n or 8 * weights.shape[1] * d**2 > _MOST_BYTES:
            return super()._resample_block(block, details, weights)
        Z, _ = unit_range(X)
        counts = np.bincount(np.asarray(groups, dtype=np.intp), minlength=weights.shape[1])
        parts = np.split(Z[np.argsort(groups, kind="stable")], np.cumsum(counts)[:-1])
        grams = np.stack([A.T @ A for A in parts]).reshape(len(parts), -1)
        scores = np.full(len(weights), np.nan)
        for b, size in enumerate(weights @ counts):
            if size:
                squares = np.linalg.eigvalsh((weights[b] @ grams).reshape(d, d))
                scores[b] = _effective_rank(squares, int(size), d)
        return scores


def _effective_rank(squares: NDArray[np.floating], n: int, d: int) -> float:
    # What rounding leaves beyond the rank is 1e-8 each once the root is taken: not nothing.
    squares = squares[squares > max(n, d) * _EPS * squares[-1]]
    if not len(squares):
        return 1.0
    values = np.sqrt(squares)
    return max(float(np.exp(entr(values / values.sum()).sum())), 1.0)
