"""Principal coordinates that follow from the sample alone, signs and scale included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skte.estimators._scaling import centred

__all__ = ["principal_coordinates"]

_EPS = float(np.finfo(np.float64).eps)


def principal_coordinates(X: NDArray[np.floating], variance: float) -> NDArray[np.float64]:
    """Project features of unit total variance on the axes that hold most of it.

    The result does not depend on the scale of the features, a shift or a rotation:
    axes point to where their coordinates are skewed, which rows in any order tell.
    (Axes of equal variance, or with exactly symmetric coordinates, stay ambiguous.)

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        Finite features of any size.
    variance : float
        Share of the variance to keep, more than 0 and at most 1.

    Returns
    -------
    ndarray of shape (n_voxels, n_kept)
        Largest variance first. No columns where features are constant.
    """
    Z, _ = centred(X)
    n, d = Z.shape
    if not d:
        return Z
    Z *= np.sqrt(n / np.einsum("ij,ij->", Z, Z))
    wide = d > n
    eigenvalues, vectors = np.linalg.eigh(Z @ Z.T if wide else Z.T @ Z)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    rank = int((eigenvalues > max(n, d) * _EPS * eigenvalues[0]).sum())
    shares = np.cumsum(eigenvalues[:rank]) / eigenvalues[:rank].sum()
    kept = min(rank, int(np.searchsorted(shares, variance, side="right")) + 1)
    vectors = vectors[:, :kept]
    T = vectors * np.sqrt(eigenvalues[:kept]) if wide else Z @ vectors
    return np.asarray(T * np.where((T**3).sum(axis=0) < 0, -1.0, 1.0))
