"""CC-FV: class consistency and feature variety."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import (
    CaseShare,
    ClassShare,
    Details,
    Diagnosis,
    EstimatorTags,
    TransferabilityEstimator,
)
from skte.estimators._consistency import PAIRWISE_DISTANCES, case_codes, class_distances
from skte.estimators._samples import Array, Ints, as_plain, unit_length
from skte.exceptions import CollapsedFeaturesWarning, SkteWarning, UnusableClassWarning
from skte.features import FeatureBlock

_WARN_FLOORED = 0.01
_COLLAPSED = 0.5
# A distance between cases below this share of the features' spread is rounding: squared,
# it is that of the traces it is the difference of.
_ROUNDING = 1e-6
# Distances between Gaussians form fourth powers of the features.
_HUGE = 1e70
# A block of distances of this many rows and columns stays in the processor's cache.
_BLOCK = 256
# Below this distance, relative to the vectors' size, the Gram form has lost the
# digits that matter, even in float64, and differences are taken one by one.
_GRAM_RESOLUTION = 1e-4


class CCFV(TransferabilityEstimator):
    r"""Class Consistency and Feature Variety (CC-FV).

    A good source model gives voxels of one class alike features in every case (*class consistency*)
    while features as a whole stay diverse (*feature variety*)::

        T = mean over layers of log(F_v / C_cons)

    ``C_cons`` sums over classes the mean Wasserstein distance between the
    Gaussians fitted to a class in two cases; ``F_v`` is the mean over cases of
    the inverse hyperspherical energy of the whole-case sample.

    Parameters
    ----------
    distance : {"wasserstein", "kl", "bhattacharyya"}, default="wasserstein"
        Distance between the Gaussians of a class in two cases. The others serve
        the paper's ablation; they add a ridge of 1e-6 of the mean variance.
    normalize : {"l2"} or None, default="l2"
        "l2" puts every feature vector on the unit sphere, for both terms, which makes the score
        invariant to the features' scale. None takes them as they come.
    s : float, default=1.0
        Power of the energy, ``|v_a - v_b|**-s``; 0 is the logarithmic energy, which
        must be positive (features closer than 1 on average) to be inverted: on the
        unit sphere various features rarely are, and an error says so.
    class_consistency : bool, default=True
        Whether the score contains ``C_cons``.
    feature_variety : bool, default=True
        Whether the score contains ``F_v``.
    background : int or None, default=0
        Label left out of ``C_cons``. None: every label counts.
    min_distance : float, default=0.01
        Distances in the energy are floored here: on the unit sphere as it is,
        with ``normalize=None`` times the root-mean-square norm of the features.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Higher is better. ``-inf`` where a layer collapsed.
    layer_details_ : tuple of dict
        For each layer: ``consistency`` (mapping of label to mean distance), ``distances`` (mapping
        of label to the matrix of distances between cases, NaN where a case lacks the class),
        ``cases`` (the case of each of their rows), ``variety`` (inverse energies, for
        ``variety_cases``), ``floored`` (share of pairs of voxels on the energy's floor:
        ``floored_pairs`` of ``voxel_pairs`` in each case).

    References
    ----------
    .. [1] Yang, Y. et al. "Pick the Best Pre-trained Model: Towards Transferability Estimation
       for Medical Image Segmentation". MICCAI 2023. arXiv:2307.11958.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import CCFV
    >>> rng = np.random.default_rng(0)
    >>> labels, cases = rng.integers(0, 3, 300), np.repeat(np.arange(6), 50)
    >>> features = rng.normal(size=(300, 8)) + 2 * np.eye(8)[labels]
    >>> shift = rng.normal(size=(6, 8))  # the same classes, displaced in every case
    >>> consistent = CCFV().fit(features, labels, groups=cases).score_
    >>> shifted = CCFV().fit(features + 2 * shift[cases], labels, groups=cases).score_
    >>> bool(consistent > shifted)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "distance": [StrOptions(set(PAIRWISE_DISTANCES))],
        "normalize": [StrOptions({"l2"}), None],
        "s": [Interval(Real, 0, None, closed="left")],
        "class_consistency": ["boolean"],
        "feature_variety": ["boolean"],
        "background": [Real, str, None],
        "min_distance": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        *,
        distance: str = "wasserstein",
        normalize: str | None = "l2",
        s: float = 1.0,
        class_consistency: bool = True,
        feature_variety: bool = True,
        background: int | None = 0,
        min_distance: float = 0.01,
        layer_reduction: str = "mean",
    ) -> None:
        super().__init__(layer_reduction=layer_reduction)
        self.distance = distance
        self.normalize = normalize
        self.s = s
        self.class_consistency = class_consistency
        self.feature_variety = feature_variety
        self.background = background
        self.min_distance = min_distance

    @property
    def tags(self) -> EstimatorTags:
        """What the score needs and accepts."""
        return EstimatorTags(case_sample=self.feature_variety, warns_of_constants=True)

    def diagnose(self) -> Diagnosis:
        """Report which layers, classes and cases drive the score.

        ``cases`` lists what lies farthest from the rest first: wrong labels and cases from
        another domain end up there.
        """
        plain = super().diagnose()
        return replace(plain, **_diagnose_consistency(self.layer_names_, self.layer_details_))

    def _score_block(self, block: FeatureBlock) -> tuple[float, Details]:
        if not (self.class_consistency or self.feature_variety):
            raise ValueError(
                "class_consistency and feature_variety are both False: nothing is left "
                "to score. Set at least one of them to True."
            )
        block, min_distance = self._normalized(self._with_case_sample(block))
        details = self._variety(block, min_distance)
        if self.class_consistency:
            details |= self._consistency(block)
        means = np.array([[mean] for mean in details.get("consistency", {}).values()])
        once = np.ones((1, len(details["variety"])), dtype=np.intp)
        scores, collapsed = self._combined(block, details, means, once)
        if collapsed:
            warnings.warn(
                f"{block.label}: features are {collapsed}; they collapsed, and the score is -inf.",
                CollapsedFeaturesWarning,
                stacklevel=2,
            )
        return float(scores[0]), details

    def _combined(
        self, block: FeatureBlock, details: Details, means: Array, weights: Ints
    ) -> tuple[Array, str]:
        """Scores ``log(F_v / C_cons)``, and what is wrong with features of score -inf."""
        # `means` are distances of shape (n_classes, n_scores), NaN for a class without a
        # pair of cases; `weights`, of shape (n_scores, n_cases), is how often each energy
        # counts.
        scores = np.zeros(len(weights))
        collapsed = {}
        if self.class_consistency:  # eq. (2), a sum over classes
            n_classes = np.isfinite(means).sum(axis=0)
            total = np.where(n_classes > 0, np.nansum(means, axis=0), np.nan)
            same = total <= self._rounding(block) * n_classes
            collapsed["the same in every case, class by class"] = same
            scores -= np.log(np.where(same, 1.0, total))
        floored = (
            weights @ details["floored_pairs"] / np.maximum(1, weights @ details["voxel_pairs"])
        )
        what = f"closer than min_distance in {details['floored']:.0%} of the pairs of voxels"
        collapsed[what] = floored > _COLLAPSED
        if self.normalize == "l2" and _is_axis(block.case_sample[0], self.min_distance):
            collapsed["a single direction and its opposite"] = np.ones(len(weights), dtype=bool)
        if self.feature_variety:
            drawn = weights.sum(axis=1)
            mean = weights @ details["variety"] / np.where(drawn > 0, drawn, np.nan)
            collapsed["of infinite energy in every case"] = mean == 0.0
            scores += np.log(np.where(mean == 0.0, 1.0, mean))
        found = [what for what, where in collapsed.items() if where.any()]
        scores[np.any(list(collapsed.values()), axis=0)] = -np.inf
        return scores, found[0] if found else ""

    def _with_case_sample(self, block: FeatureBlock) -> FeatureBlock:
        """Use the class sample to detect collapse where no whole-case sample was drawn."""
        if block.X_case is None or len(block.X_case):
            return block
        if self.feature_variety:
            raise ValueError(
                f"{block.label}: the whole-case sample is empty, so feature variety is undefined. "
                "Sample whole cases: samples='all' of the extractor, or set feature_variety=False."
            )
        return replace(block, X_case=None, groups_case=None)

    def _normalized(self, block: FeatureBlock) -> tuple[FeatureBlock, float]:
        """Return the block with both samples normalised, and the floor of distances."""
        if self.normalize == "l2":
            X_case = None if block.X_case is None else unit_length(block.X_case)
            return replace(block, X=unit_length(block.X), X_case=X_case), self.min_distance
        X_case, _ = block.case_sample
        largest = max(np.abs(block.X).max(), np.abs(X_case).max(initial=0.0))
        if largest > _HUGE or 0 < largest < 1 / _HUGE:
            raise ValueError(
                f"{block.label}: values of size {largest:.3g} cannot be squared. Rescale the "
                "features, or use normalize='l2'."
            )
        scale = np.sqrt(np.einsum("ij,ij->", X_case, X_case) / max(1, len(X_case)))
        return block, self.min_distance * float(scale)

    def _variety(self, block: FeatureBlock, min_distance: float) -> dict[str, Any]:
        """Inverse energy of each case's whole sample, eq. (3) and (4)."""
        X, groups = block.case_sample
        energies = _case_energies(X, groups, s=self.s, min_distance=min_distance)
        n_pairs = sum(e.n_pairs for e in energies.values())
        floored = sum(e.n_floored for e in energies.values()) / max(1, n_pairs)
        if self.feature_variety:
            _check_energies(energies, len(np.unique(groups)), block.label)
        if self.feature_variety and _WARN_FLOORED < floored <= _COLLAPSED:
            warnings.warn(
                f"{block.label}: {floored:.1%} of the pairs of voxels have features closer than "
                f"min_distance={self.min_distance:g}; variety rests on that floor.",
                SkteWarning,  # a doubt: collapsed features would leave no answer
                stacklevel=2,
            )
        with np.errstate(divide="ignore"):
            variety = 1.0 / np.array([e.energy for e in energies.values()])
        return {
            "variety": variety,
            "variety_cases": _names(block, list(energies)),
            "floored": floored,
            "floored_pairs": np.array([e.n_floored for e in energies.values()]),
            "voxel_pairs": np.array([e.n_pairs for e in energies.values()]),
        }

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """From the distances and energies at hand; see `_mean_over_pairs`."""
        normalized, _ = self._normalized(self._with_case_sample(block))
        positions = {name: position for position, name in enumerate(block.case_names or ())}
        W = weights[:, [positions[case] for case in details.get("cases", ())]]
        means = [_mean_over_pairs(D, W) for D in details.get("distances", {}).values()]
        drawn = weights[:, [positions[case] for case in details["variety_cases"]]]
        return self._combined(normalized, details, np.array(means), drawn)[0]

    def _rounding(self, block: FeatureBlock) -> float:
        """Distance between cases that is nil; only Wasserstein distances have a unit of length."""
        spread = float(np.sqrt(block.X.var(axis=0).sum()))
        return _ROUNDING * spread if self.distance == "wasserstein" else 0.0

    def _consistency(self, block: FeatureBlock) -> dict[str, Any]:
        """Mean distance between cases, for each class, eq. (1) and (2)."""
        cases, codes = case_codes(block)
        names = _names(block, cases.tolist())
        found = class_distances(block, codes, distance=self.distance, background=self.background)
        once = np.ones((1, len(cases)), dtype=np.intp)
        return {
            "consistency": {k: float(_mean_over_pairs(D, once)[0]) for k, D in found.items()},
            "distances": found,
            "cases": names,
        }


def _check_energies(energies: Mapping[Any, _PairEnergy], n_cases: int, where: str) -> None:
    """Refuse energies that cannot be inverted, and warn of cases without one."""
    for case, energy in energies.items():
        if energy.energy <= 0:
            raise ValueError(
                f"{where}: the logarithmic energy of case {case!r} is "
                f"{energy.energy:.3g}, and only a positive energy can be inverted. "
                "Use s > 0."
            )
    if not energies:
        raise ValueError(
            f"{where}: no case has two voxels in its whole-case sample, so feature "
            "variety is undefined. Sample more voxels of whole cases: samples='all' of the "
            "extractor, or CCFV(feature_variety=False)."
        )
    if len(energies) < n_cases:
        warnings.warn(
            f"{where}: {n_cases - len(energies)} of {n_cases} cases have a single voxel "
            "and are left out of the feature variety.",
            UnusableClassWarning,
            stacklevel=2,
        )


def _names(block: FeatureBlock, cases: list[Any]) -> list[Any]:
    return cases if block.case_names is None else [block.case_name(case) for case in cases]


def _is_axis(X: Array, min_distance: float) -> bool:
    """Return whether unit vectors are one vector or its negative, up to the floor."""
    # One-dimensional features end like this, and half of their pairs may be far apart.
    X = X[(X != 0).any(axis=1)]
    return len(X) > 1 and bool(np.abs(X @ X[0]).min() >= 1 - max(min_distance**2, 1e-12) / 2)


class _PairEnergy(NamedTuple):
    """Mean energy of the pairs of one sample, and how many sit on the floor or below."""

    energy: float
    n_floored: int
    n_pairs: int


def mean_pair_energy(X: Array, *, s: float, min_distance: float) -> _PairEnergy:
    """Mean over pairs of ``|x_a - x_b|**-s`` (``-log |x_a - x_b|`` for ``s = 0``)."""
    # Distances below `min_distance` count as this distance. Memory is that of one block.
    X = X - X.mean(axis=0)
    squares = np.einsum("ij,ij->i", X, X)
    scale = float(np.sqrt(squares.max(initial=0.0)))
    exact = min_distance < _GRAM_RESOLUTION * scale
    floor = min_distance**2
    # One product gives |x|^2 - 2 x.y + |y|^2: the squares are two more columns.
    ones = np.ones((len(X), 1))
    left = np.hstack([-2.0 * X, squares[:, None], ones])
    right = np.hstack([X, ones, squares[:, None]])
    total, n_floored, n = 0.0, 0, len(X)
    for i in range(0, n, _BLOCK):
        for j in range(i, n, _BLOCK):
            rows, columns = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
            if exact:
                D = cdist(X[rows], X[columns], "sqeuclidean")
            else:
                D = left[rows] @ right[columns].T
            if i == j:
                D = D[np.triu_indices(len(D), k=1)]
            if D.size and D.min() <= floor:  # rarely, and it saves two passes over D
                n_floored += int(np.count_nonzero(floor >= D))
                np.maximum(D, floor, out=D)
            total += _sum_of_energies(D, s)
    n_pairs = n * (n - 1) // 2
    return _PairEnergy(total / n_pairs, n_floored, n_pairs)


def _case_energies(
    X: Array, groups: NDArray[np.generic], *, s: float, min_distance: float
) -> dict[Any, _PairEnergy]:
    """Energy of each case's sample; cases with a single row are left out."""
    if len(groups) == 0:
        return {}
    cases, codes = np.unique(groups, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(codes, minlength=len(cases)))[:-1])
    return {
        as_plain(case): mean_pair_energy(X[rows], s=s, min_distance=min_distance)
        for case, rows in zip(cases, parts, strict=True)
        if len(rows) > 1
    }


def _sum_of_energies(D: Array, s: float) -> float:
    """Sum over squared distances `D`, which it may overwrite."""
    with np.errstate(divide="ignore", over="ignore"):
        if s == 0:
            return float(-0.5 * np.log(D, out=D).sum())
        if s == 1:
            return float(np.reciprocal(np.sqrt(D, out=D), out=D).sum())
        return float(np.power(D, -s / 2, out=D).sum())


def _diagnose_consistency(layers: Sequence[str], details: Sequence[Details]) -> dict[str, Any]:
    """Return the fields ``classes`` and ``cases`` of a `Diagnosis`."""
    classes: list[ClassShare] = []
    ratios: dict[tuple[str, Any], list[float]] = defaultdict(list)
    for name, layer in zip(layers, details, strict=True):
        consistency = layer.get("consistency", {})
        total = sum(consistency.values())
        shares = [
            ClassShare(name, label, distance, distance / total if total > 0 else 0.0)
            for label, distance in consistency.items()
        ]
        classes += sorted(shares, key=lambda one: -one.distance)
        for label, D in layer.get("distances", {}).items():
            for case, ratio in zip(layer["cases"], _ratios(D), strict=True):
                if np.isfinite(ratio):
                    ratios[str(case), label].append(float(ratio))
    cases = [CaseShare(case, label, float(np.mean(r))) for (case, label), r in ratios.items()]
    cases.sort(key=lambda one: -one.ratio)
    return {"classes": tuple(classes), "cases": tuple(cases)}


def _ratios(D: Array) -> Array:
    """Mean distance of each case to the others over the median of these means."""
    known = np.isfinite(D) & ~np.eye(len(D), dtype=bool)
    counts = known.sum(axis=1)
    sums = np.where(known, D, 0.0).sum(axis=1)
    means = np.full(len(D), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    middle = float(np.nanmedian(means))
    return means / middle if middle > 0 else np.where(np.isfinite(means), 1.0, np.nan)


def _mean_over_pairs(D: Array, weights: Ints) -> Array:
    """Mean distance between two different cases, for each row of `weights`; NaN of no pair."""
    # A U-statistic: ``sum_{i<j} w_i w_j D_ij / sum_{i<j} w_i w_j``. A case drawn twice is
    # still one case. Counting the pair of its copies, at distance zero, would take a share of
    # about ``1/N`` off every resample and move the whole interval below the score.
    W = weights.astype(np.float64)
    known = np.isfinite(D)
    np.fill_diagonal(known, False)
    sums = np.einsum("bi,bi->b", W @ np.where(known, D, 0.0), W)
    counts = np.einsum("bi,bi->b", W @ known, W)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan))
