"""Distances between cases of each class's feature distribution, as a Gaussian."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skte.estimators._samples import Array, Ints, as_plain, group_codes
from skte.exceptions import UnusableClassWarning
from skte.features import FeatureBlock

# Without groups every row is a case; beyond this the pairs take too much memory.
_MAX_CASES = 4000
# Numbers in the products of a batch of pairs.
_CHUNK = 2_000_000
# Ridge of the covariances for the distances that invert them, relative to the mean
# variance. It decides the result where a case has fewer voxels than channels.
_RIDGE = 1e-6


def case_codes(block: FeatureBlock) -> tuple[NDArray[np.generic], Ints]:
    """Find the cases of a block and the position of each row's case among them."""
    if block.groups is not None:
        return group_codes(block, "Class consistency compares cases")
    if block.n_voxels > _MAX_CASES:
        raise ValueError(
            f"Without groups every row is a case of its own, and {block.n_voxels} rows "
            f"are too many pairs (the limit is {_MAX_CASES} rows). Pass groups=, the "
            "case of each row."
        )
    return np.arange(block.n_voxels), np.arange(block.n_voxels)


def class_distances(
    block: FeatureBlock, codes: Ints, *, distance: str, background: Any
) -> dict[Any, Array]:
    """Distances between all pairs of cases, NaN of a case without it, for each class of two."""
    n_cases = int(codes.max()) + 1
    result: dict[Any, Array] = {}
    unusable = []
    for label in np.unique(block.y):
        if background is not None and label == background:
            continue
        present, gaussians = fitted_gaussians(block, codes, label)
        if len(present) < 2:
            unusable.append(as_plain(label))
            continue
        pairs = np.stack(np.triu_indices(len(present), k=1), axis=1)
        D = np.full((n_cases, n_cases), np.nan)
        i, j = present[pairs].T
        D[i, j] = D[j, i] = PAIRWISE_DISTANCES[distance](gaussians, pairs)
        D[present, present] = 0.0
        result[as_plain(label)] = D
    if not result and not unusable:
        raise ValueError(
            f"{block.label}: every label is background={background!r}, and that is left out. "
            "Label a class, or set background=None if every label counts."
        )
    remedy = "Label more cases, or set background=None if every label counts."
    check_usable(block.label, bool(result), unusable, "class consistency", remedy)
    return result


def check_usable(where: str, usable: bool, unusable: list[Any], of: str, remedy: str) -> None:
    """Refuse a block without a class in two cases, and name the classes left out."""
    if not usable:
        raise ValueError(
            f"{where}: no class is present in two cases, so the {of} is undefined. Classes in "
            f"fewer than two cases: {unusable}. {remedy}"
        )
    if unusable:
        warnings.warn(
            f"{where}: classes {unusable} are present in fewer than two cases and are left out of "
            f"the {of}.",
            UnusableClassWarning,
            stacklevel=3,
        )


def fitted_gaussians(block: FeatureBlock, codes: Ints, label: Any) -> tuple[Ints, Gaussians]:
    """Find the cases that hold a class, and fit its Gaussian in each."""
    rows = np.flatnonzero(block.y == label)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    X = block.X[rows]
    present, starts = np.unique(codes[rows], return_index=True)
    return present, Gaussians.from_samples(np.split(X, starts[1:]))


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Gaussians fitted to groups of vectors, with covariances of ddof 1."""

    means: Array
    factors: Sequence[Array]

    @classmethod
    def from_samples(cls, samples: Sequence[Array]) -> Self:
        """Fit to vectors, one array of shape (n_i, n_channels) a group."""
        means = np.stack([X.mean(axis=0) for X in samples])
        factors = [
            (X - mean) / np.sqrt(len(X) - 1) if len(X) > 1 else X[:0]
            for X, mean in zip(samples, means, strict=True)
        ]
        return cls(means, factors)


def pairwise_wasserstein(gaussians: Gaussians, pairs: Ints) -> Array:
    """2-Wasserstein distances (not squared) between Gaussians, one value per pair."""
    gaps = gaussians.means[pairs[:, 0]] - gaussians.means[pairs[:, 1]]
    squared = np.einsum("ij,ij->i", gaps, gaps)
    if any(len(A) for A in gaussians.factors):
        factors = _stacked(gaussians)
        traces = np.einsum("ijk,ijk->i", factors, factors)
        squared += traces[pairs].sum(axis=1) - 2.0 * _nuclear_norms(factors, pairs)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _nuclear_norms(factors: Array, pairs: Ints) -> Array:
    """Sum of the singular values of ``A_i A_j^T``, for each pair (i, j)."""
    step = max(1, _CHUNK // factors.shape[1] ** 2)
    norms = np.empty(len(pairs))
    for start in range(0, len(pairs), step):
        i, j = pairs[start : start + step].T
        products = factors[i] @ factors[j].transpose(0, 2, 1)
        norms[start : start + step] = np.linalg.svd(products, compute_uv=False).sum(axis=1)
    return norms


def _stacked(gaussians: Gaussians) -> Array:
    """Bring the factors to equal height."""
    n_channels = gaussians.means.shape[1]
    height = min(n_channels, max(len(A) for A in gaussians.factors))
    factors = np.zeros((len(gaussians.factors), height, n_channels))
    for stacked, A in zip(factors, gaussians.factors, strict=True):
        # R of a QR spans the same covariance in d rows.
        rows = np.asarray(np.linalg.qr(A, mode="r")) if len(A) > height else A
        stacked[: len(rows)] = rows
    return factors


def pairwise_kl(gaussians: Gaussians, pairs: Ints) -> Array:
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


def pairwise_bhattacharyya(gaussians: Gaussians, pairs: Ints) -> Array:
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


def _covariances(gaussians: Gaussians) -> Array:
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


PAIRWISE_DISTANCES: dict[str, Callable[[Gaussians, Ints], Array]] = {
    "bhattacharyya": pairwise_bhattacharyya,
    "kl": pairwise_kl,
    "wasserstein": pairwise_wasserstein,
}
