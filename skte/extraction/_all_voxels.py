"""Moments of all labelled voxels of a case: no sampling noise, no full-size maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skte.exceptions import ExtractionError
from skte.extraction._label_boxes import LabelBox, label_boxes
from skte.extraction._transpose import class_products, typical_feature
from skte.features import ClassMoments

__all__ = ["LabelBox", "MomentAccumulator", "label_boxes"]


@dataclass(eq=False)
class _ClassSum:
    """What has been seen of one class in one layer.

    `products` are those of features less the pivot with a one appended, see
    `class_products`.
    """

    pivot: NDArray[np.float64]
    count: int
    products: NDArray[np.float64]

    @property
    def offset(self) -> NDArray[np.float64]:
        """Mean less the pivot."""
        return np.asarray(self.products[-1, :-1] / self.count)

    @property
    def scatter(self) -> NDArray[np.float64]:
        """Scatter about the mean; exactly zero for a single voxel."""
        if self.count == 1:
            return np.zeros_like(self.products[:-1, :-1])
        scatter = self.products[:-1, :-1] - self.count * np.outer(self.offset, self.offset)
        np.fill_diagonal(scatter, np.maximum(np.diagonal(scatter), 0.0))
        return np.asarray(scatter)


class MomentAccumulator:
    """Counts, means and scatters of all labelled voxels of one case, layer by layer.

    They are those of features interpolated linearly to every labelled voxel, without
    interpolating them there: the transpose of the interpolation carries the labels to
    the features' own resolution. Sums are in float64 (float32 on Apple's GPUs, which
    have no float64), of features less a value near those of the class.

    Parameters
    ----------
    layers : sequence of str
        Names of the layers.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from skte.extraction._all_voxels import LabelBox, MomentAccumulator
    >>> labels = np.array([0, 0, 0, 5]).reshape(4, 1, 1)
    >>> box = LabelBox(labels, (np.arange(4.0), np.zeros(1), np.zeros(1)), (4, 1, 1))
    >>> accumulator = MomentAccumulator(["up1"])
    >>> accumulator.add("up1", torch.tensor([2.0, 6.0]).reshape(1, 2, 1, 1), box)
    >>> moments = accumulator.moments("up1")  # of 2, 3, 5 and of 6
    >>> moments.classes, (moments.pivot + moments.offsets).ravel().round(6)
    (array([0, 5]), array([3.333333, 6.      ]))
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self._sums: dict[str, dict[int, _ClassSum]] = {layer: {} for layer in layers}

    def add(self, layer: str, feature: torch.Tensor, label: LabelBox) -> None:
        """Add the voxels that one window owns.

        Parameters
        ----------
        layer : str
            Name of the layer.
        feature : Tensor of shape (n_channels, *feature_size)
            The layer's feature map of the window at its native resolution, two or
            three axes, on any device and of any float type.
        label : LabelBox
            The voxels. Each is to be added once a layer.

        Raises
        ------
        ExtractionError
            If the feature map has other axes or channels than before, or holds NaN, Inf
            or values too large to be squared.
        """
        feature = feature.detach()
        if feature.ndim == 3 and label.window_size[2] == 1:
            feature = feature[..., None]
        if feature.ndim != 4:
            raise ExtractionError(
                f"layer {layer!r}: expected features with 3 spatial axes, got shape "
                f"{tuple(feature.shape)}"
            )
        for value, box in label.classes.items():
            seen = self._sums[layer].get(value)
            pivot = typical_feature(feature, box) if seen is None else seen.pivot
            if len(pivot) != len(feature):
                raise ExtractionError(
                    f"layer {layer!r} has {len(feature)} channels in one window and "
                    f"{len(pivot)} in another; choose another layer"
                )
            products = class_products(feature, box, pivot)
            if not np.isfinite(products).all():
                raise ExtractionError(
                    f"layer {layer!r} holds NaN, Inf or values too large to be squared. Check "
                    "the model's weights and the preprocessing of its input"
                )
            if seen is None:
                self._sums[layer][value] = _ClassSum(pivot, box.count, products)
            else:
                seen.count += box.count
                seen.products += products

    def moments(self, layer: str) -> ClassMoments:
        """Moments of the voxels added.

        Parameters
        ----------
        layer : str
            Name of the layer.

        Returns
        -------
        ClassMoments
            Of the classes seen.

        Raises
        ------
        ExtractionError
            If no labelled voxel was added.
        """
        sums = dict(sorted(self._sums[layer].items()))
        if not sums:
            raise ExtractionError(f"layer {layer!r}: no labelled voxel was seen; label one")
        pivot = max(sums.values(), key=lambda one: one.count).pivot
        return ClassMoments(
            classes=np.array(list(sums)),
            counts=np.array([one.count for one in sums.values()], dtype=np.intp),
            pivot=pivot,
            offsets=np.stack([one.pivot - pivot + one.offset for one in sums.values()]),
            scatters=np.stack([one.scatter for one in sums.values()]),
            name=layer,
        )
