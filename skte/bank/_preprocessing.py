"""Preprocessing of an entry: a named chain of torchio transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import torch
import torchio as tio

from skte._digests import versioned
from skte._text import did_you_mean

#: A transform's name with its parameters, a live transform, or a function of the tensor.
Step: TypeAlias = tuple[str, dict[str, Any]] | Any

# Deterministic transforms that keep the image's affine true, so that sampled voxels can
# be followed through them, with the parameters a file may set. What reads other files or
# needs a label map is left out.
ALLOWED: dict[str, tuple[str, ...]] = {
    "Blur": ("std",),
    "Clamp": ("out_min", "out_max"),
    "Crop": ("cropping",),
    "CropOrPad": ("target_shape", "padding_mode", "only_crop", "only_pad", "location", "units"),
    "EnsureShapeMultiple": ("target_multiple", "method"),
    "Pad": ("padding", "padding_mode"),
    "RepeatChannels": ("channels",),
    "Resample": ("target", "image_interpolation", "antialias"),
    "RescaleIntensity": ("out_min_max", "percentiles", "masking_method", "in_min_max"),
    "Resize": ("target_shape", "image_interpolation"),
    "ToCanonical": (),
    "ToOrientation": ("orientation",),
    "Transpose": (),
    "ZNormalization": ("masking_method",),
}
_REFUSED = {
    "Flip": "it leaves the affine as it was, so voxels would be looked up on the wrong side",
    "HistogramStandardization": "it reads a file of landmarks; give the transform itself to a "
    "BankEntry in Python",
    "CopyAffine": "it moves the image but not its label",
    "Swap": "it moves patches of the image, so voxels would be looked up in the wrong place",
}
_MOVES = "it does not keep the affine true, so voxels would be looked up in the wrong place"


def normalize_steps(steps: Sequence[Any]) -> tuple[Any, ...]:
    """Bring named steps to the form (name, parameters); leave the rest alone."""
    return tuple(_normalize(step) for step in steps)


def _normalize(step: Any) -> Any:
    if isinstance(step, str):
        return (step, {})
    if isinstance(step, Mapping):
        key = next((k for k in ("name", "transform") if k in step), None)
        if key is not None and isinstance(step[key], str):
            return (step[key], {k: _tuples(v) for k, v in step.items() if k != key})
    if (
        isinstance(step, Sequence)
        and len(step) == 2
        and isinstance(step[0], str)
        and isinstance(step[1], Mapping)
    ):
        return (step[0], {k: _tuples(v) for k, v in step[1].items()})
    return step


def step_problems(steps: Sequence[Any]) -> list[str]:
    """List everything wrong with normalised steps; empty if nothing is."""
    return [problem for step in steps for problem in _step_problems(step)]


def build_chain(steps: Sequence[Step]) -> tio.Compose | None:
    """Build the transform of a checked chain; None for an empty one."""
    return tio.Compose([_build(step) for step in steps]) if steps else None


@versioned("function of the tensor", 1)
class _TensorStep(tio.transforms.IntensityTransform):
    """A function of the image tensor, which must keep its spatial shape."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.args_names = ["function"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Apply the function to every image."""
        for image in self.get_images(subject):
            result = self.function(image.data)
            if not isinstance(result, torch.Tensor) or result.shape[1:] != image.data.shape[1:]:
                shape = tuple(getattr(result, "shape", ()))
                raise ValueError(
                    f"{self.function!r} turned a tensor of shape {tuple(image.data.shape)} into "
                    f"{type(result).__name__} {shape}: a function must keep the spatial shape. "
                    "Use a tio.Transform, which keeps the affine true."
                )
            image.set_data(result)
        return subject


@versioned("RepeatChannels", 1)
class RepeatChannels(tio.transforms.IntensityTransform):
    """Give an image of one channel the channels that a network takes, all alike."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
            raise ValueError(f"channels={channels!r} must be a positive integer")
        self.channels = channels
        self.args_names = ["channels"]

    def apply_transform(self, subject: tio.Subject) -> tio.Subject:
        """Repeat the channel of every image; one that has them all stays as it is."""
        for image in self.get_images(subject):
            found = image.data.shape[0]
            if found not in (1, self.channels):
                raise ValueError(
                    f"RepeatChannels repeats a single channel, and the image has {found}: leave "
                    "the step out, or choose one with --channels or channels=[...]"
                )
            image.set_data(image.data.expand(self.channels, *image.data.shape[1:]).clone())
        return subject


_OWN = {"RepeatChannels": RepeatChannels}


def _step_problems(step: Any) -> list[str]:
    if isinstance(step, tuple) and len(step) == 2 and isinstance(step[0], str):
        return _named_problems(step[0], step[1])
    if isinstance(step, tio.Transform):
        refusal = _refusal(step)
        return [f"preprocessing: {refusal}"] if refusal else []
    if callable(step) and not isinstance(step, type):
        return []
    return [
        f"preprocessing: {step!r} is not a step; write a name ('ToCanonical'), a mapping with "
        "'name' and its parameters, or (in Python) a tio.Transform or a function of the tensor"
    ]


def _named_problems(name: str, parameters: Mapping[str, Any]) -> list[str]:
    if name not in ALLOWED:
        return [f"preprocessing: {_unknown(name)}"]
    allowed = ALLOWED[name]
    problems = []
    for key in parameters:
        if key not in allowed:
            hint = did_you_mean(key, allowed) if allowed else "it takes none"
            problems.append(f"preprocessing {name}: unknown parameter {key!r}; {hint}")
    problems += [f"preprocessing {name}: {text}" for text in _value_problems(name, parameters)]
    if not problems:
        try:
            _build((name, dict(parameters)))
        except Exception as error:
            problems.append(f"preprocessing {name}: {error}")
    return problems


def _value_problems(name: str, parameters: Mapping[str, Any]) -> list[str]:
    """Values that torchio takes at first and trips over when a case comes."""
    problems = []
    target = parameters.get("target", 1)
    edges = target if isinstance(target, (list, tuple)) and len(target) == 3 else [target]
    if name == "Resample" and not all(_is_number(edge) and edge > 0 for edge in edges):
        problems.append(
            f"target={target!r} must be a spacing in millimetres, one positive number or three "
            "(files are not read)"
        )
    low, high = parameters.get("out_min"), parameters.get("out_max")
    if not all(bound is None or _is_number(bound) for bound in (low, high)):
        problems.append(f"out_min={low!r} and out_max={high!r} must be numbers or left out")
    elif _is_number(low) and _is_number(high) and low > high:
        problems.append(f"out_min={low!r} is above out_max={high!r}")
    mask = parameters.get("masking_method")
    if not (mask is None or callable(mask) or mask == "mean"):
        problems.append(
            f"masking_method={mask!r} must be 'mean' (voxels above the mean) or left out"
        )
    return problems


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unknown(name: str) -> str:
    if name in _REFUSED:
        return f"{name!r} is refused: {_REFUSED[name]}"
    if name.startswith("Random") or name == "OneOf":
        return _by_chance(name)
    return f"unknown transform {name!r}; {did_you_mean(name, ALLOWED)}"


def _by_chance(name: str) -> str:
    return (
        f"{name!r} is refused: it is a random augmentation, and a ranking must not depend on "
        "chance; leave it out"
    )


def _refusal(transform: tio.Transform) -> str | None:
    """Why a live transform is refused, looking into compositions."""
    name = type(transform).__name__
    if isinstance(transform, tio.transforms.augmentation.RandomTransform):
        return _by_chance(name)
    if getattr(transform, "probability", 1) < 1:
        return f"{name} with p < 1 is refused: a ranking must not depend on chance; set p=1"
    reason = _moves_voxels(transform)
    if reason:
        return f"{name!r} is refused: {reason}; use one of {', '.join(ALLOWED)}"
    for part in getattr(transform, "transforms", None) or ():
        refusal = _refusal(part) if isinstance(part, tio.Transform) else None
        if refusal:
            return refusal
    return None


def _moves_voxels(transform: tio.Transform) -> str | None:
    """Why voxels cannot be followed through it; of classes from elsewhere their own base says."""
    own = [cls for cls in type(transform).__mro__ if cls.__module__.startswith("torchio.")]
    if isinstance(transform, tio.SpatialTransform):
        if any(cls.__name__ in ALLOWED for cls in own) or own[0] is tio.SpatialTransform:
            return None
        return _REFUSED.get(own[0].__name__, _MOVES)
    return _REFUSED["Swap"] if isinstance(transform, tio.Swap) else None


def _build(step: Step) -> tio.Transform:
    if isinstance(step, tio.Transform):
        return step
    if not isinstance(step, tuple):
        return _TensorStep(step)
    name, parameters = step
    parameters = dict(parameters)
    if parameters.get("masking_method") == "mean":
        parameters["masking_method"] = tio.ZNormalization.mean
    if name == "CropOrPad" and parameters.get("target_shape") is None:
        raise ValueError("target_shape must be given")
    return (_OWN.get(name) or getattr(tio, name))(**parameters)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
