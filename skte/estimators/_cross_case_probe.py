"""The cross-case probe: how well a linear head, fitted on some cases, segments the others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.stats import rankdata
from sklearn.utils import Tags

from skte._sklearn import Interval, StrOptions
from skte.estimators._base import Details, Diagnosis, EstimatorTags, TransferabilityEstimator
from skte.estimators._samples import (
    Array,
    Ints,
    classes_of_two_cases,
    encode_labels,
    group_codes,
    held_groups,
    unit_range,
)
from skte.exceptions import CollapsedFeaturesWarning
from skte.features import FeatureBlock

#: Up to this many cases are left out one by one; with more, this many folds are made.
_N_FOLDS = 5
#: Channels whose spread is at most this share of the largest are zeroed.
_DEAD = 1e-6


class CrossCaseProbe(TransferabilityEstimator):
    r"""Dice of a linear head on frozen features, on cases that it was not fitted on.

    A head is fitted on some of the labelled cases by weighted ridge regression, and
    segments the others. All layers at the same voxels are one feature vector ``z``::

        W = argmin sum_p w_p |t_p - z_p W|^2 / sum_p w_p + ridge |W|^2
        score = mean over cases of the mean over classes of reading(z W, t)

    where ``t`` is one for the class of a voxel and zero for the others, and ``w`` gives
    every class the same weight. Cases are left out one by one up to five of them, and in five
    folds from six on.

    Parameters
    ----------
    reading : {"dice", "threshold", "auc"}, default="threshold"
        How the prediction of a class is judged on a case that was left out. "dice": the soft
        Dice of predictions clipped to [0, 1]. "threshold": the Dice at the threshold that
        is best for the cases that the head was fitted on. "auc": the area
        under the ROC curve.
    ridge : float, default=1.0
        Strength of the penalty. Channels are standardised and the intercept is not penalised.
    background : label or None, default=0
        The label whose prediction is not judged. None: every class is.

    Attributes
    ----------
    score_ : float
        Between 0 and 1. Higher is better.
    case_scores_ : ndarray of shape (n_cases,)
        What each case contributes when it is left out; NaN where no class of it is judged.
    case_names_ : tuple of str
        Names of the cases, in the order of ``case_scores_``.
    predictions_ : ndarray of shape (n_voxels, n_classes)
        For every voxel, in the order of the rows that were passed (of a `FeatureSet`: case by
        case), what the head says that was fitted without the voxel's case; about 1 for its class
        and 0 for the others where features transfer.
    classes_ : ndarray of shape (n_classes,)
        Labels of the columns of ``predictions_``.

    Raises
    ------
    ValueError
        If ``groups`` is missing, or if no class that is judged occurs in two cases.

    References
    ----------
    .. [1] Alain, G., Bengio, Y. "Understanding intermediate layers using linear classifier
       probes". ICLR 2017 workshop. arXiv:1610.01644. (Linear probes; leaving out cases, several
       stages at once and the readings are ours.)

    Examples
    --------
    >>> import numpy as np
    >>> from skte import CrossCaseProbe
    >>> rng = np.random.default_rng(0)
    >>> labels, cases = rng.integers(0, 3, 300), np.repeat(np.arange(6), 50)
    >>> noise = rng.normal(size=(300, 8))
    >>> informative = noise + 3 * np.eye(8)[labels]
    >>> round(CrossCaseProbe().fit(informative, labels, groups=cases).score_, 1)
    0.9
    >>> round(CrossCaseProbe().fit(noise, labels, groups=cases).score_, 1)
    0.5
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "reading": [StrOptions({"dice", "threshold", "auc"})],
        "ridge": [Interval(Real, 0, None, closed="neither")],
        "background": [Real, str, None],
    }
    _tags: ClassVar[EstimatorTags] = EstimatorTags(joined_layers=True, warns_of_constants=True)

    def __init__(
        self, *, reading: str = "threshold", ridge: float = 1.0, background: Any = 0
    ) -> None:
        self.reading = reading
        self.ridge = ridge
        self.background = background

    def _score_block(self, block: FeatureBlock) -> tuple[float, Details]:
        names, cases = _cases(block)
        classes, codes = encode_labels(block.y)
        wanted = np.array([self.background is None or k != self.background for k in classes])
        rows = wanted[codes]
        why = (
            f"no class but the background ({self.background!r}) occurs in two cases, so none can "
            "be learnt in one case and judged in another"
        )
        judged = classes_of_two_cases(block, classes, codes[rows], cases[rows], why)
        shares = np.eye(len(classes))[codes]
        problem = _Problem(block.X, shares, cases, names, self.ridge)
        if problem.collapsed:
            warnings.warn(
                f"{block.label}: all voxels have the same features; every voxel is predicted "
                "alike.",
                CollapsedFeaturesWarning,
                stacklevel=2,
            )
        values = problem.read((self.reading,), judged)[self.reading]
        if np.isnan(values).all():
            raise ValueError(
                f"{block.label}: no case holds a class that is judged beside another class, so "
                f"reading={self.reading!r} says nothing. Sample another class, or use "
                "reading='dice'."
            )
        return float(np.nanmean(values)), {
            "cases": names,
            "values": values,
            "predictions": problem.held_out,
            "classes": classes,
        }

    def _summarise(self) -> None:
        [details] = self.layer_details_
        self.case_scores_: Array = details["values"]
        self.case_names_: tuple[str, ...] = details["cases"]
        self.predictions_: Array = details["predictions"]
        self.classes_: NDArray[np.generic] = details["classes"]

    def diagnose(self) -> Diagnosis:
        """Report what each case contributes to the fitted score, the lowest first."""
        found = super().diagnose()
        pairs = zip(self.case_names_, self.case_scores_.tolist(), strict=True)
        known = [(name, score) for name, score in pairs if not np.isnan(score)]
        return replace(found, case_scores=sorted(known, key=lambda pair: pair[1]))

    def _resample_block(self, block: FeatureBlock, details: Details, weights: Ints) -> Array:
        """Weighted means of what the cases contribute."""
        values = np.full(weights.shape[1], np.nan)
        values[np.unique(held_groups(block))] = details["values"]
        known = ~np.isnan(values)
        totals = weights[:, known].sum(axis=1)
        sums = weights[:, known] @ values[known]
        return np.where(totals > 0, sums / np.maximum(totals, 1), np.nan)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # no array without the case of each row
        return tags


def cross_case_probe(X: Array, shares: Array, groups: NDArray[Any]) -> dict[str, Array]:
    """Probe cells that hold shares of several classes; what each case contributes, by reading."""
    names, cases = _cases(FeatureBlock(X, shares[:, 0], groups))
    judged = [k for k in range(1, shares.shape[1]) if shares[:, k].any()]
    return _Problem(X, shares, cases, names, 1.0).read(tuple(_READINGS), judged)


def _cases(block: FeatureBlock) -> tuple[tuple[str, ...], Ints]:
    """Names of the cases in sorted order of their groups, and each row's position among them."""
    if block.groups is None:
        raise ValueError(
            f"{block.label}: the probe is fitted on some cases and judged on others, so it needs "
            "groups, the case of every row. Pass groups=..., or a FeatureSet."
        )
    groups, codes = group_codes(block, "The probe is fitted on some cases, judged on others")
    return tuple(block.case_name(group) for group in groups), codes


@dataclass(frozen=True)
class _Fold:
    """Rows that the head was fitted on, rows it was not, and its predictions on both."""

    held_out: Ints
    fitted: Ints
    predictions: Array  # of all rows


class _Problem:
    """Standardised features, shares and weights: what every fold is solved from."""

    def __init__(
        self, X: Array, shares: Array, cases: Ints, names: tuple[str, ...], ridge: float
    ) -> None:
        self.Z, self.collapsed = _standardised(X)
        self.T, self.cases, self.ridge = shares, cases, ridge
        present = shares.mean(axis=0) > 0
        self.w: Array = (shares[:, present] / shares[:, present].mean(axis=0)).mean(axis=1)
        # By name, so that the order of the cases does not matter.
        self.folds = np.argsort(np.argsort(names)) % min(len(names), _N_FOLDS)
        self.held_out: Array = np.empty_like(shares)  # predictions, filled by `read`

    def read(self, readings: tuple[str, ...], judged: list[int]) -> dict[str, Array]:
        """Mean over the judged classes of each case, by reading."""
        n_cases = len(self.folds)
        values = {name: np.full((n_cases, len(judged)), np.nan) for name in readings}
        for fold in self._solved():
            self.held_out[fold.held_out] = fold.predictions[fold.held_out]
            for j, k in enumerate(judged):
                p, t = fold.predictions[:, k], self.T[:, k]
                cut = _best_cut(p[fold.fitted], t[fold.fitted]) if "threshold" in readings else 0.0
                for case in np.unique(self.cases[fold.held_out]):
                    rows = self.cases == case
                    if not t[rows].any():
                        continue
                    is_class = self.T[rows].argmax(axis=1) == k
                    for name in readings:
                        values[name][case, j] = _READINGS[name](p[rows], t[rows], is_class, cut)
        with warnings.catch_warnings():  # a case without any judged class has no mean
            warnings.simplefilter("ignore", RuntimeWarning)
            return {name: np.nanmean(found, axis=1) for name, found in values.items()}

    def _solved(self) -> Iterator[_Fold]:
        fold_of_row = self.folds[self.cases]
        wide = self.Z.shape[1] > len(self.Z)
        grams = None if wide else self._grams(fold_of_row)
        for fold in range(int(self.folds.max()) + 1):
            fitted = np.flatnonzero(fold_of_row != fold)
            if grams is None:
                predictions = self._dual(fitted)
            else:
                predictions = _primal(self.Z, grams.sum(axis=0) - grams[fold], self.ridge)
            yield _Fold(np.flatnonzero(fold_of_row == fold), fitted, predictions)

    def _grams(self, fold_of_row: Ints) -> Array:
        """``sum w a a'`` of each fold, a = (z, 1, t): all that the ridge needs to know."""
        n_folds = int(self.folds.max()) + 1
        d, c = self.Z.shape[1], self.T.shape[1]
        grams = np.empty((n_folds, d + 1, d + 1 + c))
        for fold in range(n_folds):
            rows = fold_of_row == fold
            root = np.sqrt(self.w[rows])[:, None]
            A = np.hstack([self.Z[rows], np.ones_like(root)])
            A *= root
            grams[fold, :, : d + 1] = A.T @ A  # half the work of a product of two matrices
            grams[fold, :, d + 1 :] = A.T @ (root * self.T[rows])
        return grams

    def _dual(self, fitted: Ints) -> Array:
        """Predictions of all rows from products of rows, for more channels than rows."""
        w = self.w[fitted] / self.w[fitted].sum()
        mean, mean_t = w @ self.Z[fitted], w @ self.T[fitted]
        root = np.sqrt(w)[:, None]
        A, B = root * (self.Z[fitted] - mean), root * (self.T[fitted] - mean_t)
        K = A @ A.T
        K[np.diag_indices_from(K)] += self.ridge
        predicted: Array = (self.Z - mean) @ (A.T @ solve(K, B, assume_a="pos")) + mean_t
        return predicted


def _primal(Z: Array, gram: Array, ridge: float) -> Array:
    """Predictions of all rows from the summed products of the rows that are fitted on."""
    d = Z.shape[1]
    total = gram[d, d]
    mean, mean_t = gram[d, :d] / total, gram[d, d + 1 :] / total
    S = gram[:d, :d] / total - np.outer(mean, mean)
    S[np.diag_indices_from(S)] += ridge
    R = gram[:d, d + 1 :] / total - np.outer(mean, mean_t)
    W = solve(S, R, assume_a="pos")
    predicted: Array = Z @ W + (mean_t - mean @ W)
    return predicted


def _standardised(X: Array) -> tuple[Array, bool]:
    """Channels of mean zero and variance one; those that hardly vary are zeroed."""
    Z, _ = unit_range(X)
    varies = Z.min(axis=0) < Z.max(axis=0)
    Z -= Z.mean(axis=0)
    Z -= Z.mean(axis=0)  # removes what rounding left of a mean far from zero
    spread = np.where(varies, np.sqrt(np.einsum("ij,ij->j", Z, Z) / len(Z)), 0.0)
    alive = spread > _DEAD * spread.max(initial=0.0)
    Z /= np.where(alive, spread, np.inf)
    return Z, not alive.any()


def _soft_dice(p: Array, t: Array, is_class: NDArray[np.bool_], cut: float) -> float:
    p = np.clip(p, 0.0, 1.0)
    return float(2 * np.minimum(p, t).sum() / (p.sum() + t.sum()))


def _dice_at(p: Array, t: Array, is_class: NDArray[np.bool_], cut: float) -> float:
    above = p > cut
    return float(2 * t[above].sum() / (above.sum() + t.sum()))


def _best_dice(p: Array, t: Array, is_class: NDArray[np.bool_], cut: float) -> float:
    return _dice_at(p, t, is_class, _best_cut(p, t))


def _auc(p: Array, t: Array, is_class: NDArray[np.bool_], cut: float) -> float:
    n = int(is_class.sum())
    if n in (0, len(p)):
        return float("nan")
    ranks = float(rankdata(p)[is_class].sum())
    return (ranks - n * (n + 1) / 2) / (n * (len(p) - n))


#: "best" takes the threshold that is best for the case itself: an upper bound, for studies.
_READINGS = {"dice": _soft_dice, "threshold": _dice_at, "best": _best_dice, "auc": _auc}


def _best_cut(p: Array, t: Array) -> float:
    """Threshold of the largest Dice, halfway between two predictions."""
    order = np.argsort(-p, kind="stable")
    ranked = p[order]
    hits = np.cumsum(t[order])
    dice = 2 * hits / (np.arange(1, len(p) + 1) + t.sum())
    following = np.append(ranked[1:], -np.inf)
    dice[ranked <= following] = -1.0  # equal predictions fall on one side
    best = int(dice.argmax())
    if best == len(p) - 1:
        return -np.inf
    return float((ranked[best] + following[best]) / 2)
