"""Sufficient statistics of labelled features: counts, means and scatter by class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Counts, means and scatter matrices of features, class by class.

    All that GBC, TransRate and the H-score need to know of features, and LogME of most. Values
    are kept relative to a pivot close to the data, because a mean far from zero drowns raw second
    moments (Chan, Golub, LeVeque, The American Statistician 37, 1983).
    """

    classes: NDArray[Any]  # labels present, sorted
    counts: NDArray[np.intp]  # voxels of each, at least 1
    pivot: NDArray[np.float64]  # (n_channels,)
    offsets: NDArray[np.float64]  # means less the pivot, (n_classes, n_channels)
    scatters: NDArray[np.float64]  # covariances times counts, (n_classes, n_channels, n_channels)
    exponent: int = 0  # features are these times 2.0**exponent, where squares would overflow
    name: str = ""  # of the layer

    @classmethod
    def from_arrays(cls, X: ArrayLike, y: ArrayLike, *, name: str = "") -> Self:
        """Moments of finite features of shape (n_voxels, n_channels), one label per row."""
        X, y = np.asarray(X), np.asarray(y)
        classes, codes = np.unique(y, return_inverse=True)
        with np.errstate(over="ignore", invalid="ignore"):
            result = cls._accumulate(X, classes, codes, name)
        if not result._is_in_range(X):
            largest = max(float(X.max()), -float(X.min()))
            exponent = int(np.frexp(largest)[1])
            scaled = np.ldexp(np.asarray(X, dtype=np.float64), -exponent)
            result = replace(cls._accumulate(scaled, classes, codes, name), exponent=exponent)
        return result

    @classmethod
    def _accumulate(
        cls, X: NDArray[Any], classes: NDArray[Any], codes: NDArray[np.intp], name: str
    ) -> Self:
        k, d = len(classes), X.shape[1]
        # A row of the sample: constant channels then have a scatter of exactly zero.
        pivot = X[0].astype(np.float64)
        offsets, scatters = np.zeros((k, d)), np.zeros((k, d, d))
        for c in range(k):
            A = X[codes == c] - pivot
            offsets[c] = A.mean(axis=0)
            A -= offsets[c]
            scatters[c] = A.T @ A
        counts = np.bincount(codes, minlength=k)
        return cls(classes, counts, pivot, offsets, scatters, name=name)

    def _is_in_range(self, X: NDArray[Any]) -> bool:
        """Tell whether squares neither overflowed nor vanished."""
        size = float(np.abs(self.offsets).max(initial=0) + np.abs(self.pivot).max(initial=0))
        spread = float(np.trace(self.scatters, axis1=1, axis2=2).sum())
        if not (np.isfinite(size) and np.isfinite(spread) and size < 1e120):
            return False
        return (size > 1e-120 and (spread == 0 or spread > 1e-200)) or not X.any()

    @property
    def n_voxels(self) -> int:
        """Voxels of all classes."""
        return int(self.counts.sum())

    @property
    def n_channels(self) -> int:
        """Number of feature channels."""
        return len(self.pivot)

    @property
    def label(self) -> str:
        """What messages call the moments: their layer, where it has a name."""
        return f"layer {self.name!r}" if self.name else "features"

    @property
    def mean_offset(self) -> NDArray[np.float64]:
        """Mean over all voxels less the pivot, shape (n_channels,)."""
        return np.asarray(self.counts @ self.offsets / self.n_voxels)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Class means less the mean of all voxels, shape (n_classes, n_channels)."""
        return self.offsets - self.mean_offset

    @property
    def between(self) -> NDArray[np.float64]:
        """Scatter of the class means, each counted once per voxel."""
        weighted = self.centres * np.sqrt(self.counts)[:, None]
        return np.asarray(weighted.T @ weighted)

    @property
    def total(self) -> NDArray[np.float64]:
        """Scatter of all voxels about their common mean: within and between classes."""
        return np.asarray(self.scatters.sum(axis=0) + self.between)
