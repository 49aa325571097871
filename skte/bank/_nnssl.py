"""From a model that nnssl pre-trained to the fields of an entry."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skte.bank._documents import check_inside, parse_file
from skte.bank._nnunet import check_package, named_errors, read_plan, weights_file
from skte.bank._weights import read_checkpoint
from skte.exceptions import BankError

_PLAN = "adaptation_plan.json"
# Where networks of dynamic-network-architectures hold encoder and stem.
_PLACES = {
    "PlainConvUNet": ("encoder.stages", "encoder.stages.0"),
    "Primus": ("eva", "down_projection"),
    "ResidualEncoderUNet": ("encoder.stages", "encoder.stem"),
}
_WITHOUT_SKIPS = {"NoSkipResEncL": "ResEncL"}  # the encoder is the same
_MOST_CHANNELS = 1000


def is_nnssl_folder(folder: Path) -> bool:
    """Whether a folder looks like a model of nnssl."""
    return (folder / _PLAN).is_file()


def nnssl_fields(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    checkpoint: str | None = None,
    trusted: bool = False,
    extra_roots: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Read the fields of a `BankEntry` from a folder or repository of nnssl."""
    folder = Path(folder)
    with named_errors(f"nnssl folder {folder}", _PLAN, "nnssl", folder):
        if not is_nnssl_folder(folder):
            raise BankError(f"it has no {_PLAN}; give the folder that has")
        weights = weights_file(folder, None, checkpoint, at_top=True)
        check_inside(folder, [_PLAN, weights], extra_roots)
        check_package()
        plan = parse_file(folder / _PLAN, "Plan")
        return _fields(plan, weights, name or folder.absolute().name, trusted)


def _fields(plan: Mapping[str, Any], weights: Path, name: str, trusted: bool) -> dict[str, Any]:
    n_channels = plan["pretrain_num_input_channels"]
    if type(n_channels) is not int or not 1 <= n_channels <= _MOST_CHANNELS:
        raise BankError(f"pretrain_num_input_channels={n_channels!r:.100} must be a number")
    plans, configuration = _as_nnunet_plans(plan, n_channels)
    read = read_plan(plans, configuration, n_channels, trusted=trusted)
    saved = read_checkpoint(weights, trusted=trusted, lazily=True)
    trainer = saved.get("trainer_name", "unknown")
    return {
        **read.fields(weights, n_channels, 1, trusted),
        "name": name,
        "rename": _renamed(plan, read.factory.rpartition(":")[2]),
        "layers": "encoder",
        "provenance": {
            **read.provenance("nnssl", weights, plan.get("trainer_name", trainer)),
            "loaded": "the encoder; the decoder is random and not read",
        },
    }


def _as_nnunet_plans(plan: Mapping[str, Any], n_channels: int) -> tuple[dict[str, Any], str]:
    """Write a plan of nnssl as plans of nnU-Net, as nnU-Net's fork for fine-tuning does."""
    source, architecture = plan["pretrain_plan"], plan["architecture_plans"]
    (configuration, settings), *_ = source["configurations"].items()
    kind = str(architecture["arch_class_name"])
    # A transformer's tokens have the places that it was trained with.
    fixed = kind.startswith("Primus") and settings.get("patch_size")
    patch = settings["patch_size"] if fixed else plan["recommended_downstream_patchsize"]
    masks = settings["use_mask_for_norm"]
    found = {
        **settings,
        "patch_size": [int(edge) for edge in patch],
        "normalization_schemes": _per_channel(settings["normalization_schemes"], n_channels),
        "use_mask_for_norm": _per_channel(
            masks if isinstance(masks, list) else [masks], n_channels
        ),
        "architecture": {
            "network_class_name": _WITHOUT_SKIPS.get(kind, kind),
            "arch_kwargs": architecture.get("arch_kwargs"),
            "_kw_requires_import": architecture.get("arch_kwargs_requiring_import"),
        },
    }
    if settings.get("spacing") is None:  # spacing_style: noresample
        found |= {"spacing": [1.0] * len(patch), "resampling_fn_data": "no_resampling_hack"}
    return {**source, "configurations": {configuration: found}}, configuration


def _per_channel(values: list[Any], n_channels: int) -> list[Any]:
    return values * n_channels if len(values) == 1 else values


def _renamed(plan: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Map the places of encoder and stem in the file to those in the network."""
    own = next((place for start, place in _PLACES.items() if kind.startswith(start)), ())
    stated = [str(plan[key]) for key in ("key_to_encoder", "key_to_stem")]
    return {f"^{a}.": f"{b}." for a, b in zip(stated, own, strict=False) if a != b}
