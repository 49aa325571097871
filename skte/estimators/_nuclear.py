"""Nuclear norms of products of many pairs of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dsytrd

__all__ = ["nuclear_norms"]

# Products of at most this many float64 are made together: they stay in the cache.
_CHUNK = 64_000
# Pairs whose tridiagonal matrices go through the quadrature together.
_BATCH = 256
# Below this height LAPACK's calls cost more than what they save.
_LAPACK_PAYS = 24
# Width of the panels of the tridiagonal reduction: narrower than LAPACK's own choice,
# which is made for larger matrices.
_PANEL = 8
# Nodes of the quadrature: step in log(s) / 2, and range of s over the matrix's size. The
# step gives relative errors of 2 exp(-pi^2 / step) = 6e-10.
_STEP = 0.45
_LOWEST, _HIGHEST = 1e-16, 1e3


def nuclear_norms(factors: NDArray[np.float64], pairs: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sum of the singular values of ``A_i A_j^T``, for each pair.

    Parameters
    ----------
    factors : ndarray of shape (n_cases, height, n_channels)
        The matrices A.
    pairs : ndarray of shape (n_pairs, 2)
        Positions i and j, ordered by i.

    Returns
    -------
    ndarray of shape (n_pairs,)
        Relative error below 1e-6, and of 1e-9 where singular values span few decades:
        eigenvalues of the Gram matrix of a product are its squared singular values,
        so the smallest drown in rounding.

    Notes
    -----
    The Gram matrix is brought to tridiagonal form T (LAPACK's dsytrd), and the trace of
    its square root is, with ``s = exp(2 u)``, the integral over u of
    ``2/pi sqrt(s) tr(T (T + s I)^-1)``. The integrand falls off exponentially on both
    sides, so the trapezoidal rule converges exponentially. The traces come from a
    recurrence of a few operations a row, run for many pairs and nodes at once: several
    times faster than eigenvalues one matrix at a time.
    """
    norms = np.empty(len(pairs))
    height = factors.shape[1]
    step = max(1, _CHUNK // height**2)
    for begin in range(0, len(pairs), _BATCH):
        batch = pairs[begin : begin + _BATCH]
        diagonals, off = np.empty((len(batch), height)), np.empty((len(batch), height - 1))
        for i, start, stop in _runs(batch[:, 0], step):
            # One product serves a case and all that it is compared with.
            rows = _stacked(factors, batch[start:stop, 1])
            products = (rows @ factors[i].T).reshape(-1, height, height)
            if height < _LAPACK_PAYS:
                singular = np.linalg.eigvalsh(products.transpose(0, 2, 1) @ products)
                singular[singular < singular[:, -1:] * np.finfo(float).eps] = 0.0
                norms[begin + start : begin + stop] = np.sqrt(singular).sum(axis=1)
                continue
            for k, product in enumerate(products, start):
                gram = product.T @ product
                _, diagonals[k], off[k], _, _ = dsytrd(
                    gram.T, lower=1, lwork=_PANEL * height, overwrite_a=1
                )
        if height >= _LAPACK_PAYS:
            norms[begin : begin + len(batch)] = _traces_of_roots(diagonals, off)
    return norms


def _runs(first: NDArray[np.intp], step: int) -> Iterator[tuple[int, int, int]]:
    """Stretches of pairs with the same first member, at most `step` long."""
    edges = np.flatnonzero(np.diff(first)) + 1
    for begin, end in pairwise([0, *edges.tolist(), len(first)]):
        for start in range(begin, end, step):
            yield int(first[start]), start, min(start + step, end)


def _stacked(factors: NDArray[np.float64], others: NDArray[np.intp]) -> NDArray[np.float64]:
    """Rows of several factors; neighbours in memory, as all pairs have them, are not copied."""
    contiguous = others[-1] - others[0] == len(others) - 1
    chosen = factors[others[0] : others[-1] + 1] if contiguous else factors[others]
    return chosen.reshape(-1, factors.shape[2])


def _traces_of_roots(
    diagonals: NDArray[np.float64], off: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Traces of the square roots of tridiagonal matrices without negative eigenvalues.

    Parameters
    ----------
    diagonals : ndarray of shape (n_matrices, n)
        Main diagonals.
    off : ndarray of shape (n_matrices, n - 1)
        The diagonals beside them.
    """
    n = diagonals.shape[1]
    size = diagonals.sum(axis=1)  # the sum of the eigenvalues
    scale = np.where(size > 0, size, 1.0)
    a, b = diagonals / scale[:, None], (off / scale[:, None]) ** 2
    u = np.arange(0.5 * np.log(_LOWEST), 0.5 * np.log(_HIGHEST), _STEP)
    s = np.exp(2.0 * u)
    # T + s I = L D L^T has pivots q >= s; r is tr((T + s I)^-1) of the leading rows, by
    # the derivative of log det, row by row.
    q = a[:, :1] + s
    r = 1.0 / q
    inverse = r.copy()
    for k in range(1, n):
        t = b[:, k - 1 : k] / q
        np.maximum(a[:, k : k + 1] + s - t, s, out=q)
        r *= t
        r += 1.0
        r /= q
        inverse += r
    heights = np.maximum(n - s * inverse, 0.0) * np.exp(u)  # sqrt(s) tr(T (T + s I)^-1)
    # Below the nodes the integrand is a rank times exp(u); above them it is
    # tr(T) exp(-u) - tr(T^2) exp(-3u) + ..., and both tails are geometric series.
    first, third = (np.exp(-p * _STEP) / (1.0 - np.exp(-p * _STEP)) for p in (1, 3))
    squares = (a**2).sum(axis=1) + 2.0 * b.sum(axis=1)
    total = heights.sum(axis=1) + first * (heights[:, 0] + np.exp(-u[-1]))
    total -= third * squares * np.exp(-3.0 * u[-1])
    return np.asarray(np.where(size > 0, np.sqrt(scale) * (2.0 / np.pi) * _STEP * total, 0.0))
