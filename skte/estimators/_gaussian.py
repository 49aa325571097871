"""Distances between the Gaussians fitted to groups of vectors, for all pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skte.features import ClassMoments

__all__ = ["PAIRWISE_DISTANCES", "Gaussians", "pairwise_wasserstein"]

Pairs = NDArray[np.intp]

# Numbers in the products of a batch of pairs.
_CHUNK = 2_000_000
# Ridge of the covariances for the distances that invert them, relative to the mean
# variance. It decides the result where a case has fewer voxels than channels.
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Gaussians fitted to groups of vectors, with covariances of ddof 1.

    Attributes
    ----------
    means : ndarray of shape (n_groups, n_channels)
        Mean of each group.
    factors : sequence of ndarray of shape (height_i, n_channels)
        For each group, A with ``A^T A`` the covariance. Without rows: a point mass.
    """

    means: NDArray[np.float64]
    factors: Sequence[NDArray[np.float64]]

    @classmethod
    def from_samples(cls, samples: Sequence[NDArray[np.float64]]) -> Self:
        """Fit to vectors, one array of shape (n_i, n_channels) a group."""
        means = np.stack([X.mean(axis=0) for X in samples])
        factors = [
            (X - mean) / np.sqrt(len(X) - 1) if len(X) > 1 else X[:0]
            for X, mean in zip(samples, means, strict=True)
        ]
        return cls(means, factors)

    @classmethod
    def at_points(cls, X: NDArray[np.float64]) -> Self:
        """Point masses at the rows of X."""
        return cls(X, [X[:0]] * len(X))

    @classmethod
    def from_moments(cls, parts: Sequence[ClassMoments], label: Any) -> Self:
        """Fit to the voxels of a class, known by their moments in each of some cases."""
        means, factors = [], []
        for part in parts:
            k = int(np.searchsorted(part.classes, label))
            means.append(np.ldexp(part.pivot + part.offsets[k], part.exponent))
            factor = _root(part.scatters[k] / max(1, part.counts[k] - 1))
            factors.append(np.ldexp(factor[: part.counts[k] - 1], part.exponent))
        return cls(np.stack(means), factors)


def _root(S: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows A, longest first, with ``A^T A = S``; what is rounding of S is left out."""
    values, V = np.linalg.eigh(S)
    kept = np.flatnonzero(values > len(values) * np.finfo(np.float64).eps * values[-1])[::-1]
    return np.asarray(np.sqrt(values[kept])[:, None] * V[:, kept].T)


def pairwise_wasserstein(gaussians: Gaussians, pairs: Pairs) -> NDArray[np.float64]:
    """2-Wasserstein distances (not squared) between Gaussians, one value per pair.

    With ``S = A^T A`` (for a sample, A is its centred rows over ``sqrt(n - 1)``), the trace
    of ``(S_i S_j)^(1/2)`` is the nuclear norm of ``A_i A_j^T``, a matrix no larger
    than the rank of the covariances. In float32 the difference of the traces
    cancels every digit on wide layers; everything here is float64.
    """
    gaps = gaussians.means[pairs[:, 0]] - gaussians.means[pairs[:, 1]]
    squared = np.einsum("ij,ij->i", gaps, gaps)
    if any(len(A) for A in gaussians.factors):
        factors = _stacked(gaussians)
        traces = np.einsum("ijk,ijk->i", factors, factors)
        squared += traces[pairs].sum(axis=1) - 2.0 * _nuclear_norms(factors, pairs)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _nuclear_norms(factors: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """Sum of the singular values of ``A_i A_j^T``, for each pair (i, j)."""
    step = max(1, _CHUNK // factors.shape[1] ** 2)
    norms = np.empty(len(pairs))
    for start in range(0, len(pairs), step):
        i, j = pairs[start : start + step].T
        products = factors[i] @ factors[j].transpose(0, 2, 1)
        norms[start : start + step] = np.linalg.svd(products, compute_uv=False).sum(axis=1)
    return norms


def _stacked(gaussians: Gaussians) -> NDArray[np.float64]:
    """Bring the factors to equal height."""
    n_channels = gaussians.means.shape[1]
    height = min(n_channels, max(len(A) for A in gaussians.factors))
    factors = np.zeros((len(gaussians.factors), height, n_channels))
    for stacked, A in zip(factors, gaussians.factors, strict=True):
        # R of a QR spans the same covariance in d rows.
        rows = np.asarray(np.linalg.qr(A, mode="r")) if len(A) > height else A
        stacked[: len(rows)] = rows
    return factors


def pairwise_kl(gaussians: Gaussians, pairs: Pairs) -> NDArray[np.float64]:
    """Symmetrised Kullback-Leibler divergence, ``(KL(i|j) + KL(j|i)) / 2``."""
    means, covariances = gaussians.means, _covariances(gaussians)
    inverses = np.linalg.inv(covariances)
    n_channels = means.shape[1]
    values = np.empty(len(pairs))
    for pair, (i, j) in enumerate(pairs):
        gap = means[i] - means[j]
        both = inverses[i] + inverses[j]
        spread = np.vdot(inverses[i], covariances[j]) + np.vdot(inverses[j], covariances[i])
        values[pair] = 0.25 * (spread - 2 * n_channels + gap @ both @ gap)
    return values


def pairwise_bhattacharyya(gaussians: Gaussians, pairs: Pairs) -> NDArray[np.float64]:
    """Bhattacharyya distance between the Gaussians."""
    means, covariances = gaussians.means, _covariances(gaussians)
    logdets = np.linalg.slogdet(covariances).logabsdet
    values = np.empty(len(pairs))
    for pair, (i, j) in enumerate(pairs):
        gap = means[i] - means[j]
        middle = (covariances[i] + covariances[j]) / 2
        volume = np.linalg.slogdet(middle).logabsdet - (logdets[i] + logdets[j]) / 2
        values[pair] = gap @ np.linalg.solve(middle, gap) / 8 + volume / 2
    return values


def _covariances(gaussians: Gaussians) -> NDArray[np.float64]:
    """Covariances with a ridge, so that they can be inverted."""
    n_channels = gaussians.means.shape[1]
    covariances = np.stack([A.T @ A for A in gaussians.factors])
    variance = float(np.trace(covariances, axis1=1, axis2=2).mean()) / n_channels
    if variance == 0.0:
        raise ValueError(
            "Every case is a point mass (one voxel, or constant features), for which "
            "this distance is infinite. Use distance='wasserstein', or sample more voxels."
        )
    covariances += _RIDGE * variance * np.eye(n_channels)
    return covariances


PAIRWISE_DISTANCES: dict[str, Callable[[Gaussians, Pairs], NDArray[np.float64]]] = {
    "bhattacharyya": pairwise_bhattacharyya,
    "kl": pairwise_kl,
    "wasserstein": pairwise_wasserstein,
}
