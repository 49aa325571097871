"""LogME: the evidence of a Bayesian linear model for the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from skte._sklearn import Interval
from skte.estimators._base import TransferabilityEstimator
from skte.estimators._evidence import class_evidence, logme_evidence
from skte.estimators._labels import encode_labels
from skte.estimators._resample import each_or_nan
from skte.estimators._resample_moments import fits_in_memory, scores_from_moments
from skte.features import ClassMoments, FeatureBlock

__all__ = ["LogME"]


class LogME(TransferabilityEstimator):
    r"""Logarithm of Maximum Evidence (LogME).

    Each class is a target ``y = 1[label = k]`` of the linear model
    ``y = X w + noise`` with ``w ~ N(0, 1/alpha)`` and noise ``N(0, 1/beta)``, without
    intercept. The score is the mean over the classes present of the maximum over
    ``alpha`` and ``beta`` of the evidence per voxel::

        1/n [ n/2 log beta + d/2 log alpha - n/2 log 2 pi - beta/2 |X m - y|^2
              - alpha/2 |m|^2 - 1/2 log |alpha I + beta X^T X| ]

    where ``m`` is the posterior mean of ``w``.

    Parameters
    ----------
    tol : float, default=1e-8
        Tolerance on ``log(alpha / beta)`` at the maximum.
    max_iter : int, default=100
        Largest number of halvings of the bracket around the maximum.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Mean log evidence per voxel. Higher is better. Unbounded in principle: a
        density, not a probability, so positive values are possible.
    layer_scores_ : ndarray of shape (n_layers,)
        Score of each layer.
    layer_names_ : tuple of str
        Names of the layers.
    n_features_in_ : int
        Number of channels, when fitted on an array.

    Warns
    -----
    CollapsedFeaturesWarning
        When features are constant.

    See Also
    --------
    logme_evidence : The same for arrays, one value per target.
    GBC : Overlap of the classes' Gaussians.

    Notes
    -----
    The log determinant has one term per channel, also where there are more channels
    than voxels. Published code often drops the ``(d - r) log alpha`` of the null
    directions and is wrong there. The fixed point of the paper is replaced by a
    direct search for the global maximum: given ``alpha / beta``, the best ``beta`` is
    known in closed form, and one variable is left.

    ``y`` may be continuous, of shape ``(n_voxels,)`` or ``(n_voxels, n_targets)``; then
    every column is a target, as is. Whole-numbered ``y`` (also stored as floats)
    holds classes, as in :func:`sklearn.utils.multiclass.type_of_target`.

    A target that the features fit perfectly has infinite evidence if there are fewer
    channels than voxels; its residual is floored at 2.2e-16 of ``|y|^2``, which gives
    a large finite score. The score is invariant to scaling and rotating features
    and to constant-zero channels. It is *not* invariant to shifting features, since the
    model has no intercept. It misleads when classes are far from linearly
    separable yet easily separated by fine-tuning, and its voxels are taken as
    independent, which voxels of one case are not.

    References
    ----------
    .. [1] You, K., Liu, Y., Wang, J., Long, M. "LogME: Practical Assessment of
       Pre-trained Models for Transfer Learning". ICML 2021. arXiv:2102.11005.
    .. [2] You, K., Liu, Y., Zhang, Z., Wang, J., Jordan, M. I., Long, M. "Ranking and
       Tuning Pre-trained Models: A New Paradigm for Exploiting Model Hubs". JMLR 23
       (2022). arXiv:2110.10545.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import LogME
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(0, 3, 300)
    >>> noise = rng.normal(size=(300, 8))
    >>> informative = noise + 3 * np.eye(8)[labels]
    >>> bool(LogME().fit(informative, labels).score() > LogME().fit(noise, labels).score())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }
    _accepts_regression: ClassVar[bool] = True
    _accepts_moments: ClassVar[bool] = True

    def __init__(
        self, *, tol: float = 1e-8, max_iter: int = 100, layer_reduction: str = "mean"
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.tol = tol
        self.max_iter = max_iter

    def _score_block(self, block: FeatureBlock) -> float:
        if block.y.ndim == 2 and block.y.shape[1] == 1:
            block = replace(block, y=column_or_1d(block.y, warn=True))
        classes = type_of_target(block.y) in ("binary", "multiclass")
        if classes and block.moments_suffice:
            encode_labels(block.y)  # refuses a single class
            # Of all voxels there are moments only: no features to ask for lost digits.
            exact = block.case_moments is None
            evidence = class_evidence(
                block.moments, tol=self.tol, max_iter=self.max_iter, exact=exact
            )
            if evidence is not None:
                return float(evidence.mean())
        Y = _as_targets(block.y)
        return float(logme_evidence(block.X, Y, tol=self.tol, max_iter=self.max_iter).mean())

    def _resample_block(
        self, block: FeatureBlock, details: Mapping[str, Any], weights: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        if self._moments_hold_all(block) and fits_in_memory(block, weights.shape[1]):
            return scores_from_moments(self._score_moments, block, weights)
        return each_or_nan(self._score_block, block, weights)

    def _moments_hold_all(self, block: FeatureBlock) -> bool:
        """Whether moments have every digit that the features would give."""
        classes = block.y.ndim == 1 and type_of_target(block.y) in ("binary", "multiclass")
        if not classes or not block.moments_suffice:
            return False
        exact = block.case_moments is None
        found = class_evidence(block.moments, tol=1.0, max_iter=self.max_iter, exact=exact)
        return found is not None

    def _score_moments(self, moments: ClassMoments) -> float:
        evidence = class_evidence(moments, tol=self.tol, max_iter=self.max_iter)
        assert evidence is not None  # None means: ask the features, and there are none
        return float(evidence.mean())


def _as_targets(y: NDArray[np.generic]) -> NDArray[np.float64]:
    """One target column per class, or the columns of a continuous `y`."""
    kind = type_of_target(y)
    if kind.startswith("continuous") or kind == "multilabel-indicator":
        return np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    if kind not in ("binary", "multiclass"):
        raise ValueError(
            f"Unknown label type: LogME cannot use a y of kind {kind!r}. Give one class "
            "label per row, one indicator column per class, or continuous targets."
        )
    classes, codes = encode_labels(y)
    return np.eye(len(classes))[codes]
