"""Moments of all labelled voxels of a case: no sampling noise, no full-size maps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import find_objects
from scipy.sparse import csr_array

from skte.exceptions import ExtractionError
from skte.extraction._windows import deepest_on_axis
from skte.features import ClassMoments

__all__ = [
    "ClassBox",
    "LabelBox",
    "MomentAccumulator",
    "class_products",
    "label_boxes",
    "typical_feature",
]


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
    """Counts, means and scatters of all labelled voxels of one case, layer by layer."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._sums: dict[str, dict[int, _ClassSum]] = {layer: {} for layer in layers}

    def add(self, layer: str, feature: torch.Tensor, label: LabelBox) -> None:
        """Add the voxels that one window owns."""
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
        """Moments of the voxels added."""
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


# Values of a slab: small enough for a cache, or large enough to occupy an accelerator.
_CPU_SLAB, _SLAB = 2**18, 2**24
# Cost of a value: gathered at one corner, and of a slab beside its products with neighbours,
# both in units of one such product.
_GATHER, _PASS = 12, 5
# Voxels looked at for a value near the features of a class.
_LOOKED_AT = 255


@dataclass(frozen=True, eq=False)
class _Axis:
    """Interpolation along one axis: a voxel takes ``1 - upper`` of low, the rest of low + 1."""

    low: NDArray[np.intp]
    upper: NDArray[np.float64]

    @classmethod
    def of(cls, positions: NDArray[np.float64], window: int, size: int) -> _Axis:
        """Follow the convention of `gather_points`: centres aligned, ends held."""
        at = np.clip((positions + 0.5) * (size / window) - 0.5, 0, size - 1)
        low = np.floor(at).astype(np.intp)
        return cls(low, at - low)

    @cached_property
    def whole(self) -> bool:
        """Whether every voxel lies on a position."""
        return not self.upper.any()

    @cached_property
    def used(self) -> slice:
        """Positions that any voxel takes from."""
        return slice(int(self.low.min()), int((self.low + (self.upper > 0)).max()) + 1)

    @cached_property
    def size(self) -> int:
        """Number of positions used."""
        return int(self.used.stop) - int(self.used.start)

    def kernel(self) -> csr_array | None:
        """Weights of positions with themselves and, below, with the next; None: identity.

        With ``P`` the interpolation matrix (positions by voxels), the rows are those of
        ``P[m]**2``, followed by ``P[m] * P[m + 1]`` unless these vanish.
        """
        low, voxels = self.low - self.used.start, np.arange(len(self.low))
        if self.whole and np.array_equal(low, voxels):
            return None
        between = np.flatnonzero(self.upper)
        upper = self.upper[between]
        rows = [low, low[between] + 1, low[between] + self.size]
        columns = [voxels, between, between]
        values = [(1 - self.upper) ** 2, upper**2, upper * (1 - upper)]
        shape = (self.size * (1 if self.whole else 2), len(low))
        entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
        return csr_array(entries, shape=shape)


def typical_feature(feature: torch.Tensor, box: ClassBox) -> NDArray[np.float64]:
    """Return the median feature near some voxels of a class, channel by channel."""
    voxels = np.flatnonzero(box.mask)
    voxels = voxels[:: max(1, len(voxels) // _LOOKED_AT)]
    axes = _axes(feature, box)
    low = [a.low[i] for a, i in zip(axes, np.unravel_index(voxels, box.mask.shape), strict=True)]
    x, y, z = (torch.from_numpy(at).to(feature.device) for at in low)
    values = feature[:, x, y, z].cpu().double().numpy()
    return np.asarray(np.sort(values, axis=1)[:, values.shape[1] // 2])


def class_products(
    feature: torch.Tensor, box: ClassBox, pivot: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum over the voxels of a class of outer products of interpolated features."""
    axes = _axes(feature, box)
    # An interpolation's weights sum to one, so the pivot can be subtracted before it.
    dtype = torch.float32 if feature.device.type == "mps" else torch.float64
    centre = torch.from_numpy(pivot).to(feature.device, dtype)
    n_blurred = sum(not axis.whole for axis in axes)
    n_positions = int(np.prod([axis.size for axis in axes]))
    n_products = (3**n_blurred + 1) // 2 + _PASS
    if box.count * 2**n_blurred * _GATHER < n_positions * n_products:
        total = _gathered(feature, centre, axes, box.mask)
    else:
        x, y, z = (axis.used for axis in axes)
        total = _weighted(feature[:, x, y, z], centre, axes, box.mask)
    return np.asarray(total.cpu().double().numpy())


def _axes(feature: torch.Tensor, box: ClassBox) -> list[_Axis]:
    sizes = zip(box.positions, box.window_size, feature.shape[1:], strict=True)
    return [_Axis.of(at, window, size) for at, window, size in sizes]


def _weighted(
    feature: torch.Tensor, centre: torch.Tensor, axes: list[_Axis], mask: NDArray[np.bool_]
) -> torch.Tensor:
    """Products of features with their weighted neighbours, slab by slab."""
    depth, plane = feature.shape[1], feature.shape[2] * feature.shape[3]
    neighbours = [
        (torch.from_numpy(weights.reshape(depth, plane)).to(centre), at, other)
        for weights, at, other in _neighbours(axes, mask)
    ]
    halo = 0 if axes[0].whole else 1
    step = max(2, _slab(feature) // ((len(feature) + 1) * plane))
    total = centre.new_zeros(len(feature) + 1, len(feature) + 1)
    for first in range(0, depth, step):
        stop = min(first + step, depth)
        slab = feature[:, first : min(stop + halo, depth)]
        rows = centre.new_ones(len(feature) + 1, slab.shape[1] * plane)
        torch.sub(slab, centre[:, None, None, None], out=rows[:-1].view(slab.shape))
        n = (stop - first) * plane
        sums = torch.zeros_like(rows[:, :n])
        for weights, at, other in neighbours:
            # Beyond the slab lie pairs across the image's edge only, of weight zero.
            m = max(0, min(n - at, rows.shape[1] - other))
            here = weights[first:stop].reshape(-1)[:m]
            sums[:, at : at + m].addcmul_(rows[:, other : other + m], here)
        total += rows[:, :n] @ sums.T
    return total + total.T


def _neighbours(
    axes: list[_Axis], mask: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.float64], int, int]]:
    """Weights of pairs of positions, and how far both lie from the pair's lower corner.

    Each pair of positions comes once, a position with itself at half its weight. Weights
    stand at the lower corner of the box that the pair spans.
    """
    sizes = [axis.size for axis in axes]
    strides = [sizes[1] * sizes[2], sizes[2], 1]
    sums = _pair_sums(axes, mask)
    for apart in itertools.product(*(range(1 if axis.whole else 2) for axis in axes)):
        x, y, z = (slice(e * n, (e + 1) * n) for e, n in zip(apart, sizes, strict=True))
        weights = np.ascontiguousarray(sums[x, y, z])
        active = [stride for stride, e in zip(strides, apart, strict=True) if e]
        if not active:
            yield 0.5 * weights, 0, 0
            continue
        # The first axis tells which of the two is meant; on the others either may be lower.
        for higher in itertools.product((0, 1), repeat=len(active) - 1):
            at = sum(s for s, h in zip(active[1:], higher, strict=True) if h)
            yield weights, at, sum(active) - at


def _pair_sums(axes: list[_Axis], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Apply the axes' kernels to a class's indicator, one after the other."""
    values = mask.astype(np.float64)
    for axis in axes:
        kernel = axis.kernel()
        if kernel is not None:
            rest = values.shape[1:]
            values = (kernel @ values.reshape(len(values), -1)).reshape(-1, *rest)
        values = np.moveaxis(values, 0, -1)  # the next axis first; after three, as before
    return values


def _gathered(
    feature: torch.Tensor, centre: torch.Tensor, axes: list[_Axis], mask: NDArray[np.bool_]
) -> torch.Tensor:
    """Products of features interpolated at each voxel."""
    flat = feature.reshape(len(feature), -1)
    sizes = tuple(feature.shape[1:])
    voxels = np.flatnonzero(mask)
    step = max(1, _slab(feature) // (len(feature) + 1))
    total = centre.new_zeros(len(feature) + 1, len(feature) + 1)
    for first in range(0, len(voxels), step):
        index = np.unravel_index(voxels[first : first + step], mask.shape)
        low = [axis.low[i] for axis, i in zip(axes, index, strict=True)]
        upper = [axis.upper[i] for axis, i in zip(axes, index, strict=True)]
        rows = centre.new_zeros(len(feature) + 1, len(index[0]))
        rows[-1] = 1.0
        for corner in itertools.product(*(range(1 if axis.whole else 2) for axis in axes)):
            weight = np.prod([u if c else 1 - u for u, c in zip(upper, corner, strict=True)], 0)
            # Beyond the last position the weight is zero.
            at = [np.minimum(i + c, n - 1) for i, c, n in zip(low, corner, sizes, strict=True)]
            chosen = torch.from_numpy(np.ravel_multi_index(at, sizes)).to(flat.device)
            values = flat.index_select(1, chosen) - centre[:, None]
            rows[:-1].addcmul_(values, torch.from_numpy(weight).to(centre))
        total += rows @ rows.T
    return total


def _slab(feature: torch.Tensor) -> int:
    return _CPU_SLAB if feature.device.type == "cpu" else _SLAB


# How far (in voxels, across the whole image) an axis may lean and still count as kept.
_LEAN = 1e-3
# Rounding of the affines is undone below this, as for sampled voxels.
_ROUNDING = 1e-6
# A larger range of labels is sorted instead of counted.
_MANY_LABELS = 65_536


@dataclass(frozen=True, eq=False)
class ClassBox:
    """Voxels of one class that a window owns, in their bounding box."""

    mask: NDArray[np.bool_]  # voxels of the class
    # For each axis, the voxels' positions in voxels of the window.
    positions: tuple[NDArray[np.float64], ...]
    window_size: tuple[int, ...]  # edges of the window in voxels

    @cached_property
    def count(self) -> int:
        """Number of voxels of the class."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True, eq=False)
class LabelBox:
    """Labelled voxels that one window owns: a box, whatever lies in it."""

    labels: NDArray[np.integer]  # axes are those of the image; may be a view
    # For each axis, the voxels' positions in voxels of the window, ascending; 0 is the centre of
    # the first voxel. They may be fractional.
    positions: tuple[NDArray[np.float64], ...]
    window_size: tuple[int, ...]  # edges of the window in voxels, three of them
    ignore_label: int | None = None  # voxels that belong to no class

    @cached_property
    def classes(self) -> Mapping[int, ClassBox]:
        """Voxels of each class present, in sorted order; computed once for all layers."""
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if highest - lowest < _MANY_LABELS:
            values: Sequence[int] = range(lowest, highest + 1)
            codes = (self.labels - (lowest - 1)).astype(np.int32)
        else:
            unique, inverse = np.unique(self.labels, return_inverse=True)
            values, codes = unique.tolist(), inverse.reshape(self.labels.shape) + 1
        boxes = {}
        for value, where in zip(values, find_objects(codes), strict=True):
            if where is not None and value != self.ignore_label:
                boxes[value] = ClassBox(
                    np.ascontiguousarray(self.labels[where] == value),
                    tuple(at[part] for at, part in zip(self.positions, where, strict=True)),
                    self.window_size,
                )
        return boxes


def label_boxes(
    label: torch.Tensor,
    to_image: ArrayLike,
    *,
    image_shape: Sequence[int],
    padding: Sequence[tuple[int, int]],
    grid: Sequence[NDArray[np.intp]],
    window_size: Sequence[int],
    n_axes: int = 3,
    ignore_label: int | None = None,
) -> Iterator[LabelBox | None]:
    """Cut a label map into the parts that the windows of a grid own."""
    labels, positions = _along_image(label.numpy(), np.asarray(to_image, dtype=np.float64))
    stretches = []
    for axis, (starts, window) in enumerate(zip(grid, window_size, strict=True)):
        at = np.clip(positions[axis], 0, image_shape[axis] - 1)  # as sampled voxels are
        if axis >= n_axes:
            at = np.round(at)
        at = at + padding[axis][0]
        # Positions ascend, so that what a window owns is one stretch.
        owner = deepest_on_axis(at, starts, window)
        edges = np.searchsorted(owner, np.arange(len(starts) + 1))
        stretches.append(
            [
                (slice(a, b), at[a:b] - start)
                for start, (a, b) in zip(starts, itertools.pairwise(edges.tolist()), strict=True)
            ]
        )
    return _boxes(labels, stretches, tuple(window_size), ignore_label)


def _boxes(
    labels: NDArray[np.integer],
    stretches: list[list[tuple[slice, NDArray[np.float64]]]],
    window_size: tuple[int, ...],
    ignore_label: int | None,
) -> Iterator[LabelBox | None]:
    for window in itertools.product(*stretches):
        part = labels[tuple(where for where, _ in window)]
        if part.size == 0 or (ignore_label is not None and bool((part == ignore_label).all())):
            yield None
        else:
            yield LabelBox(part, tuple(at for _, at in window), window_size, ignore_label)


def _along_image(
    labels: NDArray[Any], to_image: NDArray[np.float64]
) -> tuple[NDArray[Any], list[NDArray[np.float64]]]:
    """Give the label map the image's axes, and each voxel its position on each axis."""
    linear = to_image[:3, :3]
    source = np.abs(linear).argmax(axis=1)
    lean = np.abs(linear) * (np.array(labels.shape) - 1)
    lean[np.arange(3), source] = 0.0
    if sorted(source.tolist()) != [0, 1, 2] or lean.sum(axis=1).max() > _LEAN:
        raise ExtractionError(
            "moments='all' needs preprocessing that keeps the axes (it may permute, flip, "
            "scale, crop and pad them), and this one rotates or shears the image. Use "
            "moments='sample', or leave the rotation out of the preprocessing"
        )
    labels = labels.transpose(source)
    positions = []
    for axis, along in enumerate(source):
        at = linear[axis, along] * np.arange(labels.shape[axis]) + to_image[axis, 3]
        rounded = np.round(at)
        positions.append(np.where(np.abs(at - rounded) < _ROUNDING, rounded, at))
    for axis in range(3):
        if linear[axis, source[axis]] < 0:
            labels, positions[axis] = np.flip(labels, axis), positions[axis][::-1]
    return labels, positions
