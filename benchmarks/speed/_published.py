"""The scores in the forms that their papers and first implementations have.

Written anew from the papers, plainly, as one would on a first reading. They serve as
the other side of a timing, and as a check that both compute the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA

Array = NDArray[np.float64]


def wasserstein(means: Sequence[Array], covariances: Sequence[Array], pairs: Array) -> Array:
    """CC-FV's W2: a matrix square root for each pair of cases."""
    result = np.empty(len(pairs))
    for k, (i, j) in enumerate(pairs):
        root = sqrtm(covariances[i] @ covariances[j])
        gap = means[i] - means[j]
        cross = np.trace(covariances[i] + covariances[j] - 2 * root).real
        result[k] = np.sqrt(max(gap @ gap + cross, 0.0))
    return result


def energy(X: Array) -> float:
    """CC-FV's hyperspherical energy (mean over pairs), from the full matrix of distances."""
    squares = (X**2).sum(axis=1)
    D = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * X @ X.T, 1e-4))
    inverse = 1.0 / D
    np.fill_diagonal(inverse, 0.0)
    return float(inverse.sum() / (len(X) * (len(X) - 1)))


def logme(X: Array, y: NDArray[np.intp]) -> float:
    """LogME: a singular value decomposition, then a fixed point for each class."""
    n, d = X.shape
    U, singular, _ = np.linalg.svd(X, full_matrices=False)
    s = singular**2
    evidences = []
    for label in np.unique(y):
        target = (y == label).astype(float)
        along = (U.T @ target) ** 2
        outside = target @ target - along.sum()
        alpha = beta = 1.0
        for _ in range(1000):
            before = alpha / beta
            gamma = (beta * s / (alpha + beta * s)).sum()
            weights = (beta**2 * s * along / (alpha + beta * s) ** 2).sum()
            residual = (alpha**2 * along / (alpha + beta * s) ** 2).sum() + outside
            alpha, beta = gamma / weights, (n - gamma) / residual
            if abs(alpha / beta - before) <= 1e-3 * before:
                break
        weights = (beta**2 * s * along / (alpha + beta * s) ** 2).sum()
        residual = (alpha**2 * along / (alpha + beta * s) ** 2).sum() + outside
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - n / 2 * np.log(2 * np.pi)
        evidence -= beta / 2 * residual + alpha / 2 * weights
        evidence -= 0.5 * np.log(alpha + beta * s).sum()
        evidences.append(evidence / n)
    return float(np.mean(evidences))


def leep(P: Array, y: NDArray[np.intp]) -> float:
    """LEEP: sample by sample."""
    joint = np.zeros((y.max() + 1, P.shape[1]))
    for p, k in zip(P, y, strict=True):
        joint[k] += p / len(y)
    conditional = joint / joint.sum(axis=0)
    total = 0.0
    for p, k in zip(P, y, strict=True):
        total += np.log(conditional[k] @ p)
    return float(total / len(y))


def h_score(X: Array, y: NDArray[np.intp]) -> float:
    """H-score: covariance of the features, and of every row's class mean."""
    means = np.zeros_like(X)
    for label in np.unique(y):
        means[y == label] = X[y == label].mean(axis=0)
    return float(np.trace(np.linalg.pinv(np.cov(X, rowvar=False)) @ np.cov(means, rowvar=False)))


def gbc(X: Array, y: NDArray[np.intp]) -> float:
    """GBC: principal components, then variances class by class."""
    Z = PCA(min(64, X.shape[1])).fit_transform(X)
    means = [Z[y == label].mean(axis=0) for label in np.unique(y)]
    variances = [Z[y == label].var(axis=0) for label in np.unique(y)]
    total = 0.0
    for i in range(len(means)):
        for j in range(len(means)):
            if i != j:
                middle = (variances[i] + variances[j]) / 2
                distance = ((means[i] - means[j]) ** 2 / middle).sum() / 8
                distance += 0.5 * np.log(middle / np.sqrt(variances[i] * variances[j])).sum()
                total -= np.exp(-distance)
    return float(total)


def transrate(X: Array, y: NDArray[np.intp], eps: float = 1e-4) -> float:
    """TransRate: a log determinant for all rows and for each class."""

    def rate(Z: Array) -> float:
        n, d = Z.shape
        return float(np.linalg.slogdet(np.eye(d) + Z.T @ Z / (n * eps))[1] / 2)

    Z = X - X.mean(axis=0)
    within = [np.mean(y == label) * rate(Z[y == label]) for label in np.unique(y)]
    return rate(Z) - sum(within)
