"""Sufficient statistics of labelled features: counts, means and scatter by class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Rows centred together: they stay in the cache while they are squared.
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Counts, means and scatter matrices of features, class by class.

    All that LogME, GBC, TransRate and the H-score need to know of features. Moments of parts
    of a sample merge to those of the whole, so voxels may stream. Values are kept relative
    to a `pivot` close to the data, because a mean far from zero drowns raw second moments.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        Labels present, sorted.
    counts : ndarray of shape (n_classes,)
        Voxels of each class, at least 1.
    pivot : ndarray of shape (n_channels,)
        Where `offsets` are counted from.
    offsets : ndarray of shape (n_classes, n_channels)
        Mean of each class, less the pivot.
    scatters : ndarray of shape (n_classes, n_channels, n_channels)
        Covariance of each class, times its count.
    exponent : int, default=0
        Features are those described here times ``2.0**exponent``: not 0 only where
        squares would overflow or vanish.
    name : str, default=""
        Name of the layer, used in messages.

    References
    ----------
    .. [1] Chan, T. F., Golub, G. H., LeVeque, R. J. "Algorithms for Computing the
       Sample Variance". The American Statistician 37 (1983).

    Examples
    --------
    >>> import numpy as np
    >>> from skte import LogME
    >>> from skte.features import ClassMoments
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(1000, 4)), rng.integers(0, 2, 1000)
    >>> moments = ClassMoments.from_arrays(X[:600], y[:600])
    >>> moments = moments.merge(ClassMoments.from_arrays(X[600:], y[600:]))
    >>> bool(np.isclose(LogME().fit(moments).score_, LogME().fit(X, y).score_))
    True
    """

    classes: NDArray[Any]
    counts: NDArray[np.intp]
    pivot: NDArray[np.float64]
    offsets: NDArray[np.float64]
    scatters: NDArray[np.float64]
    exponent: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        k, d = len(self.classes), len(self.pivot)
        shapes = {"counts": (k,), "offsets": (k, d), "scatters": (k, d, d)}
        wrong = [
            f"{name} has shape {np.shape(getattr(self, name))}, not {shape}"
            for name, shape in shapes.items()
            if np.shape(getattr(self, name)) != shape
        ]
        if wrong:
            raise ValueError(f"ClassMoments of {k} classes and {d} channels: {'; '.join(wrong)}.")

    @classmethod
    def from_arrays(cls, X: ArrayLike, y: ArrayLike, *, name: str = "") -> Self:
        """Moments of features held in memory.

        Parameters
        ----------
        X : array-like of shape (n_voxels, n_channels)
            Finite features, in any float type; accumulated in float64.
        y : array-like of shape (n_voxels,)
            Label of each row.
        name : str, default=""
            Name of the layer.
        """
        X, y = np.asarray(X), np.asarray(y)
        if X.ndim != 2 or y.shape != X.shape[:1] or len(X) == 0:
            raise ValueError(
                f"ClassMoments takes X of shape (n_voxels, n_channels) and one label per voxel; "
                f"got X of shape {X.shape}, y of shape {y.shape}."
            )
        classes, codes = np.unique(y, return_inverse=True)
        with np.errstate(over="ignore", invalid="ignore"):
            result = cls._accumulate(X, classes, codes, name)
        if not result._is_in_range(X):
            largest = max(float(X.max()), -float(X.min()))
            if not np.isfinite(largest):
                raise ValueError(f"Features of layer {name!r} contain NaN or Inf.")
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
        counts = np.zeros(k, dtype=np.intp)
        offsets, scatters = np.zeros((k, d)), np.zeros((k, d, d))
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(codes, minlength=k))[:-1])
        for c, rows in enumerate(parts):
            for start in range(0, len(rows), _CHUNK):
                # Near the class's mean from its second chunk on, so that one correction
                # of the mean costs no digits.
                base = pivot + offsets[c]
                A = X.take(rows[start : start + _CHUNK], axis=0).astype(np.float64, copy=False)
                A -= base
                if counts[c] == 0:
                    offsets[c] = A.mean(axis=0)
                    A -= offsets[c]
                    gap = np.zeros(d)
                else:
                    gap = np.ones(len(A)) @ A / len(A)
                total = counts[c] + len(A)
                # About the old mean, then about the new one (Chan et al.).
                scatters[c] += A.T @ A
                scatters[c] -= np.outer(gap, gap * (len(A) ** 2 / total))
                offsets[c] += gap * (len(A) / total)
                counts[c] = total
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

    def merge(self, other: ClassMoments) -> ClassMoments:
        """Moments of two samples of the same channels put together, whose classes may differ."""
        if self.n_channels != other.n_channels:
            raise ValueError(
                f"Moments of {self.n_channels} and of {other.n_channels} channels cannot be merged."
            )
        exponent = max(self.exponent, other.exponent)
        a, b = self._scaled(exponent), other._scaled(exponent)
        b = replace(b, pivot=a.pivot, offsets=b.offsets + (b.pivot - a.pivot))
        classes = np.union1d(a.classes, b.classes)
        k, d = len(classes), a.n_channels
        counts = np.zeros(k, dtype=np.intp)
        offsets, scatters = np.zeros((k, d)), np.zeros((k, d, d))
        for part in (a, b):
            at = np.searchsorted(classes, part.classes)
            total = counts[at] + part.counts
            gaps = part.offsets - offsets[at]
            weights = counts[at] * part.counts / total
            scatters[at] += part.scatters + weights[:, None, None] * (
                gaps[:, :, None] * gaps[:, None, :]
            )
            offsets[at] += gaps * (part.counts / total)[:, None]
            counts[at] = total
        return replace(
            a, classes=classes, counts=counts, offsets=offsets, scatters=scatters, name=self.name
        )

    def _scaled(self, exponent: int) -> ClassMoments:
        shift = self.exponent - exponent
        if shift == 0:
            return self
        return replace(
            self,
            pivot=np.ldexp(self.pivot, shift),
            offsets=np.ldexp(self.offsets, shift),
            scatters=np.ldexp(self.scatters, 2 * shift),
            exponent=exponent,
        )
