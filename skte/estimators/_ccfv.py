"""CC-FV: class consistency and feature variety."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import TransferabilityEstimator
from skte.estimators._consistency import case_codes, class_distances
from skte.estimators._consistency_report import diagnose_consistency, pair_standard_error
from skte.estimators._diagnosis import Diagnosis
from skte.estimators._energy import PairEnergy, case_energies
from skte.estimators._gaussian import PAIRWISE_DISTANCES
from skte.estimators._resample import each_or_nan
from skte.estimators._resample_pairs import resampled_ccfv
from skte.estimators._scaling import unit_length
from skte.exceptions import CollapsedFeaturesWarning, UnusableClassWarning
from skte.features import FeatureBlock

__all__ = ["CCFV"]

_WARN_FLOORED = 0.01
_COLLAPSED = 0.5
# A distance between cases below this share of the features' spread is rounding: squared,
# it is that of the traces it is the difference of.
_ROUNDING = 1e-6
# Distances between Gaussians form fourth powers of the features.
_HUGE = 1e70


class CCFV(TransferabilityEstimator):
    r"""Class Consistency and Feature Variety (CC-FV).

    A good source model gives voxels of one class alike features in every case
    (*class consistency*) while features as a whole stay diverse (*feature
    variety*)::

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
        "l2" puts every feature vector on the unit sphere, for both terms, which
        makes the score invariant to the features' scale. None takes them as they
        come; ``C_cons`` then uses *all* labelled voxels where their moments were
        extracted. (Moments are of features as they come, and cannot be normalised
        voxel by voxel: with "l2", both terms use the sampled voxels.)
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
    n_pairs : int, optional
        Pairs of cases compared for each class, drawn at random; ``standard_error_``
        tells what that costs. Default: all pairs, whose number grows with the square
        of the cases.
    random_state : int, default=0
        Seed of the pairs, for `n_pairs`. They are drawn by the names of the cases, so
        that all models and layers are compared on the same ones.
    layer_reduction : {"mean", "last"}, default="mean"
        Mean over layers, or the last (finest) layer alone.

    Attributes
    ----------
    score_ : float
        Higher is better. ``-inf`` where a layer collapsed.
    standard_error_ : float
        Of the score, from comparing `n_pairs` instead of all pairs of cases; 0 when
        all were compared. It says nothing about which *cases* were labelled.
    layer_scores_ : ndarray of shape (n_layers,)
        Score of each layer.
    layer_names_ : tuple of str
        Names of the layers.
    layer_details_ : tuple of dict
        For each layer: ``consistency`` (mapping of label to mean distance),
        ``distances`` (mapping of label to the matrix of distances between cases,
        NaN where a case lacks the class or a pair was not compared; left out where
        more than 512 rows are cases of their own), ``cases`` (the case of each row of
        the matrices), ``n_pairs`` (mapping of label to the pairs there are),
        ``variety`` (inverse energies, for the cases in ``variety_cases``),
        ``floored`` (share of pairs of voxels on the energy's floor; ``floored_pairs`` of
        ``voxel_pairs`` in each case).
    n_features_in_ : int
        Number of channels, when fitted on an array.

    Warns
    -----
    CollapsedFeaturesWarning
        When more than 1 % of the pairs sit on the energy's floor. Above half, or
        when no class differs between any two cases, the layer is collapsed and
        scores ``-inf``.
    UnusableClassWarning
        When a class is left out because fewer than two cases hold it.

    See Also
    --------
    LogME : Evidence of a linear model for the labels.

    Notes
    -----
    The energy is the *mean* over pairs, so that cases of different size are
    comparable; with the raw sum of the paper only a constant changes when all
    samples are of equal size. CC-FV cannot see features of pure noise or of a
    random network, which are alike in every case and diverse, as bad.

    References
    ----------
    .. [1] Yang, Y., Wei, M., He, J., Yang, J., Ye, J., Gu, Y. "Pick the Best
       Pre-trained Model: Towards Transferability Estimation for Medical Image
       Segmentation". MICCAI 2023. arXiv:2307.11958.

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

    _warns_of_constants: ClassVar[bool] = True
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TransferabilityEstimator._parameter_constraints,
        "distance": [StrOptions(set(PAIRWISE_DISTANCES))],
        "normalize": [StrOptions({"l2"}), None],
        "s": [Interval(Real, 0, None, closed="left")],
        "class_consistency": ["boolean"],
        "feature_variety": ["boolean"],
        "background": [Real, str, None],
        "min_distance": [Interval(Real, 0, None, closed="left")],
        "n_pairs": [Interval(Integral, 2, None, closed="left"), None],
        "random_state": [Interval(Integral, 0, None, closed="left")],
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
        n_pairs: int | None = None,
        random_state: int = 0,
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
        self.n_pairs = n_pairs
        self.random_state = random_state

    def diagnose(self) -> Diagnosis:
        """Tell which layers, classes and cases drive the score.

        Returns
        -------
        Diagnosis
            Its ``cases`` name what lies farthest from the rest first: wrong labels
            and cases from another domain end up there.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        plain = super().diagnose()
        return replace(plain, **diagnose_consistency(self.layer_names_, self.layer_details_))

    def _summarise(self) -> None:
        used = self.layer_details_[-1:] if self.layer_reduction == "last" else self.layer_details_
        self.standard_error_: float = pair_standard_error(used)

    def _score_block(self, block: FeatureBlock) -> float:
        return self._explain_block(block)[0]

    def _explain_block(self, block: FeatureBlock) -> tuple[float, Mapping[str, Any]]:
        if not (self.class_consistency or self.feature_variety):
            raise ValueError(
                "class_consistency and feature_variety are both False: nothing is left "
                "to score. Set at least one of them to True."
            )
        block, min_distance = self._normalized(self._with_case_sample(block))
        score, details = 0.0, self._variety(block, min_distance)
        if self.class_consistency:
            details |= self._consistency(block)
            total = sum(details["consistency"].values())  # eq. (2), a sum over classes
            rounding = 0.0
            if self.distance == "wasserstein":  # the others have no unit of length
                rounding = _ROUNDING * len(details["consistency"]) * _spread(block.X)
            if total <= rounding:
                return _collapsed(block, "the same in every case, class by class"), details
            score -= float(np.log(total))
        if details["floored"] > _COLLAPSED:
            what = f"closer than min_distance in {details['floored']:.0%} of the pairs of voxels"
            return _collapsed(block, what), details
        if self.normalize == "l2" and _is_axis(block.case_sample[0], self.min_distance):
            return _collapsed(block, "a single direction and its opposite"), details
        if self.feature_variety:
            variety = float(details["variety"].mean())
            if variety == 0.0:
                return _collapsed(block, "of infinite energy in every case"), details
            score += float(np.log(variety))
        return score, details

    @property
    def needs_case_sample(self) -> bool:
        """Whether the score looks at voxels of the whole case: feature variety does."""
        return self.feature_variety

    def _with_case_sample(self, block: FeatureBlock) -> FeatureBlock:
        """Let the class sample tell of collapse where no whole-case sample was drawn."""
        if block.X_case is None or len(block.X_case):
            return block
        if self.feature_variety:
            raise ValueError(
                f"{block.label}: the whole-case sample is empty, so feature variety is undefined. "
                "Sample whole cases (samples='all' of the extractor), or set "
                "feature_variety=False."
            )
        return replace(block, X_case=None, groups_case=None)

    def _normalized(self, block: FeatureBlock) -> tuple[FeatureBlock, float]:
        """Return the block with both samples normalised, and the floor of distances."""
        if self.normalize == "l2":
            X_case = None if block.X_case is None else unit_length(block.X_case)
            # Moments of features as they come say nothing about features on the sphere.
            on_sphere = replace(block, X=unit_length(block.X), X_case=X_case, case_moments=None)
            return on_sphere, self.min_distance
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
        energies = case_energies(X, groups, s=self.s, min_distance=min_distance)
        n_pairs = sum(e.n_pairs for e in energies.values())
        floored = sum(e.n_floored for e in energies.values()) / max(1, n_pairs)
        if self.feature_variety:
            self._check_energies(energies, len(np.unique(groups)), block.label)
        if self.feature_variety and _WARN_FLOORED < floored <= _COLLAPSED:
            warnings.warn(
                f"{block.label}: {floored:.1%} of the pairs of voxels have features closer than "
                f"min_distance={self.min_distance:g}; variety rests on that floor.",
                CollapsedFeaturesWarning,
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

    def _check_energies(self, energies: Mapping[Any, PairEnergy], n_cases: int, where: str) -> None:
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
                "variety is undefined. Sample more voxels, or set feature_variety=False."
            )
        if len(energies) < n_cases:
            warnings.warn(
                f"{where}: {n_cases - len(energies)} of {n_cases} cases have a single voxel "
                "and are left out of the feature variety.",
                UnusableClassWarning,
                stacklevel=2,
            )

    def _resample_block(
        self, block: FeatureBlock, details: Mapping[str, Any], weights: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """From the distances and energies at hand; see `mean_over_pairs`."""
        known = len(details.get("distances", {})) == len(details.get("consistency", {}))
        if not known or block.case_names is None:  # too many rows for a matrix
            return each_or_nan(self._score_block, block, weights)
        normalized, _ = self._normalized(self._with_case_sample(block))
        if self.normalize == "l2" and _is_axis(normalized.case_sample[0], self.min_distance):
            return np.full(len(weights), -np.inf)
        euclidean = self.class_consistency and self.distance == "wasserstein"
        return resampled_ccfv(
            details,
            weights,
            {name: position for position, name in enumerate(block.case_names)},
            consistency=self.class_consistency,
            variety=self.feature_variety,
            rounding=_ROUNDING * _spread(normalized.X) if euclidean else 0.0,
            most_floored=_COLLAPSED,
        )

    def _consistency(self, block: FeatureBlock) -> dict[str, Any]:
        """Mean distance between cases, for each class, eq. (1) and (2)."""
        cases, codes = case_codes(block)
        names = _names(block, cases.tolist())
        found = class_distances(
            block,
            codes,
            names,
            distance=self.distance,
            background=self.background,
            n_pairs=self.n_pairs,
            random_state=self.random_state,
        )
        return {
            "consistency": {label: one.mean for label, one in found.items()},
            "distances": {
                label: one.matrix(len(cases)) for label, one in found.items() if len(one.values)
            },
            "n_pairs": {label: one.n_pairs for label, one in found.items()},
            "cases": names,
        }


def _spread(X: NDArray[np.float64]) -> float:
    """Root mean squared distance of features from their mean."""
    return float(np.sqrt(X.var(axis=0).sum()))


def _names(block: FeatureBlock, cases: list[Any]) -> list[Any]:
    return cases if block.case_names is None else [block.case_name(case) for case in cases]


def _is_axis(X: NDArray[np.float64], min_distance: float) -> bool:
    """Tell whether unit vectors are one vector or its negative, up to the floor.

    One-dimensional features end like this, and half of their pairs may be far apart.
    """
    X = X[(X != 0).any(axis=1)]
    return len(X) > 1 and bool(np.abs(X @ X[0]).min() >= 1 - max(min_distance**2, 1e-12) / 2)


def _collapsed(block: FeatureBlock, what: str) -> float:
    warnings.warn(
        f"{block.label}: features are {what}; they collapsed, and the score is -inf.",
        CollapsedFeaturesWarning,
        stacklevel=2,
    )
    return -np.inf
