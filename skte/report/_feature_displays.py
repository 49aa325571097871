"""Features of one model by case: in the plane, and as distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from skte.estimators import CCFV
from skte.features import FeatureSet
from skte.report._drawing import COLORS, MARKERS, MOST_ROWS, Display, plot_name, plot_names

_MOST_VOXELS = 3000  # in the plane


class FeatureEmbeddingDisplay(Display):
    """Voxels of one class in the plane: consistent features mix the cases, others separate them.

    The six cases farthest from the centre have their own colour and marker; others are grey.

    Parameters
    ----------
    embedding : array-like of shape (n_voxels, 2)
        Where each voxel lies.
    cases : sequence of str of length n_voxels
        The case of each voxel.
    title : str, default=""
        What is shown.
    axis_names : (str, str), default=("", "")
        Labels of the axes.

    Examples
    --------
    >>> from skte.report import FeatureEmbeddingDisplay
    >>> display = FeatureEmbeddingDisplay([[0, 0], [1, 1], [5, 5]], ["a", "a", "b"]).plot()
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['a', 'b']
    """

    def __init__(
        self,
        embedding: ArrayLike,
        cases: Sequence[str],
        *,
        title: str = "",
        axis_names: tuple[str, str] = ("", ""),
    ) -> None:
        self.embedding: NDArray[np.float64] = np.asarray(embedding, dtype=np.float64)
        self.cases: NDArray[Any] = np.asarray(cases, dtype=object)
        self.title = title
        self.axis_names = axis_names
        if self.embedding.shape != (len(self.cases), 2):
            raise ValueError(
                f"{len(self.cases)} voxels have cases, but the embedding has shape "
                f"{self.embedding.shape}: give two coordinates per voxel."
            )

    @classmethod
    def from_features(
        cls,
        features: FeatureSet,
        *,
        layer: str | None = None,
        label: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Plot the features of a class, scaled to length 1, on their first two components.

        At most 3000 voxels are shown, in equal shares per case.

        Parameters
        ----------
        features : FeatureSet
            Of one model.
        layer : str, optional
            Default: the last, finest one.
        label : int, optional
            The class. Default: that of the most cases and then voxels, 0 aside.
        ax : matplotlib Axes, optional
            As for `plot`.

        Raises
        ------
        ValueError
            If there is no such layer or class, or fewer than three voxels.
        """
        if not isinstance(features, FeatureSet):
            raise TypeError(f"features must be a FeatureSet, got {type(features).__name__}.")
        layer = features.layer_names[-1] if layer is None else layer
        if layer not in features.layer_names:
            raise ValueError(f"There is no layer {layer!r}; there are {features.layer_names}.")
        label = _commonest_label(features, layer) if label is None else label
        X, cases = _gather(features, layer, label)
        embedding, axis_names = _project(normalize(X))
        of = f"{features.name}, " if features.name else ""
        title = f"{plot_name(of + f'layer {layer}', 50)}, class {label}"
        return cls(embedding, cases, title=title, axis_names=axis_names).plot(ax)

    def _size(self) -> tuple[float, float]:
        return 6.8, 4.8

    def _draw(self, ax: Any) -> None:
        ids = list(dict.fromkeys(self.cases.tolist()))
        bright = ids if len(ids) <= len(COLORS) else self._farthest(ids)
        kw = {"s": 12, "alpha": 0.7, "linewidths": 0}
        rest = ~np.isin(self.cases, bright)
        if rest.any():
            n = len(ids) - len(bright)
            style = {**kw, "color": "0.7", "s": 8}
            ax.scatter(*self.embedding[rest].T, label=f"{n} other cases", **style)
        for i, (case, name) in enumerate(zip(bright, plot_names(bright, 24), strict=True)):
            style = {**kw, "color": COLORS[i], "marker": MARKERS[i]}
            own = self.embedding[self.cases == case]
            # Legends leave out labels that begin with "_".
            ax.scatter(*own.T, label=f" {name}" if name.startswith("_") else name, **style)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, markerscale=2)
        ax.set(xlabel=self.axis_names[0], ylabel=self.axis_names[1], xticks=[], yticks=[])
        ax.set_title(self.title, fontsize="medium")

    def _farthest(self, ids: Sequence[str]) -> list[str]:
        """Cases whose centres lie farthest from the centre of all cases."""
        centres = np.array([self.embedding[self.cases == case].mean(axis=0) for case in ids])
        away = np.linalg.norm(centres - np.median(centres, axis=0), axis=1)
        return [ids[i] for i in np.argsort(-away, kind="stable")[: len(COLORS)]]


def _commonest_label(features: FeatureSet, layer: str) -> int:
    counts: dict[int, tuple[int, int]] = {}
    for case in features:
        values, n = np.unique(case.layers[layer].y, return_counts=True)
        for value, here in zip(values.tolist(), n.tolist(), strict=True):
            n_cases, n_voxels = counts.get(value, (0, 0))
            counts[value] = (n_cases + 1, n_voxels + here)
    foreground = {k: n for k, n in counts.items() if k != 0} or counts
    return max(foreground, key=lambda k: (*foreground[k], -k))


def _gather(features: FeatureSet, layer: str, label: int) -> tuple[NDArray[np.float64], list[str]]:
    rng = np.random.default_rng(0)
    parts = {c.case_id: c.layers[layer].X[c.layers[layer].y == label] for c in features}
    parts = {case: X for case, X in parts.items() if len(X)}
    share = max(1, _MOST_VOXELS // max(1, len(parts)))
    rows, cases = [], []
    for case, X in parts.items():
        kept = rng.choice(len(X), share, replace=False) if len(X) > share else np.arange(len(X))
        rows.append(X[kept])
        cases += [case] * len(kept)
    if len(cases) < 3:
        known = sorted({int(v) for c in features for v in np.unique(c.layers[layer].y)})
        raise ValueError(
            f"Class {label} has {len(cases)} voxels in layer {layer!r}: a plane needs three. "
            f"Classes are {known}."
        )
    return np.concatenate(rows).astype(np.float64), cases


def _project(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, str]]:
    centred = X - X.mean(axis=0)
    if centred.shape[1] == 1 or not centred.any():  # nothing to choose a direction from
        padded = np.hstack([centred[:, :1], np.zeros((len(X), 1))])
        return padded, ("component 1", "")
    pca = PCA(2, svd_solver="full").fit(X)
    shares = [f"component {i + 1} ({s:.0%})" for i, s in enumerate(pca.explained_variance_ratio_)]
    return np.asarray(pca.transform(X)), (shares[0], shares[1])


class CaseDistanceDisplay(Display):
    """Distances between cases, farthest case first, so that outliers show by name.

    Parameters
    ----------
    case_ids : sequence of str
        The cases.
    distances : array-like of shape (n_cases, n_cases)
        Symmetric; NaN where a pair was not compared.
    distance_name : str, default="distance"
        Label of the colour bar.

    Attributes
    ----------
    case_ids, distances
        Farthest from the others first.
    ratios : ndarray of shape (n_cases,)
        Written beside the names: mean distance of each case to the others over the median of
        these means, so that 1 is ordinary. NaN where a case was compared with no other.

    Examples
    --------
    >>> from skte.report import CaseDistanceDisplay
    >>> display = CaseDistanceDisplay(["a", "b", "odd"], [[0, 1, 5], [1, 0, 5], [5, 5, 0]])
    >>> display.case_ids[0], display.ratios.round(2)
    ('odd', array([1.67, 1.  , 1.  ]))
    """

    def __init__(
        self, case_ids: Sequence[str], distances: ArrayLike, *, distance_name: str = "distance"
    ) -> None:
        D = np.asarray(distances, dtype=np.float64)
        if D.shape != (len(case_ids), len(case_ids)):
            raise ValueError(f"{len(case_ids)} cases need a square of distances, got {D.shape}.")
        means = _mean(D, _off_diagonal(D), axis=1)
        middle = np.nanmedian(means) if np.isfinite(means).any() else np.nan
        ratios = means / middle if middle > 0 else np.where(np.isfinite(means), 1.0, np.nan)
        order = np.argsort(-np.nan_to_num(ratios, nan=-np.inf), kind="stable")
        self.case_ids: tuple[str, ...] = tuple(str(case_ids[i]) for i in order)
        self.distances: NDArray[np.float64] = D[np.ix_(order, order)]
        self.ratios: NDArray[np.float64] = ratios[order]
        self.distance_name = distance_name

    @classmethod
    def from_estimator(cls, estimator: CCFV, *, ax: Any = None) -> Self:
        """Plot the distances that a fitted `CCFV` computed.

        Those of a layer and class are divided by their median, and averaged over the layers and
        classes that know the pair: 1 is ordinary.

        Parameters
        ----------
        estimator : CCFV
            Fitted, with ``class_consistency=True``.
        ax : matplotlib Axes, optional
            As for `plot`.

        Raises
        ------
        ValueError
            If the estimator has no such distances.
        """
        if not hasattr(estimator, "layer_details_"):
            raise ValueError("The estimator is not fitted: call fit(X) first.")
        # All layers know the same cases.
        details = [one for one in estimator.layer_details_ if one.get("distances")]
        if not details:
            raise ValueError(
                "The estimator keeps no distances between cases: it has class_consistency=False, "
                "or more than 512 rows were cases of their own."
            )
        found = [D / _median(D) for one in details for D in map(_floats, one["distances"].values())]
        mean = _mean(np.array(found), np.isfinite(found), axis=0)
        return cls(details[0]["cases"], mean, distance_name="distance over the median").plot(ax)

    def _size(self) -> tuple[float, float]:
        side = 2.2 + 0.19 * min(len(self.case_ids), MOST_ROWS)
        return side + 2.6, side

    def _draw(self, ax: Any) -> None:
        n = min(len(self.case_ids), MOST_ROWS)
        ax.set_facecolor("0.93")  # shows pairs that were not compared
        shown = np.ma.masked_invalid(self.distances[:n, :n])
        shown[np.eye(n, dtype=bool)] = np.ma.masked  # no case is far from itself
        image = ax.imshow(shown, cmap="cividis", aspect="auto")
        names = zip(plot_names(self.case_ids[:n], 26), self.ratios[:n], strict=True)
        ticks = [name if np.isnan(ratio) else f"{name}  {ratio:.2f}" for name, ratio in names]
        ax.set_yticks(range(n), ticks, fontsize="small")
        ax.set_xticks([])
        whole = len(self.case_ids)
        ax.set_xlabel("cases, same order" if n == whole else f"the farthest {n} of {whole} cases")
        if shown.count():
            ax.figure.colorbar(image, ax=ax, label=plot_name(self.distance_name, 60), shrink=0.8)


def _floats(D: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(D, dtype=np.float64)


def _off_diagonal(D: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(D) & ~np.eye(len(D), dtype=bool))


def _mean(D: NDArray[np.float64], known: NDArray[np.bool_], axis: int) -> NDArray[np.float64]:
    """Mean of what is known; NaN where nothing is."""
    counts = known.sum(axis=axis)
    sums = np.where(known, D, 0.0).sum(axis=axis)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _median(D: NDArray[np.float64]) -> float:
    known = D[_off_diagonal(D)]
    middle = float(np.median(known)) if len(known) else 0.0
    return middle if middle > 0 else 1.0
