"""LogME: the evidence of a Bayesian linear model for the labels."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from skte.estimators._base import Details, EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import Array, Ints, each_or_nan, encode_labels, unit_range
from skte.features import ClassMoments, FeatureBlock

_EPS = float(np.finfo(np.float64).eps)
# Squaring the features halves their digits. Below these ratios (of eigenvalues, of
# the residual to the target) the fast Gram form would lose the seventh digit.
_GRAM_CONDITION = 1e-8
_GRAM_RESIDUAL = 1e-6
# Step, in log(alpha / beta), of the search for the basin of the global maximum. The
# evidence is a sum of logistic curves in that variable, none steeper than one e-fold.
_GRID_STEP = 0.5
# On that variable, at the maximum.
_TOLERANCE = 1e-8


class LogME(TransferabilityEstimator):
    r"""Logarithm of Maximum Evidence (LogME).

    Each class is a target ``y = 1[label = k]`` of the linear model ``y = X w + noise`` with ``w ~
    N(0, 1/alpha)`` and noise ``N(0, 1/beta)``, without intercept. The score is the mean over the
    classes present of the maximum over ``alpha`` and ``beta`` of the evidence per voxel::

        1/n [ n/2 log beta + d/2 log alpha - n/2 log 2 pi - beta/2 |X m - y|^2
              - alpha/2 |m|^2 - 1/2 log |alpha I + beta X^T X| ]

    where ``m`` is the posterior mean of ``w``. Labels that are whole numbers are classes. Others,
    of shape (n_samples,) or (n_samples, n_targets), are the targets of a regression; to regress
    on counts, move them off the whole numbers, as by subtracting their mean.

    Parameters
    ----------
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Mean log evidence per voxel. Higher is better. Unbounded in principle: a
        density, not a probability, so positive values are possible.

    References
    ----------
    .. [1] You, K. et al. "LogME: Practical Assessment of Pre-trained Models for Transfer
       Learning". ICML 2021. arXiv:2102.11005.
    .. [2] You, K. et al. "Ranking and Tuning Pre-trained Models: A New Paradigm for Exploiting
       Model Hubs". JMLR 23 (2022). arXiv:2110.10545.

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

    _tags: ClassVar[EstimatorTags] = EstimatorTags(moments=True, continuous_labels=True)

    def _score_block(self, block: FeatureBlock) -> float:
        if block.y.ndim == 2 and block.y.shape[1] == 1:
            block = replace(block, y=column_or_1d(block.y, warn=True))
        evidence = self._exact_evidence(block)
        return float((self._evidence(block) if evidence is None else evidence).mean())

    def _exact_evidence(self, block: FeatureBlock) -> Array | None:
        """Evidence of classes from moments, where they have every digit that features have."""
        if type_of_target(block.y) not in ("binary", "multiclass") or not block.moments_suffice:
            return None
        encode_labels(block.y)  # refuses a single class
        spectrum = _decompose_moments(block.moments, exact=True)
        return None if spectrum is None else _maximise(spectrum)

    def _evidence(self, block: FeatureBlock) -> Array:
        """Evidence of each target, from the features themselves."""
        Y = _as_targets(block.y)
        silent = np.flatnonzero(~Y.any(axis=0))
        if len(silent):
            raise ValueError(
                f"Target column(s) {silent.tolist()} are zero everywhere, so every model "
                "explains them perfectly. Leave them out."
            )
        targets, exponents = zip(*(unit_range(y) for y in Y.T), strict=True)
        # Scaling X changes alpha alone, scaling y by c takes log(c) off the evidence.
        spectrum = _decompose(unit_range(block.X)[0], np.stack(targets, axis=1))
        evidence = _maximise(spectrum)
        return np.asarray(evidence - np.log(2.0) * np.array(exponents))

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        if self._exact_evidence(block) is not None:
            return super()._resample_block(block, details, weights)
        return each_or_nan(self._score_block, block, weights)

    def _score_moments(self, moments: ClassMoments) -> float:
        spectrum = _decompose_moments(moments)
        assert spectrum is not None  # None means: ask the features, and there are none
        return float(_maximise(spectrum).mean())


def _as_targets(y: NDArray[np.generic]) -> Array:
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


class _Spectrum(NamedTuple):
    """What the evidence depends on: r eigenvalues and the targets along them."""

    eigenvalues: Array  # (r,), of X^T X, positive
    energies: Array  # (r, t), squared projection of each target
    residuals: Array  # (t,), squared norm outside the column space
    n_samples: int


def _decompose_moments(moments: ClassMoments, *, exact: bool = False) -> _Spectrum | None:
    """From moments of classes; with `exact`, None where squares lack digits that features have."""
    mean, n = moments.pivot + moments.mean_offset, moments.n_voxels
    gram = moments.total + n * np.outer(mean, mean)
    cross = (moments.pivot + moments.offsets).T * moments.counts
    squares = moments.counts.astype(np.float64)
    # A zero channel adds log(alpha) to the determinant and takes it off again.
    kept = np.flatnonzero(np.diag(gram) > 0)
    if len(kept) == 0:
        return _Spectrum(np.zeros(0), np.zeros((0, len(squares))), squares, n)
    eigenvalues, V = np.linalg.eigh(gram[np.ix_(kept, kept)])
    if exact and eigenvalues[0] <= _GRAM_CONDITION * eigenvalues[-1]:
        return None
    rank = eigenvalues > max(n, len(kept)) * _EPS * eigenvalues[-1]
    eigenvalues, V = eigenvalues[rank], V[:, rank]
    energies = (V.T @ cross[kept]) ** 2 / eigenvalues[:, None]
    residuals = squares - energies.sum(axis=0)
    if exact and (residuals < _GRAM_RESIDUAL * squares).any():
        return None
    return _spectrum(eigenvalues, energies, residuals, squares, n)


def _spectrum(
    eigenvalues: Array, energies: Array, residuals: Array, squares: Array, n_samples: int
) -> _Spectrum:
    if len(eigenvalues) == n_samples:  # the features span every target
        residuals = np.zeros_like(squares)
    else:
        residuals = np.maximum(residuals, _EPS * squares)
    return _Spectrum(eigenvalues, energies, residuals, n_samples)


def _decompose(X: Array, Y: Array) -> _Spectrum:
    """From a triangular factor, to full precision whatever the condition of X."""
    X = X[:, X.any(axis=0)]
    n_samples, n_features = X.shape
    squares = np.einsum("ij,ij->j", Y, Y)
    if not n_features:
        return _Spectrum(np.zeros(0), np.zeros((0, len(squares))), squares, n_samples)
    if n_features <= n_samples:
        R = np.asarray(np.linalg.qr(np.hstack([X, Y]), mode="r"))
        square, projected = R[:n_features, :n_features], R[:n_features, n_features:]
        residuals = (R[n_features:, n_features:] ** 2).sum(axis=0)
    else:
        square, projected = np.asarray(np.linalg.qr(X.T, mode="r")).T, Y
        residuals = np.zeros(Y.shape[1])
    U, singular, _ = np.linalg.svd(square)
    energies = (U.T @ projected) ** 2
    rank = int(np.sum(singular > max(X.shape) * _EPS * singular[0]))
    residuals = residuals + energies[rank:].sum(axis=0)
    return _spectrum(singular[:rank] ** 2, energies[:rank], residuals, squares, n_samples)


def _maximise(spectrum: _Spectrum) -> Array:
    """Global maximum over ``log(alpha / beta)``: a grid finds the basin, then bisection."""
    n = spectrum.n_samples
    squares = spectrum.energies.sum(axis=0) + spectrum.residuals
    # alpha -> inf: no weights at all, every target is noise.
    evidence = -0.5 * (np.log(squares / n) + np.log(2.0 * np.pi) + 1.0)
    if not len(spectrum.eigenvalues):
        return np.asarray(evidence)
    # Below the lower end the slope is positive or nil, above the upper end the
    # evidence differs from that of noise by less than rounding.
    lower = np.log(0.1 * _EPS * spectrum.eigenvalues.min() / n)
    upper = np.log(1e12 * spectrum.eigenvalues.max())
    grid = np.linspace(lower, upper, int(np.ceil((upper - lower) / _GRID_STEP)) + 1)
    columns = np.arange(len(squares))
    values = _profile(grid, spectrum)
    best = values.argmax(axis=0)
    evidence = np.maximum(evidence, values[best, columns])
    rising = _slope(grid[best], spectrum) > 0
    left = grid[np.where(rising, best, np.maximum(best - 1, 0))]
    right = grid[np.where(rising, np.minimum(best + 1, len(grid) - 1), best)]
    while (right - left).max() > _TOLERANCE:
        middle = 0.5 * (left + right)
        rising = _slope(middle, spectrum) > 0
        left, right = np.where(rising, middle, left), np.where(rising, right, middle)
    return np.asarray(np.maximum(evidence, np.diag(_profile(0.5 * (left + right), spectrum))))


def _profile(points: Array, spectrum: _Spectrum) -> Array:
    """Evidence at each ``log(alpha / beta)``, of shape (n_points, n_targets)."""
    # With the ratio given, the best beta is n over the penalised residual Q, and what is left
    # of the evidence is ``-log(Q / n) / 2 + log(shrinkage) / 2n`` plus constants.
    n = spectrum.n_samples
    ratio = spectrum.eigenvalues / np.exp(points)[:, None]
    penalised = (1.0 / (1.0 + ratio)) @ spectrum.energies + spectrum.residuals
    volume = -np.log1p(ratio).sum(axis=1) / n
    constant = np.log(2.0 * np.pi) + 1.0
    return np.asarray(0.5 * (volume[:, None] - np.log(penalised / n) - constant))


def _slope(points: Array, spectrum: _Spectrum) -> Array:
    """Twice the derivative of the evidence of target j at ``points[j]``."""
    weights = np.exp(points)[:, None]
    fitted = spectrum.eigenvalues / (weights + spectrum.eigenvalues)
    shrunk = weights / (weights + spectrum.eigenvalues)
    energies = spectrum.energies.T * shrunk
    penalised = energies.sum(axis=1) + spectrum.residuals
    return np.asarray(
        fitted.sum(axis=1) / spectrum.n_samples - (energies * fitted).sum(axis=1) / penalised
    )
