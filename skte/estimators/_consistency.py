"""Distances between cases of each class's feature distribution."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from skte.estimators._gaussian import PAIRWISE_DISTANCES, Gaussians
from skte.estimators._labels import as_plain
from skte.exceptions import UnusableClassWarning
from skte.features import FeatureBlock

__all__ = ["CaseDistances", "case_codes", "class_distances", "fitted_gaussians"]

# Without groups every row is a case; beyond this the pairs take too long.
_MAX_CASES = 10_000
_ROWS = 512
# The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@dataclass(frozen=True, eq=False)
class CaseDistances:
    """Distances between the cases that hold one class.

    Attributes
    ----------
    mean : float
        Over the pairs compared.
    pairs : ndarray of shape (n_compared, 2)
        Positions of the cases compared; empty where every row is a case of its own.
    values : ndarray of shape (n_compared,)
        Distance of each pair.
    n_pairs : int
        Pairs of cases that hold the class.
    """

    mean: float
    pairs: NDArray[np.intp]
    values: NDArray[np.float64]
    n_pairs: int

    def matrix(self, n_cases: int) -> NDArray[np.float64]:
        """Symmetric matrix of shape (n_cases, n_cases); NaN where nothing was compared."""
        D = np.full((n_cases, n_cases), np.nan)
        i, j = self.pairs.T
        D[i, j] = D[j, i] = self.values
        present = np.unique(self.pairs)
        D[present, present] = 0.0
        return D


def case_codes(block: FeatureBlock) -> tuple[NDArray[np.generic], NDArray[np.intp]]:
    """Find the cases of a block and the position of each row's case among them.

    Parameters
    ----------
    block : FeatureBlock
        Without ``groups``, every row is a case of its own.

    Returns
    -------
    cases : ndarray of shape (n_cases,)
        Sorted.
    codes : ndarray of shape (n_voxels,)
        ``cases[codes]`` are the groups.

    Raises
    ------
    ValueError
        If there is one case only, or too many rows without groups.
    """
    if block.groups is not None:
        cases, codes = np.unique(block.groups, return_inverse=True)
        if len(cases) < 2:
            raise ValueError(
                f"{block.label}: all rows come from one case. Class consistency compares "
                "cases and needs at least two."
            )
        return cases, codes
    if block.n_voxels > _MAX_CASES:
        raise ValueError(
            f"Without groups every row is a case of its own, and {block.n_voxels} rows "
            f"are too many pairs (the limit is {_MAX_CASES} rows). Pass groups=, the "
            "case of each row."
        )
    return np.arange(block.n_voxels), np.arange(block.n_voxels)


def class_distances(
    block: FeatureBlock,
    codes: NDArray[np.intp],
    names: Sequence[object],
    *,
    distance: str,
    background: Any,
    n_pairs: int | None,
    random_state: int,
) -> dict[Any, CaseDistances]:
    """Distances between pairs of cases, for each class that two cases hold.

    Parameters
    ----------
    block : FeatureBlock
        Features, normalised or not, and labels. Where it holds the moments of all
        labelled voxels of its cases, the Gaussians are fitted to these.
    codes : ndarray of shape (n_voxels,)
        Case of each row.
    names : sequence
        What each case is called; pairs are drawn by name.
    distance : {"wasserstein", "kl", "bhattacharyya"}
        Distance between the Gaussians fitted to a class in two cases.
    background : label or None
        Left out.
    n_pairs : int or None
        Pairs compared for each class; None for all. They are the first ones, in a
        random order of all pairs, in which both cases hold the class. The order
        depends on `random_state` and the cases' names alone: models and layers
        share the pairs, and classes as far as can be.
    random_state : int
        Seed of that order.

    Returns
    -------
    dict of label to CaseDistances
        Classes in sorted order.

    Raises
    ------
    ValueError
        If no class is present in two cases.
    """
    result: dict[Any, CaseDistances] = {}
    unusable = []
    order = None if n_pairs is None else _pair_order(names, random_state)
    labels = np.unique(block.y) if block.case_moments is None else block.moments.classes
    for label in labels:
        if background is not None and label == background:
            continue
        present, gaussians = fitted_gaussians(block, codes, label)
        if len(present) < 2:
            unusable.append(as_plain(label))
            continue
        points = not any(len(A) for A in gaussians.factors)
        if points and n_pairs is None and distance == "wasserstein":
            result[as_plain(label)] = _between_points(gaussians.means, present)
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


def fitted_gaussians(
    block: FeatureBlock, codes: NDArray[np.intp], label: Any
) -> tuple[NDArray[np.intp], Gaussians]:
    """Find the cases that hold a class, and fit its Gaussian in each.

    Parameters
    ----------
    block : FeatureBlock
        Features, or the moments of all labelled voxels of its cases.
    codes : ndarray of shape (n_voxels,)
        Case of each row.
    label : label
        The class.

    Returns
    -------
    present : ndarray of shape (n_present,)
        Positions of the cases.
    gaussians : Gaussians
        One a case.
    """
    if block.case_moments is not None:
        holds = [label in part.classes for part in block.case_moments]
        parts = [part for part, held in zip(block.case_moments, holds, strict=True) if held]
        return np.flatnonzero(holds), Gaussians.from_moments(parts, label)
    rows = np.flatnonzero(block.y == label)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    X = block.X[rows]
    present, starts = np.unique(codes[rows], return_index=True)
    if len(present) == len(X):
        return present, Gaussians.at_points(X)
    return present, Gaussians.from_samples(np.split(X, starts[1:]))


def _pair_order(names: Sequence[object], random_state: int) -> NDArray[np.intp]:
    """All pairs of cases in random order, shape (n_pairs, 2)."""
    digests = [sha256(f"{random_state} {name}".encode()).digest()[:8] for name in names]
    keys = np.frombuffer(b"".join(digests), dtype=np.uint64)
    i, j = np.triu_indices(len(names), k=1)
    mixed = keys[i] ^ keys[j]
    for shift, factor in _MIX:  # else a case with small keys would come first in all pairs
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    order = np.argsort(mixed ^ (mixed >> np.uint64(31)), kind="stable")
    return np.stack([i[order], j[order]], axis=1)


def _choose_pairs(
    n_present: int,
    present: NDArray[np.intp],
    order: NDArray[np.intp] | None,
    n_pairs: int | None,
) -> NDArray[np.intp]:
    """Pairs to compare, as positions in `present`, ordered by the first."""
    if order is None:
        return np.stack(np.triu_indices(n_present, k=1), axis=1)
    usable = order[np.isin(order, present).all(axis=1)][:n_pairs]
    positions = np.searchsorted(present, usable)
    return np.asarray(positions[np.lexsort(positions.T[::-1])])


def _between_points(X: NDArray[np.float64], present: NDArray[np.intp]) -> CaseDistances:
    """Point masses: W2 is the Euclidean distance, and all pairs need not be kept."""
    n = len(X)
    n_pairs = n * (n - 1) // 2
    if n <= _ROWS:
        i, j = np.triu_indices(n, k=1)
        values = cdist(X, X)[i, j]
        pairs = np.stack([present[i], present[j]], axis=1)
        return CaseDistances(float(values.mean()), pairs, values, n_pairs)
    total = 0.0
    for start in range(0, n, _ROWS):
        total += float(cdist(X[start : start + _ROWS], X).sum())
    none = np.zeros((0, 2), dtype=np.intp)
    return CaseDistances(total / (2 * n_pairs), none, np.zeros(0), n_pairs)
