"""The transpose of linear interpolation: sums over voxels at the features' resolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from skte.extraction._label_boxes import ClassBox

__all__ = ["class_products", "typical_feature"]

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
    """Return the median feature near some voxels of a class, channel by channel.

    The median is a value of the features: a constant channel less this is exactly zero.

    Parameters
    ----------
    feature : Tensor of shape (n_channels, x, y, z)
        Feature map of one window, at its native resolution.
    box : ClassBox
        Voxels of the class.

    Returns
    -------
    ndarray of shape (n_channels,)
        Finite where the features are.
    """
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
    """Sum over the voxels of a class of outer products of interpolated features.

    Parameters
    ----------
    feature : Tensor of shape (n_channels, x, y, z)
        Feature map of one window, at its native resolution.
    box : ClassBox
        Voxels of the class.
    pivot : ndarray of shape (n_channels,)
        Subtracted from the features, so that squares keep their digits.

    Returns
    -------
    ndarray of shape (n_channels + 1, n_channels + 1)
        Sum of ``f f^T``, where f has a one appended: the last row holds the sum of the
        features and the number of voxels.

    Notes
    -----
    With ``f(v) = sum_m P[m, v] F[m]``, the sum over the voxels of a class is
    ``sum_(m, m') Q[m, m'] F[m] F[m']^T``, and ``Q = P diag(class) P^T`` couples a
    position with itself and its 26 neighbours only. P is a product of axes, so Q comes
    from sums along one axis after the other; with G the features weighted by half of Q
    (14 neighbours, by symmetry), the result is ``F G^T + G F^T``: the one large matrix
    product is at the features' resolution. Classes of few voxels are interpolated.
    """
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
