"""What nnU-Net's plans say of one configuration, checked; nothing in them is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skte.bank._nnunet_architecture import Architecture, read_architecture
from skte.bank._nnunet_normalize import INTENSITY_KEYS, SCHEMES
from skte.bank._nnunet_resample import RESAMPLERS
from skte.exceptions import BankError

__all__ = ["NNUNetPlan", "read_plan"]

_PREPROCESSOR = "DefaultPreprocessor"
_MOST_ANCESTORS = 20
_REORIENTS = {
    "NaturalImage2DIO": False,
    "NibabelIO": False,
    "NibabelIOWithReorient": True,
    "SimpleITKIO": False,
    "SimpleITKIOWithReorient": True,
    "Tiff3DIO": False,
}


@dataclass(frozen=True)
class NNUNetPlan:
    """One configuration of nnU-Net's plans.

    Attributes
    ----------
    dataset : str
        The training dataset.
    configuration : str
        ``"3d_fullres"``, for instance.
    patch_size : tuple of int
        In voxels, along the network's axes.
    architecture : Architecture
        Class and arguments of the network.
    reorient : bool
        Whether images are brought to RAS+ first.
    preprocessing : dict
        Arguments of `NNUNetPreprocessing`.
    """

    dataset: str
    configuration: str
    patch_size: tuple[int, ...]
    architecture: Architecture
    reorient: bool
    preprocessing: dict[str, Any]


def read_plan(
    plans: Any, configuration: str, n_channels: int, *, trusted: bool = False
) -> NNUNetPlan:
    """Check one configuration of nnU-Net's plans.

    Parameters
    ----------
    plans : object
        Content of ``plans.json``.
    configuration : str
        Its name.
    n_channels : int
        Channels of the images, as ``dataset.json`` has them.
    trusted : bool, default=False
        Whether classes outside the allow-list may be named.

    Returns
    -------
    NNUNetPlan
        What is needed to feed and build the network.

    Raises
    ------
    BankError
        With every problem found.
    """
    found = _inherit(plans, configuration)
    problems: list[str] = []
    patch_size = _numbers(found, "patch_size", problems, whole=True)
    spacing = _numbers(found, "spacing", problems)
    if len(patch_size) != len(spacing) or len(patch_size) not in (2, 3):
        problems.append(
            f"patch_size={list(patch_size)} and spacing={list(spacing)} must have 2 or 3 values "
            "each"
        )
    transpose = plans.get("transpose_forward", [0, 1, 2])
    if sorted(transpose if isinstance(transpose, list) else []) != [0, 1, 2]:
        problems.append(f"transpose_forward={transpose!r} must be an order of 0, 1, 2")
    problems += _foreign_parts(plans, found)
    preprocessing = {
        "transpose": transpose,
        "spacing": spacing,
        "resampling": found.get("resampling_fn_data", "resample_data_or_seg_to_shape"),
        "options": found.get("resampling_fn_data_kwargs", {}),
        **_channels(plans, found, n_channels, problems),
    }
    if problems:
        raise BankError(f"configuration {configuration!r}: {'; '.join(problems)}")
    return NNUNetPlan(
        dataset=str(plans.get("dataset_name", "nnU-Net")),
        configuration=configuration,
        patch_size=tuple(map(int, patch_size)),
        architecture=read_architecture(found, trusted=trusted),
        reorient=_REORIENTS[plans.get("image_reader_writer", "SimpleITKIO")],
        preprocessing=preprocessing,
    )


def _inherit(plans: Any, name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits from others."""
    known = plans.get("configurations") if isinstance(plans, Mapping) else None
    if not isinstance(known, Mapping) or not known:
        raise BankError("plans.json has no 'configurations': these are no plans of nnU-Net v2")
    found: dict[str, Any] = {}
    seen: list[str] = []
    while True:
        if name in seen:
            raise BankError(f"configurations inherit from each other in a circle: {seen}")
        if len(seen) > _MOST_ANCESTORS:
            raise BankError(f"configurations inherit from more than {_MOST_ANCESTORS} others")
        if not isinstance(known.get(name), Mapping):
            raise BankError(
                f"there is no configuration {name!r} in plans.json; known: {', '.join(known)}"
            )
        seen.append(name)
        found = {**known[name], **found}
        if "inherits_from" not in known[name]:
            return found
        name = known[name]["inherits_from"]


def _numbers(
    found: Mapping[str, Any], key: str, problems: list[str], *, whole: bool = False
) -> tuple[float, ...]:
    value = found.get(key)
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, Sequence) or not all(
        isinstance(one, kinds) and not isinstance(one, bool) and 0 < one <= 65_536 for one in value
    ):
        problems.append(f"{key}={value!r} must be a list of positive numbers")
        return ()
    return tuple(value)


def _foreign_parts(plans: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Name what this reader does not do the way nnU-Net would."""
    problems = []
    preprocessor = found.get("preprocessor_name", _PREPROCESSOR)
    if preprocessor != _PREPROCESSOR:
        problems.append(f"preprocessor_name={preprocessor!r} is not nnU-Net's own {_PREPROCESSOR}")
    resampling = found.get("resampling_fn_data", "resample_data_or_seg_to_shape")
    if resampling not in RESAMPLERS:
        problems.append(
            f"resampling_fn_data={resampling!r} is unknown; known: {', '.join(RESAMPLERS)}"
        )
    options = found.get("resampling_fn_data_kwargs", {})
    if not isinstance(options, Mapping):
        problems.append(f"resampling_fn_data_kwargs={options!r} must map names to values")
    reader = plans.get("image_reader_writer", "SimpleITKIO")
    if reader not in _REORIENTS:
        problems.append(
            f"image_reader_writer={reader!r} is unknown; known: {', '.join(_REORIENTS)}"
        )
    if found.get("previous_stage"):
        problems.append(
            f"it takes the segmentation of {found['previous_stage']!r} as further input channels, "
            "which a target dataset does not have; use the configuration of the first stage"
        )
    return problems


def _channels(
    plans: Mapping[str, Any], found: Mapping[str, Any], n_channels: int, problems: list[str]
) -> dict[str, Any]:
    """Normalisation of each channel."""
    schemes, use_mask = found.get("normalization_schemes"), found.get("use_mask_for_norm")
    lists = [schemes, use_mask]
    if not all(isinstance(one, list) and len(one) == n_channels for one in lists):
        problems.append(
            f"normalization_schemes={schemes!r} and use_mask_for_norm={use_mask!r} must have one "
            f"value for each of the {n_channels} channels of dataset.json"
        )
        return {}
    unknown = sorted({str(name) for name in schemes or [] if name not in SCHEMES})
    if unknown:
        problems.append(f"normalization_schemes {unknown} are unknown; known: {', '.join(SCHEMES)}")
    known = plans.get("foreground_intensity_properties_per_channel")
    known = known or plans.get("foreground_intensity_properties_by_modality") or {}
    intensities = [known.get(str(channel)) or {} for channel in range(n_channels)]
    for channel, (scheme, given) in enumerate(zip(schemes or [], intensities, strict=True)):
        missing = [key for key in INTENSITY_KEYS if not isinstance(given.get(key), (int, float))]
        if scheme == "CTNormalization" and missing:
            problems.append(
                f"channel {channel} needs {missing} in foreground_intensity_properties_per_channel"
            )
    return {
        "schemes": schemes,
        "use_mask": use_mask,
        "intensities": [
            {k: float(v) for k, v in given.items() if k in INTENSITY_KEYS} for given in intensities
        ],
    }
