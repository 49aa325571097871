"""Scaling and centring that neither overflow nor leave rounding behind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["centred", "unit_length", "unit_range"]


def unit_range(X: NDArray[np.floating]) -> tuple[NDArray[np.float64], int]:
    """Bring the largest absolute value into [0.5, 1) by a power of two.

    A power of two rounds nothing, so squares of features of any size (1e150 or
    1e-150) can be summed, and results stay the same to the last bit.

    Parameters
    ----------
    X : ndarray
        Finite values.

    Returns
    -------
    scaled : ndarray of float64
        Equals ``X * 2.0**-exponent``, a new array.
    exponent : int
        Zero where all values are zero.
    """
    largest = max(float(X.max(initial=0.0)), -float(X.min(initial=0.0)))
    exponent = int(np.frexp(largest)[1])
    return np.ldexp(np.asarray(X, dtype=np.float64), -exponent), exponent


def centred(X: NDArray[np.floating]) -> tuple[NDArray[np.float64], int]:
    """Subtract the mean of each column; constant columns are dropped.

    The computed mean of a constant column differs from it by rounding, which on
    large features leaves a spurious spread. Dropping the column avoids that.

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        Finite values.

    Returns
    -------
    Z : ndarray of shape (n_voxels, n_varying)
        Centred columns, times ``2.0**-exponent``.
    exponent : int
        As for `unit_range`.
    """
    Z, exponent = unit_range(X[:, X.min(axis=0) < X.max(axis=0)])
    Z -= Z.mean(axis=0)
    Z -= Z.mean(axis=0)  # removes what rounding left of a mean far from zero
    return Z, exponent


def unit_length(X: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale every row to length one; a zero row stays zero.

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        Finite values of any size.

    Returns
    -------
    ndarray of shape (n_voxels, n_channels)
        Rows on the unit sphere.
    """
    largest = np.abs(X).max(axis=1, keepdims=True)
    X = X / np.where(largest > 0, largest, 1.0)  # squares cannot overflow now
    norms = np.sqrt(np.einsum("ij,ij->i", X, X))[:, None]
    return X / np.where(norms > 0, norms, 1.0)
