"""Distances between the Gaussians fitted to groups of vectors, for all pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skte.estimators._nuclear import nuclear_norms
from skte.features import ClassMoments

__all__ = ["PAIRWISE_DISTANCES", "Gaussians", "pairwise_wasserstein"]

Pairs = NDArray[np.intp]
#: One value a pair, and how much too high each is at most.
Distances = tuple[NDArray[np.float64], NDArray[np.float64]]

# Where W2^2 is below this share of the traces, the cross term gets a true SVD.
_CANCELLATION = 0.01
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


def pairwise_wasserstein(gaussians: Gaussians, pairs: Pairs, trace_share: float = 1.0) -> Distances:
    """2-Wasserstein distances between Gaussians.

    Parameters
    ----------
    gaussians : Gaussians
        One a case.
    pairs : ndarray of shape (n_pairs, 2)
        Positions of the Gaussians to compare, ordered by the first.
    trace_share : float, default=1.0
        Each covariance is reduced to the fewest principal directions that hold this
        share of its trace, in the cross term alone; its trace stays exact.

    Returns
    -------
    values : ndarray of shape (n_pairs,)
        W2 (not its square).
    errors : ndarray of shape (n_pairs,)
        How much too high each value is at most; zero for ``trace_share=1``.

    Notes
    -----
    With ``S = A^T A`` (for a sample, A is its centred rows over ``sqrt(n - 1)``), the trace
    of ``(S_i S_j)^(1/2)`` is the nuclear norm of ``A_i A_j^T``, a matrix no larger
    than the rank of the covariances. In float32 the difference of the traces
    cancels every digit on wide layers; everything here is float64.

    A truncated ``A`` is ``A - E`` with ``E`` orthogonal to it, so the nuclear norm drops, and
    by no more than ``|E_i| |A_j| + |A_i| |E_j|`` in Frobenius norms (Hoelder).
    """
    gaps = gaussians.means[pairs[:, 0]] - gaussians.means[pairs[:, 1]]
    squared = np.einsum("ij,ij->i", gaps, gaps)
    if not any(len(A) for A in gaussians.factors):
        return np.sqrt(squared), np.zeros_like(squared)
    factors = _stacked(gaussians)
    traces = np.einsum("ijk,ijk->i", factors, factors)
    slack = np.zeros(len(pairs))
    if trace_share < 1.0:
        factors, dropped = _truncated(factors, traces, trace_share)
        i, j = pairs.T
        slack = 2.0 * (np.sqrt(dropped[i] * traces[j]) + np.sqrt(traces[i] * dropped[j]))
    both = traces[pairs[:, 0]] + traces[pairs[:, 1]]
    squared += both - 2.0 * nuclear_norms(factors, pairs)
    # There the difference of the traces cancels, and squaring the singular values (the
    # fast way) would cost the seventh digit.
    for k in np.flatnonzero(squared < _CANCELLATION * both):
        i, j = pairs[k]
        norm = float(np.linalg.svd(factors[i] @ factors[j].T, compute_uv=False).sum())
        squared[k] = gaps[k] @ gaps[k] + both[k] - 2.0 * norm
    values = np.sqrt(np.maximum(squared, 0.0))
    return values, values - np.sqrt(np.maximum(squared - slack, 0.0))


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


def _truncated(
    factors: NDArray[np.float64], traces: NDArray[np.float64], trace_share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factors in the fewest rows that hold a share of each trace, and what that drops."""
    height = 1
    dropped = np.zeros(len(factors))
    for k, A in enumerate(factors):
        # Rotating the rows leaves A^T A; the rotated rows are orthogonal, longest first.
        values, U = np.linalg.eigh(A @ A.T)
        values, U = np.maximum(values[::-1], 0.0), U[:, ::-1]
        kept = 1 + int(np.searchsorted(np.cumsum(values), trace_share * traces[k]))
        A[:] = U.T @ A
        dropped[k] = values[kept:].sum()
        A[kept:] = 0.0
        height = max(height, min(kept, len(values)))
    return np.ascontiguousarray(factors[:, :height]), dropped


def pairwise_kl(gaussians: Gaussians, pairs: Pairs, trace_share: float = 1.0) -> Distances:
    """Symmetrised Kullback-Leibler divergence, ``(KL(i|j) + KL(j|i)) / 2``; exact."""
    means, covariances = gaussians.means, _covariances(gaussians)
    inverses = np.linalg.inv(covariances)
    n_channels = means.shape[1]
    values = np.empty(len(pairs))
    for pair, (i, j) in enumerate(pairs):
        gap = means[i] - means[j]
        both = inverses[i] + inverses[j]
        spread = np.vdot(inverses[i], covariances[j]) + np.vdot(inverses[j], covariances[i])
        values[pair] = 0.25 * (spread - 2 * n_channels + gap @ both @ gap)
    return values, np.zeros_like(values)


def pairwise_bhattacharyya(
    gaussians: Gaussians, pairs: Pairs, trace_share: float = 1.0
) -> Distances:
    """Bhattacharyya distance between the Gaussians; exact."""
    means, covariances = gaussians.means, _covariances(gaussians)
    logdets = np.linalg.slogdet(covariances).logabsdet
    values = np.empty(len(pairs))
    for pair, (i, j) in enumerate(pairs):
        gap = means[i] - means[j]
        middle = (covariances[i] + covariances[j]) / 2
        volume = np.linalg.slogdet(middle).logabsdet - (logdets[i] + logdets[j]) / 2
        values[pair] = gap @ np.linalg.solve(middle, gap) / 8 + volume / 2
    return values, np.zeros_like(values)


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


PAIRWISE_DISTANCES: dict[str, Callable[[Gaussians, Pairs, float], Distances]] = {
    "bhattacharyya": pairwise_bhattacharyya,
    "kl": pairwise_kl,
    "wasserstein": pairwise_wasserstein,
}
