"""Distances between the Gaussians fitted to groups of vectors, for all pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dsterf, dsytrd
from scipy.spatial.distance import pdist, squareform

__all__ = ["PAIRWISE_DISTANCES", "pairwise_wasserstein"]

Samples = Sequence[NDArray[np.float64]]

# Batches of r x r products of at most this many float64 stay in the cache (512 kB).
_CHUNK = 64_000
# Where W2^2 is below this share of the traces, squaring singular values (the fast
# way) could cost more than the seventh digit, so those pairs get a true SVD.
_CANCELLATION = 0.01
# Below this size a call costs more than what it saves.
_LAPACK_PAYS = 24
# Ridge of the covariances for the distances that invert them, relative to the mean
# variance. It decides the result where a case has fewer voxels than channels.
_RIDGE = 1e-6


def pairwise_wasserstein(samples: Samples) -> NDArray[np.float64]:
    """2-Wasserstein distances between the Gaussians fitted to each sample.

    Parameters
    ----------
    samples : sequence of ndarray of shape (n_i, n_channels)
        One array a case. Covariances have ddof 1; a single row is a point mass.

    Returns
    -------
    ndarray of shape (n_cases, n_cases)
        W2 (not its square), symmetric with a zero diagonal.

    Notes
    -----
    With ``S = A^T A`` for the centred rows ``A`` over ``sqrt(n - 1)``, the trace of
    ``(S_i S_j)^(1/2)`` is the nuclear norm of ``A_i A_j^T``, a matrix no larger
    than the rank of the covariances. In float32 the difference of the traces
    cancels every digit on wide layers; everything here is float64.
    """
    means = np.stack([X.mean(axis=0) for X in samples])
    squared = squareform(pdist(means, "sqeuclidean"))
    if all(len(X) == 1 for X in samples):
        return np.asarray(np.sqrt(squared))
    factors = _factors(samples, means)
    traces = np.einsum("ijk,ijk->i", factors, factors)
    n_cases, height, n_channels = factors.shape
    # All factors side by side: one product serves a case and all that follow it.
    side_by_side = np.ascontiguousarray(factors.reshape(-1, n_channels).T)
    step = max(1, _CHUNK // height**2)
    for i in range(n_cases):
        for start in range(i + 1, n_cases, step):
            others = slice(start, min(start + step, n_cases))
            block = side_by_side[:, others.start * height : others.stop * height]
            products = (factors[i] @ block).reshape(height, -1, height).transpose(1, 0, 2)
            squared[i, others] += _bures(products, traces[i] + traces[others], squared[i, others])
            squared[others, i] = squared[i, others]
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _factors(samples: Samples, means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred factors ``A`` with ``A^T A`` the covariance, of equal height."""
    n_channels = means.shape[1]
    height = min(n_channels, max(len(X) for X in samples))
    factors = np.zeros((len(samples), height, n_channels))
    for A, X, mean in zip(factors, samples, means, strict=True):
        if len(X) > 1:
            centred = (X - mean) / np.sqrt(len(X) - 1)
            if len(X) > height:  # R of a QR spans the same covariance in d rows
                centred = np.linalg.qr(centred, mode="r")
            A[: len(centred)] = centred
    return factors


def _bures(
    products: NDArray[np.float64], traces: NDArray[np.float64], gaps: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Traces less twice the nuclear norms of the products.

    `gaps`, the squared distances of the means, tell how much cancellation matters.
    """
    eigenvalues = _eigenvalues(products.transpose(0, 2, 1) @ products)
    eigenvalues[eigenvalues < eigenvalues[:, -1:] * np.finfo(float).eps] = 0.0
    result: NDArray[np.float64] = traces - 2.0 * np.sqrt(eigenvalues).sum(axis=1)
    close = np.flatnonzero(result + gaps < _CANCELLATION * traces)
    if len(close):
        singular = np.linalg.svd(products[close], compute_uv=False)
        result[close] = traces[close] - 2.0 * singular.sum(axis=1)
    return result


def _eigenvalues(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvalues of symmetric matrices, ascending; overwrites the matrices.

    Large ones by the two LAPACK steps behind ``eigvalsh``, without the scaling and
    copies that cost as much as the arithmetic.
    """
    n = matrices.shape[1]
    if n < _LAPACK_PAYS:
        return np.asarray(np.linalg.eigvalsh(matrices))
    result = np.empty(matrices.shape[:2])
    for k, matrix in enumerate(matrices):
        _, diagonal, off, _, _ = dsytrd(matrix.T, lower=1, lwork=32 * n, overwrite_a=1)
        result[k], failed = dsterf(diagonal, off, overwrite_d=1, overwrite_e=1)
        if failed:  # never seen; a lost pair would be a wrong score
            raise np.linalg.LinAlgError("Eigenvalues of a product of covariances did not converge.")
    return result


def pairwise_kl(samples: Samples) -> NDArray[np.float64]:
    """Symmetrised Kullback-Leibler divergence, ``(KL(i|j) + KL(j|i)) / 2``."""
    means, covariances = _moments(samples)
    inverses = np.linalg.inv(covariances)
    n_channels = means.shape[1]
    D = np.zeros((len(samples), len(samples)))
    for i in range(len(samples)):
        for j in range(i + 1, len(samples)):
            gap = means[i] - means[j]
            both = inverses[i] + inverses[j]
            spread = np.vdot(inverses[i], covariances[j]) + np.vdot(inverses[j], covariances[i])
            D[i, j] = D[j, i] = 0.25 * (spread - 2 * n_channels + gap @ both @ gap)
    return D


def pairwise_bhattacharyya(samples: Samples) -> NDArray[np.float64]:
    """Bhattacharyya distance between the Gaussians."""
    means, covariances = _moments(samples)
    logdets = np.linalg.slogdet(covariances).logabsdet
    D = np.zeros((len(samples), len(samples)))
    for i in range(len(samples)):
        for j in range(i + 1, len(samples)):
            gap = means[i] - means[j]
            middle = (covariances[i] + covariances[j]) / 2
            volume = np.linalg.slogdet(middle).logabsdet - (logdets[i] + logdets[j]) / 2
            D[i, j] = D[j, i] = gap @ np.linalg.solve(middle, gap) / 8 + volume / 2
    return D


def _moments(samples: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    means = np.stack([X.mean(axis=0) for X in samples])
    n_channels = means.shape[1]
    covariances = np.zeros((len(samples), n_channels, n_channels))
    for S, X, mean in zip(covariances, samples, means, strict=True):
        if len(X) > 1:
            S[:] = (X - mean).T @ (X - mean) / (len(X) - 1)
    variance = float(np.trace(covariances, axis1=1, axis2=2).mean()) / n_channels
    if variance == 0.0:
        raise ValueError(
            "Every case is a point mass (one voxel, or constant features), for which "
            "this distance is infinite. Use distance='wasserstein', or sample more voxels."
        )
    covariances += _RIDGE * variance * np.eye(n_channels)
    return means, covariances


PAIRWISE_DISTANCES: dict[str, Callable[[Samples], NDArray[np.float64]]] = {
    "bhattacharyya": pairwise_bhattacharyya,
    "kl": pairwise_kl,
    "wasserstein": pairwise_wasserstein,
}
