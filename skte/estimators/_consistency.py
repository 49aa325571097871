"""Distances between cases of each class's feature distribution, as a Gaussian."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skte.estimators._samples import Array, Ints, as_plain, group_codes
from skte.exceptions import UnusableClassWarning
from skte.features import FeatureBlock

# Without groups every row is a case; beyond this the pairs take too much memory.
_MAX_CASES = 4000
# The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
# Numbers in the products of a batch of pairs.
_CHUNK = 2_000_000
# Ridge of the covariances for the distances that invert them, relative to the mean
# variance. It decides the result where a case has fewer voxels than channels.
_RIDGE = 1e-6


@dataclass(frozen=True, eq=False)
class CaseDistances:
    """Distances between the cases that hold one class."""

    mean: float
    pairs: Ints
    values: Array
    n_pairs: int

    def matrix(self, n_cases: int) -> Array:
        """Symmetric matrix of shape (n_cases, n_cases); NaN where nothing was compared."""
        D = np.full((n_cases, n_cases), np.nan)
        i, j = self.pairs.T
        D[i, j] = D[j, i] = self.values
        present = np.unique(self.pairs)
        D[present, present] = 0.0
        return D


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
    block: FeatureBlock,
    codes: Ints,
    names: Sequence[object],
    *,
    distance: str,
    background: Any,
    n_pairs: int | None,
    random_state: int,
) -> dict[Any, CaseDistances]:
    """Distances between pairs of cases, for each class that two cases hold."""
    result: dict[Any, CaseDistances] = {}
    unusable = []
    order = None if n_pairs is None else _pair_order(names, random_state)
    for label in np.unique(block.y):
        if background is not None and label == background:
            continue
        present, gaussians = fitted_gaussians(block, codes, label)
        if len(present) < 2:
            unusable.append(as_plain(label))
            continue
        pairs = _choose_pairs(len(present), present, order, n_pairs)
        values = PAIRWISE_DISTANCES[distance](gaussians, pairs)
        result[as_plain(label)] = CaseDistances(
            mean=float(values.mean()),
            pairs=present[pairs],
            values=values,
            n_pairs=len(present) * (len(present) - 1) // 2,
        )
    _check_usable(block, bool(result), unusable, background)
    return result


def _check_usable(
    block: FeatureBlock, any_usable: bool, unusable: list[Any], background: Any
) -> None:
    """Refuse a block without a class in two cases, and name the classes left out."""
    if not any_usable and not unusable:
        raise ValueError(
            f"{block.label}: every label is background={background!r}, and that is left out. "
            "Label a class, or set background=None if every label counts."
        )
    if not any_usable:
        raise ValueError(
            f"{block.label}: no class is present in two cases, so class consistency is "
            f"undefined. Classes in fewer than two cases: {unusable}. Label more cases, "
            "or set background=None if every label counts."
        )
    if unusable:
        warnings.warn(
            f"{block.label}: classes {unusable} are present in fewer than two cases and "
            "are left out of the class consistency.",
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


def _pair_order(names: Sequence[object], random_state: int) -> Ints:
    """All pairs of cases in random order, shape (n_pairs, 2)."""
    digests = [sha256(f"{random_state} {name}".encode()).digest()[:8] for name in names]
    keys = np.frombuffer(b"".join(digests), dtype=np.uint64)
    i, j = np.triu_indices(len(names), k=1)
    mixed = keys[i] ^ keys[j]
    for shift, factor in _MIX:  # else a case with small keys would come first in all pairs
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    order = np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable")
    return np.stack([i[order], j[order]], axis=1)


def _choose_pairs(n_present: int, present: Ints, order: Ints | None, n_pairs: int | None) -> Ints:
    """Ints to compare, as positions in `present`, ordered by the first."""
    if order is None:
        return np.stack(np.triu_indices(n_present, k=1), axis=1)
    usable = order[np.isin(order, present).all(axis=1)][:n_pairs]
    positions = np.searchsorted(present, usable)
    return np.asarray(positions[np.lexsort(positions.T[::-1])])


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
