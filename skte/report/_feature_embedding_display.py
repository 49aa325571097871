"""Features of one class in two dimensions, by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from skte.features import FeatureSet
from skte.report._drawing import COLORS, MARKERS, new_axes, plot_name, plot_names
from skte.report._results_of import check_at_least_one

__all__ = ["FeatureEmbeddingDisplay"]

# Cases with a colour of their own.
_MOST_COLORS = len(COLORS)


class FeatureEmbeddingDisplay:
    """Voxels of one class in the plane: consistent features mix the cases, others part them.

    Up to six cases have a colour and marker each. Of more, the farthest out have, and the
    rest is grey.

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

    Attributes
    ----------
    ax_ : matplotlib Axes
        Set by `plot`.
    figure_ : matplotlib Figure
        Set by `plot`.

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
                f"{self.embedding.shape}: give two coordinates a voxel."
            )

    @classmethod
    def from_features(
        cls,
        features: FeatureSet,
        *,
        layer: str | None = None,
        label: int | None = None,
        method: str = "pca",
        normalize: str | None = "l2",
        max_voxels: int = 3000,
        random_state: int = 0,
        **plot_kwargs: Any,
    ) -> Self:
        """Project the features of a class and plot them.

        Parameters
        ----------
        features : FeatureSet
            Of one model.
        layer : str, optional
            Default: the last, finest one.
        label : int, optional
            The class. Default: that of the most cases and then voxels, 0 aside.
        method : {"pca", "tsne"}, default="pca"
            "pca" keeps distances as well as a plane can; "tsne" keeps neighbourhoods and
            invents the distances between clusters.
        normalize : {"l2"} or None, default="l2"
            "l2" puts features on the unit sphere first, as `CCFV` does.
        max_voxels : int, default=3000
            At most so many are shown, as many of each case as can be.
        random_state : int, default=0
            Seed of the voxels shown, and of "tsne".
        **plot_kwargs
            As for `plot`.

        Returns
        -------
        FeatureEmbeddingDisplay
            Plotted.

        Raises
        ------
        ValueError
            If there is no such layer, class or method, or fewer than three voxels.
        """
        if not isinstance(features, FeatureSet):
            raise TypeError(f"features must be a FeatureSet, got {type(features).__name__}.")
        check_at_least_one("max_voxels", max_voxels)
        if method not in ("pca", "tsne"):
            raise ValueError(f"method must be 'pca' or 'tsne', got {method!r}.")
        if normalize not in ("l2", None):
            raise ValueError(f"normalize must be 'l2' or None, got {normalize!r}.")
        layer = features.layer_names[-1] if layer is None else layer
        if layer not in features.layer_names:
            raise ValueError(f"There is no layer {layer!r}; there are {features.layer_names}.")
        label = _commonest_label(features, layer) if label is None else label
        X, cases = _gather(features, layer, label, max_voxels, random_state)
        if normalize == "l2":
            lengths = np.linalg.norm(X, axis=1, keepdims=True)
            X = X / np.where(lengths > 0, lengths, 1.0)
        embedding, axis_names = _project(X, method, random_state)
        of = f"{features.name}, " if features.name else ""
        title = f"{plot_name(of + f'layer {layer}', 50)}, class {label}"
        return cls(embedding, cases, title=title, axis_names=axis_names).plot(**plot_kwargs)

    def plot(self, ax: Any = None, *, scatter_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        scatter_kw : mapping, optional
            Passed to ``Axes.scatter``.

        Returns
        -------
        FeatureEmbeddingDisplay
            This display, with ``ax_`` and ``figure_``.
        """
        if ax is None:
            ax = new_axes(6.8, 4.8)
        ids = list(dict.fromkeys(self.cases.tolist()))
        bright = ids if len(ids) <= _MOST_COLORS else self._farthest(ids)
        kw = {"s": 12, "alpha": 0.7, "linewidths": 0, **dict(scatter_kw or {})}
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
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _farthest(self, ids: Sequence[str]) -> list[str]:
        """Cases whose centres lie farthest from the centre of all cases."""
        centres = np.array([self.embedding[self.cases == case].mean(axis=0) for case in ids])
        away = np.linalg.norm(centres - np.median(centres, axis=0), axis=1)
        return [ids[i] for i in np.argsort(-away, kind="stable")[:_MOST_COLORS]]


def _commonest_label(features: FeatureSet, layer: str) -> int:
    counts: dict[int, tuple[int, int]] = {}
    for case in features:
        values, n = np.unique(case.layers[layer].y, return_counts=True)
        for value, here in zip(values.tolist(), n.tolist(), strict=True):
            n_cases, n_voxels = counts.get(value, (0, 0))
            counts[value] = (n_cases + 1, n_voxels + here)
    foreground = {k: n for k, n in counts.items() if k != 0} or counts
    return max(foreground, key=lambda k: (*foreground[k], -k))


def _gather(
    features: FeatureSet, layer: str, label: int, max_voxels: int, random_state: int
) -> tuple[NDArray[np.float64], list[str]]:
    rng = np.random.default_rng(random_state)
    parts = {c.case_id: c.layers[layer].X[c.layers[layer].y == label] for c in features}
    parts = {case: X for case, X in parts.items() if len(X)}
    share = max(1, max_voxels // max(1, len(parts)))
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


def _project(
    X: NDArray[np.float64], method: str, random_state: int
) -> tuple[NDArray[np.float64], tuple[str, str]]:
    if method == "tsne":
        perplexity = min(30.0, (len(X) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=random_state)
        start = X if X.shape[1] >= 2 else np.hstack([X, np.zeros_like(X)])
        return np.asarray(tsne.fit_transform(start)), ("t-SNE 1", "t-SNE 2")
    centred = X - X.mean(axis=0)
    if centred.shape[1] == 1 or not centred.any():  # nothing to choose a direction from
        padded = np.hstack([centred[:, :1], np.zeros((len(X), 1))])
        return padded, ("component 1", "")
    pca = PCA(2, svd_solver="full").fit(X)
    shares = [f"component {i + 1} ({s:.0%})" for i, s in enumerate(pca.explained_variance_ratio_)]
    return np.asarray(pca.transform(X)), (shares[0], shares[1])
