"""nnU-Net's preprocessing as one transform that keeps the affine true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from scipy import ndimage

from skte._digests import versioned
from skte.bank._nnunet_normalize import SCHEMES
from skte.bank._nnunet_resample import RESAMPLERS, resampled_shape, separate_axis

__all__ = ["NNUNetPreprocessing"]


@versioned("preprocessing of nnU-Net", 1)
class NNUNetPreprocessing(tio.SpatialTransform):
    """Transpose, crop to nonzero, normalise and resample, in nnU-Net's order.

    The result's axes are those of the network: z, y, x of the image, permuted as the
    plans say; of a 2-D configuration the slices come last. Where the crop cut air away,
    normalised air is put back, so that voxels sampled there are found in every model of
    a bank; within the crop values are nnU-Net's own.

    Parameters
    ----------
    transpose : sequence of int
        The plans' ``transpose_forward``.
    spacing : sequence of float
        The configuration's, in mm, along the axes after transposing; two values for a
        2-D configuration, which keeps the distance of slices.
    schemes : sequence of str
        Of each channel's normalisation.
    use_mask : sequence of bool
        Whether each channel is normalised within the nonzero region alone.
    intensities : sequence of mapping
        Of each channel's foreground in the training data.
    resampling : str
        The plans' ``resampling_fn_data``.
    options : mapping
        The plans' ``resampling_fn_data_kwargs``.

    References
    ----------
    Isensee et al. nnU-Net: a self-configuring method for deep learning-based biomedical
    image segmentation. Nature Methods, 2021.
    """

    def __init__(
        self,
        *,
        transpose: Sequence[int],
        spacing: Sequence[float],
        schemes: Sequence[str],
        use_mask: Sequence[bool],
        intensities: Sequence[Mapping[str, float]],
        resampling: str,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.transpose = tuple(transpose)
        self.spacing = tuple(spacing)
        self.schemes = tuple(schemes)
        self.use_mask = tuple(use_mask)
        self.intensities = tuple(dict(one) for one in intensities)
        self.resampling = resampling
        self.options = dict(options)
        self.args_names = [
            "transpose", "spacing", "schemes", "use_mask", "intensities", "resampling", "options",
        ]  # fmt: skip

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Preprocess every image."""
        for image in self.get_images(subject):
            data, affine = self._run(image.data.numpy(), np.asarray(image.affine))
            image.set_data(torch.from_numpy(data))
            image.affine = affine
        return subject

    def _run(
        self, data: NDArray[Any], affine: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        if len(data) != len(self.schemes):
            raise ValueError(
                f"the model takes {len(self.schemes)} channels, but the image has {len(data)}; "
                "give the channels of its dataset.json, in that order"
            )
        axes = [(2, 1, 0)[i] for i in self.transpose]  # of x, y, z, after z, y, x is permuted
        # Contiguous before it is permuted: sums depend on how values lie in memory.
        zyx = np.ascontiguousarray(data.transpose(0, 3, 2, 1), dtype=np.float32)
        turned = zyx.transpose(0, *(i + 1 for i in self.transpose))
        mask = ndimage.binary_fill_holes((turned != 0).any(axis=0))
        box = ndimage.find_objects(mask.astype(np.int8))[0] if mask.any() else (slice(None),) * 3
        cropped = np.array(turned, order="K")[(slice(None), *box)]
        air = self._normalize(cropped, mask[box])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)[axes]
        resampled = self._resample(cropped, [float(edge) for edge in spacing])
        starts = [part.indices(n)[0] for part, n in zip(box, mask.shape, strict=True)]
        whole, to_turned = _put_back(resampled, cropped.shape[1:], starts, mask.shape, air)
        from_axes = np.eye(4)[:, [*axes, 3]]
        if len(self.spacing) == 2:  # slices last
            whole, to_turned = whole.transpose(0, 2, 3, 1), to_turned[:, [1, 2, 0, 3]]
        return np.ascontiguousarray(whole), affine @ from_axes @ to_turned

    def _normalize(self, data: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[float]:
        air = []
        for channel, (name, masked, intensity) in enumerate(
            zip(self.schemes, self.use_mask, self.intensities, strict=True)
        ):
            inside = mask if masked else None
            data[channel], value = SCHEMES[name](data[channel], inside, intensity)
            air.append(value)
        return air

    def _resample(self, data: NDArray[np.float32], spacing: list[float]) -> NDArray[np.float32]:
        resample = RESAMPLERS[self.resampling]
        if resample is None:
            return data
        target = [*spacing[: 3 - len(self.spacing)], *self.spacing]
        shape = resampled_shape(data.shape[1:], spacing, target)
        if min(shape) < 1:
            raise ValueError(
                f"nothing is left of an image of {data.shape[1:]} voxels of {spacing} mm at the "
                f"model's spacing of {target} mm"
            )
        options = dict(self.options)
        axis = separate_axis(
            spacing,
            target,
            force=options.pop("force_separate_z", _FORCE[self.resampling]),
            threshold=options.pop("separate_z_anisotropy_threshold", 3.0),
        )
        result: NDArray[np.float32] = resample(data, shape, axis, **options)
        return result

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.args_names)

    def __hash__(self) -> int:
        return hash((self.transpose, self.spacing, self.schemes))


# What a function of the plans does where its options say nothing.
_FORCE = {"resample_data_or_seg_to_shape": False, "resample_torch_fornnunet": None}


def _put_back(
    data: NDArray[np.float32],
    cropped: Sequence[int],
    starts: Sequence[int],
    shape: Sequence[int],
    air: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Surround the crop by air up to the old image's faces.

    Returns the image, and the matrix from its indices to those before the crop.
    """
    pads, to_old = [], np.eye(4)
    for axis, (n, old, start, whole) in enumerate(
        zip(data.shape[1:], cropped, starts, shape, strict=True)
    ):
        step = old / n
        before = math.ceil(start / step - 1e-6)
        pads.append((before, math.ceil((whole - start - old) / step - 1e-6)))
        to_old[axis, axis] = step
        to_old[axis, 3] = start + (0.5 - before) * step - 0.5
    if not any(edge for pair in pads for edge in pair):
        return data, to_old
    channels = [
        np.pad(one, pads, constant_values=np.float32(value))
        for one, value in zip(data, air, strict=True)
    ]
    return np.stack(channels), to_old
