"""From a results folder of nnU-Net v2 to the fields of an entry."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skte._files import scratch_folder
from skte._text import clean_text
from skte.bank._documents import check_inside, parse_file
from skte.bank._factory import resolve_factory
from skte.bank._nnunet_transform import INTENSITY_KEYS, RESAMPLERS, SCHEMES, NNUNetPreprocessing
from skte.bank._weights import pick_state_dict, read_checkpoint, unpack, zip_place
from skte.exceptions import BankError

_FOLD = re.compile(r"fold_(\d+|all)")
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_UNFINISHED = "checkpoint_latest.pth"
_log = logging.getLogger("skte")
_KEY = "network_weights"
_DESCRIPTIONS = ("plans.json", "dataset.json")
_ZIPPED = re.compile(r"fold_(\d{1,4}|all)/\w[\w.-]{0,100}\.pth", re.ASCII)
_MOST_ZIPPED = 1000  # checkpoints of one model


def is_nnunet_folder(folder: Path) -> bool:
    """Whether a folder or zip looks like nnU-Net's trained models, be it without its folds."""
    if folder.suffix.lower() == ".zip" and folder.is_file():
        return bool(nnunet_models(folder))
    if not (folder / "plans.json").is_file():
        return False
    return (folder / "dataset.json").is_file() or bool(_folds(folder))


def nnunet_fields(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    fold: int | str | None = None,
    configuration: str | None = None,
    checkpoint: str | None = None,
    trusted: bool = False,
    extra_roots: Sequence[str | os.PathLike[str]] = (),
) -> dict[str, Any]:
    """Read the fields of a `BankEntry` from a results folder of nnU-Net v2, or an exported zip."""
    folder = Path(folder)
    if fold is None and _FOLD.fullmatch(folder.name) and not (folder / "plans.json").is_file():
        folder, fold = folder.parent, folder.name
    is_zipped = zip_place(folder / _DESCRIPTIONS[0]) is not None
    shown = f"nnU-Net {'archive' if is_zipped else 'folder'} {folder}"
    scratch = scratch_folder("skte-nnunet-") if is_zipped else nullcontext(folder)
    with scratch as place, named_errors(shown, "plans.json or dataset.json", "nnU-Net", place):
        source, here = _unpacked(folder, place) if is_zipped else (folder, place)
        _check_folder(here)
        weights = weights_file(here, fold, checkpoint)
        part = weights.relative_to(here.absolute()).as_posix()
        if is_zipped:
            unpack(source / part, weights.parent)
        check_inside(here, [*_DESCRIPTIONS, weights], extra_roots)
        check_package()
        fields = _fields(here, name, configuration, weights, trusted)
    return {**fields, "weights": source.absolute() / part}


@contextmanager
def named_errors(what: str, files: str, tool: str, place: Path) -> Iterator[None]:
    """Let errors say which model they are about; unusual values in its files become `BankError`."""
    try:
        yield
    except BankError as error:
        text = str(error).replace(f"{place.absolute()}{os.sep}", "")  # it stands in front
        raise BankError(f"{what}: {clean_text(text)}") from error
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise BankError(
            f"{what}: {files} is not of the form that {tool} writes ({type(error).__name__}: "
            f"{clean_text(error, 300)}); copy it again from where it was trained"
        ) from error


def nnunet_models(path: Path) -> list[Path]:
    """List the models of an exported zip, as paths that lead into it; of a folder that alone."""
    archive, inner = zip_place(path / _DESCRIPTIONS[0]) or (None, "")
    if archive is None:
        return [path]
    names = _zipped_names(archive)
    within = inner.removesuffix(_DESCRIPTIONS[0])
    safe = [n for n in names if n[:1] != "/" and ".." not in n.split("/")]
    described = {n.rpartition("/")[0] for n in safe if f"/{n}".endswith(f"/{_DESCRIPTIONS[0]}")}
    described = {folder for folder in described if f"{folder}/".startswith(within)}
    # Results of cross-validation are described as well.
    trained = {n.rpartition("/fold_")[0] for n in names if _ZIPPED.search(n)} & described
    return sorted(archive / folder for folder in trained or described)


def nnunet_folds(path: Path) -> list[Path]:
    """List the folds with a checkpoint, of a folder or an exported zip; of one fold the model."""
    found = []
    for model in nnunet_models(path):
        archive, inner = zip_place(model / "fold") or (None, "")
        if archive is None:
            names = [file.relative_to(model).as_posix() for file in model.glob("fold_*/*.pth")]
        else:
            start = inner.removesuffix("fold")
            names = [n.removeprefix(start) for n in _zipped_names(archive) if n.startswith(start)]
        saved = [name.split("/") for name in names if _ZIPPED.fullmatch(name)]
        folds = {fold for fold, last in saved if last != _UNFINISHED}
        unfinished = sorted({fold for fold, _ in saved} - folds)
        if folds and unfinished:
            _log.info("%s: left out, as not trained to the end: %s", model, ", ".join(unfinished))
        one_by_one = len({fold for fold, _ in saved}) > 1 and 0 < len(folds) <= _MOST_ZIPPED
        found += [model / fold for fold in sorted(folds, key=_place)] if one_by_one else [model]
    return found


def _zipped_names(archive: Path) -> list[str]:
    try:
        with zipfile.ZipFile(archive) as file:
            return file.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return []


def _unpacked(path: Path, scratch: Path) -> tuple[Path, Path]:
    """Find the one model of an exported zip, and unpack its descriptions beside empty weights."""
    models = nnunet_models(path)
    if len(models) != 1:
        what = f"it holds several models; name one of {', '.join(map(str, models))}"
        raise BankError(what if models else "it holds no model of nnU-Net v2")
    archive, inner = zip_place(models[0]) or (path, "")
    folder = scratch / (re.sub(r"[^\w.+-]|^\.+", "_", models[0].name))
    folder.mkdir()
    start = f"{inner}/" if inner else ""
    names = [n.removeprefix(start) for n in _zipped_names(archive) if n.startswith(start)]
    checkpoints = [*filter(_ZIPPED.fullmatch, names)]
    if len(checkpoints) > _MOST_ZIPPED:
        raise BankError(f"it holds {len(checkpoints)} checkpoints")
    for name in {*names} & {*_DESCRIPTIONS}:
        unpack(models[0] / name, folder)
    for name in checkpoints:  # to choose from; filled when chosen
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return models[0], folder


def _fields(
    folder: Path,
    name: str | None,
    configuration: str | None,
    weights: Path,
    trusted: bool,
) -> dict[str, Any]:
    plans = parse_file(folder / "plans.json", "Plans")
    dataset = parse_file(folder / "dataset.json", "Description")
    channels = _channel_names(dataset)
    saved = read_checkpoint(weights, trusted=trusted, lazily=True)
    state = pick_state_dict(saved, weights, _KEY, "")
    plan = read_plan(
        plans,
        configuration or _configuration(folder, plans, saved),
        len(channels),
        trusted=trusted,
        network=_transformer(state),
    )
    n_inputs, n_outputs = _ends(state, weights)
    if n_inputs != len(channels):
        raise BankError(
            f"the network takes {n_inputs} channels, but dataset.json names {len(channels)} "
            f"({', '.join(channels)}); a cascade's further stage cannot be used, of other "
            "networks fix dataset.json"
        )
    labels = dataset.get("labels", {})
    regions = isinstance(labels, Mapping) and any(isinstance(v, list) for v in labels.values())
    fold = weights.parent.name
    return {
        **plan.fields(weights, n_inputs, n_outputs, trusted),
        "name": name or f"{plan.dataset}-{plan.configuration}-{fold}",
        "activation": "sigmoid" if regions else "softmax",
        "provenance": plan.provenance(
            "nnU-Net v2",
            weights,
            saved.get("trainer_name", "unknown"),
            fold=fold.removeprefix("fold_"),
            channels=channels,
            labels=labels,
        ),
    }


def check_package() -> None:
    """Raise where the package of nnU-Net's networks is not installed."""
    if importlib.util.find_spec("dynamic_network_architectures") is None:
        raise BankError(
            "its networks come from the package dynamic-network-architectures, which is not "
            "installed: pip install --no-deps 'dynamic-network-architectures>=0.4'"
        )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BankError("there is no such folder")
    missing = [name for name in _DESCRIPTIONS if not (folder / name).is_file()]
    if not missing and _folds(folder):
        return
    inside = sorted(str(p.parent) for p in folder.glob("*/plans.json"))
    if inside:
        raise BankError(f"it holds several models; name one of {', '.join(inside)}")
    if list(folder.glob("plans*.pkl")):
        raise BankError("this is a model of nnU-Net v1, which is not supported; train it with v2")
    what = [*missing, *([] if _folds(folder) else ["any folder fold_0, fold_1 ... or fold_all"])]
    raise BankError(
        f"{' and '.join(what)} is missing; give the folder named trainer__plans__configuration"
    )


def _folds(folder: Path) -> list[str]:
    """Names of the folds, lowest first, the one trained on all cases last."""
    found = [p.name for p in folder.glob("fold_*") if _FOLD.fullmatch(p.name) and p.is_dir()]
    return sorted(found, key=_place)


def _place(fold: str) -> tuple[bool, int, str]:
    return fold == "fold_all", len(fold), fold


def weights_file(
    folder: Path, fold: int | str | None, checkpoint: str | None, *, at_top: bool = False
) -> Path:
    """Find a checkpoint in the chosen fold, or the lowest, or, if it may be there, beside them."""
    folds = _folds(folder)
    if fold is not None:
        chosen = f"fold_{str(fold).removeprefix('fold_')}"
    elif at_top and (not folds or any(folder.glob("checkpoint_*.pth"))):
        folds, chosen = ["."], "."
    else:  # a fold whose training has not begun to save holds nothing
        chosen = next((one for one in folds if any((folder / one).glob("*.pth"))), folds[0])
    if chosen not in folds:
        raise BankError(f"there is no {chosen}; it has {', '.join(folds)}")
    if checkpoint is not None and Path(checkpoint).name != checkpoint:
        raise BankError(f"checkpoint={checkpoint!r} must be the name of a file in {chosen}")
    names = _CHECKPOINTS if checkpoint is None else (checkpoint,)
    found = [folder / chosen / name for name in names if (folder / chosen / name).is_file()]
    if not found:
        there = sorted(p.name for p in (folder / chosen).glob("*.pth"))
        raise BankError(
            f"{'it' if chosen == '.' else chosen} has no {' or '.join(names)}"
            + (f"; name one of checkpoint={there}" if there else "; the training did not finish")
        )
    return found[0].absolute()


def _configuration(folder: Path, plans: Any, saved: Any) -> str:
    """Find the configuration by the folder's name, or by what the trainer noted."""
    known = plans.get("configurations", {}) if isinstance(plans, Mapping) else {}
    noted = saved.get("init_args") if isinstance(saved, Mapping) else None
    by_name = folder.absolute().name.split("__")[-1]
    candidates = [by_name, noted.get("configuration") if isinstance(noted, Mapping) else None]
    candidates += list(known) if len(known) == 1 else []
    found = next((c for c in candidates if isinstance(c, str) and c in known), None)
    if known and found is None:
        raise BankError(f"which configuration was trained? Pass configuration=, of {list(known)}")
    return found or by_name


def _channel_names(dataset: Any) -> list[str]:
    given = dataset if isinstance(dataset, Mapping) else {}
    names = given.get("channel_names", given.get("modality"))
    if not isinstance(names, Mapping) or not names:
        raise BankError("dataset.json has no 'channel_names' (or 'modality', as it once was)")
    return [str(name) for name in names.values()]


def _ends(state: Mapping[str, torch.Tensor], weights: Path) -> tuple[int, int]:
    """Channels that go in and come out, as the weights have them."""
    first = next((t for t in state.values() if t.ndim >= 4), None)
    heads = [t for key, t in state.items() if re.search(r"seg_layers\.\d+\.weight$", key)]
    raised = [
        t for key, t in state.items() if re.search(r"up_projection\.decode\.\d+\.weight$", key)
    ]
    if first is not None and raised:
        return first.shape[1], raised[-1].shape[1]
    if first is None or not heads:
        raise BankError(
            f"{weights.parent.name}/{weights.name} does not hold a network of nnU-Net's own kind "
            "(it has no decoder.seg_layers): a trainer of its own may have built another one. Use "
            f"BankEntry(name, factory, weights=..., state_key={_KEY!r})"
        )
    return first.shape[1], heads[-1].shape[0]


_PREPROCESSOR, _RESAMPLER = "DefaultPreprocessor", "resample_data_or_seg_to_shape"
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
    """One configuration of nnU-Net's plans."""

    dataset: str
    configuration: str
    patch_size: tuple[int, ...]
    factory: str
    arguments: dict[str, Any]
    reorient: bool
    preprocessing: dict[str, Any]

    def fields(self, weights: Path, n_inputs: int, n_outputs: int, trusted: bool) -> dict[str, Any]:
        """Return what the fields of an entry have in common for all who write such plans."""
        ends: dict[str, Any] = {"num_classes": n_outputs, "deep_supervision": False}
        if self.factory.startswith(f"{_PRIMUS}:"):
            ends = {"output_channels": n_outputs}
        first = ["ToCanonical"] if self.reorient else []
        return {
            "factory": self.factory,
            "arguments": {**self.arguments, "input_channels": n_inputs, **ends},
            "weights": weights,
            "state_key": _KEY,
            "window_size": self.patch_size,
            "spatial_dims": len(self.patch_size),
            "in_channels": n_inputs,
            "preprocessing": [*first, NNUNetPreprocessing(**self.preprocessing)],
            "trusted": trusted,
            "trusted_packages": [self.factory.partition(":")[0]] if trusted else [],
        }

    def provenance(self, tool: str, weights: Path, trainer: Any, **more: Any) -> dict[str, Any]:
        """Return where a model comes from."""
        return {
            "format": tool,
            "dataset": self.dataset,
            "configuration": self.configuration,
            **({"fold": more.pop("fold")} if "fold" in more else {}),
            "checkpoint": weights.name,
            "trainer": str(trainer),
            **more,
            "spacing": list(self.preprocessing["spacing"]),
        }


def read_plan(
    plans: Any,
    configuration: str,
    n_channels: int,
    *,
    trusted: bool = False,
    network: str | None = None,
) -> NNUNetPlan:
    """Check one configuration of nnU-Net's plans; `network` replaces the one that they name."""
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
        "resampling": found.get("resampling_fn_data", _RESAMPLER),
        "options": found.get("resampling_fn_data_kwargs", {}),
        **_channels(plans, found, n_channels, problems),
    }
    if problems:
        raise BankError(f"configuration {configuration!r}: {'; '.join(problems)}")
    if network is not None:
        found["architecture"] = {"network_class_name": network}
    factory, arguments = _architecture(found, trusted)
    return NNUNetPlan(
        dataset=str(plans.get("dataset_name", "nnU-Net")),
        configuration=configuration,
        patch_size=tuple(map(int, patch_size)),
        factory=factory,
        arguments=arguments,
        reorient=_REORIENTS[plans.get("image_reader_writer", "SimpleITKIO")],
        preprocessing=preprocessing,
    )


def _inherit(plans: Any, name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits from others."""
    known = plans.get("configurations") if isinstance(plans, Mapping) else None
    if not isinstance(known, Mapping) or not known:
        raise BankError("plans.json has no 'configurations': these are not plans of nnU-Net v2")
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
    parts = (
        ("preprocessor_name", found.get("preprocessor_name", _PREPROCESSOR), (_PREPROCESSOR,)),
        ("resampling_fn_data", found.get("resampling_fn_data", _RESAMPLER), RESAMPLERS),
        ("image_reader_writer", plans.get("image_reader_writer", "SimpleITKIO"), _REORIENTS),
    )
    problems = [
        f"{key}={value!r} is unknown; known: {', '.join(known)}"
        for key, value, known in parts
        if value not in known
    ]
    options = found.get("resampling_fn_data_kwargs", {})
    if not isinstance(options, Mapping):
        problems.append(f"resampling_fn_data_kwargs={options!r} must map names to values")
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


_UNET = "dynamic_network_architectures.architectures.unet"
_PRIMUS = "dynamic_network_architectures.architectures.primus"
# By the channels of their tokens. nnU-Net's trainers of these name no network in the plans.
_TRANSFORMERS = {396: "PrimusS", 792: "PrimusB", 864: "PrimusM", 1056: "PrimusL"}
_TOKEN = 8  # voxels of its edges


def _layers(n_axes: int) -> dict[str, Any]:
    """Layers of nnU-Net's own networks, as its plans have them today."""
    return {
        "conv_op": f"torch.nn.Conv{n_axes}d",
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{n_axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


# The network of nnssl that its plans name alone (https://arxiv.org/abs/2410.23132).
_RES_ENC_L = {
    "network_class_name": f"{_UNET}.ResidualEncoderUNet",
    "arch_kwargs": {
        "n_stages": 6,
        "features_per_stage": [32, 64, 128, 256, 320, 320],
        "kernel_sizes": [[3, 3, 3]] * 6,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * 5,
        "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
        "n_conv_per_stage_decoder": [1] * 5,
        **_layers(3),
    },
}
_RESIDUAL = "dynamic_network_architectures.building_blocks.residual"
# Class, and what its argument for the depth of the encoder's stages is called.
_NETWORKS = {
    "PlainConvUNet": "n_conv_per_stage",
    "ResidualEncoderUNet": "n_blocks_per_stage",
    "ResidualUNet": "n_blocks_per_stage",
}
_BLOCKS = ("BasicBlockD", "BottleneckD")
_CLASS_ARGUMENTS = ("conv_op", "norm_op", "dropout_op", "nonlin", "block")
_OLD_KEYS = (
    "UNet_base_num_features",
    "unet_max_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "conv_kernel_sizes",
    "pool_op_kernel_sizes",
)
_MOST_STAGES = 32


def _architecture(configuration: Mapping[str, Any], trusted: bool) -> tuple[str, dict[str, Any]]:
    """Read the factory of a configuration's network and its arguments, without channels."""
    described = configuration.get("architecture")
    if described is None:
        described = _from_old_keys(configuration)
    named = described.get("network_class_name") if isinstance(described, Mapping) else None
    if named in _TRANSFORMERS.values():
        return _transformer_recipe(str(named), configuration["patch_size"])
    if named == "ResEncL":
        described = _RES_ENC_L
    if not isinstance(described, Mapping) or not isinstance(described.get("arch_kwargs"), Mapping):
        raise BankError("architecture must hold network_class_name and arch_kwargs")
    arguments = dict(described["arch_kwargs"])
    stages = arguments.get("n_stages")
    if not isinstance(stages, int) or not 1 <= stages <= _MOST_STAGES:
        raise BankError(f"n_stages={stages!r} must be a number of stages, at most {_MOST_STAGES}")
    imports = described.get("_kw_requires_import") or _CLASS_ARGUMENTS
    for key in {*imports, *_CLASS_ARGUMENTS} & set(arguments):
        if arguments[key] is not None:
            arguments[key] = _layer_class(key, arguments[key], trusted)
    return _network(str(described.get("network_class_name")), trusted), arguments


def _transformer(state: Mapping[str, torch.Tensor]) -> str | None:
    """Name the transformer that a state dict is of; None for other networks."""
    tokens = (t for key, t in state.items() if key.endswith("down_projection.proj.weight"))
    embedding = next(tokens, None)
    return None if embedding is None else _TRANSFORMERS.get(embedding.shape[0])


def _transformer_recipe(kind: str, patch: Sequence[int]) -> tuple[str, dict[str, Any]]:
    if len(patch) != 3 or any(edge % _TOKEN for edge in patch):
        raise BankError(
            f"patch_size={list(patch)} must have three multiples of {_TOKEN}, the edge of the "
            f"tokens of {kind}"
        )
    return f"{_PRIMUS}:{kind}", {"patch_embed_size": [_TOKEN] * 3, "input_shape": list(patch)}


def _network(name: str, trusted: bool) -> str:
    package, _, kind = name.rpartition(".")
    if package.partition(".")[0] in (_UNET.partition(".")[0], "") and kind in _NETWORKS:
        return f"{_UNET}:{kind}"  # modules were moved between releases
    if trusted:
        return f"{package}:{kind}"
    raise BankError(
        f"plans.json names the network class {name!r}, which was refused: importing what a file "
        f"names runs code. Allowed are {', '.join(_NETWORKS)} of dynamic_network_architectures. "
        "Where you trust the file's origin, pass trusted=True"
    )


def _layer_class(key: str, name: Any, trusted: bool) -> Any:
    package, _, kind = str(name).rpartition(".")
    if (package == "torch.nn" or package.startswith("torch.nn.modules")) and kind in vars(nn):
        found = getattr(nn, kind)
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    if package == _RESIDUAL and kind in _BLOCKS:
        return getattr(importlib.import_module(_RESIDUAL), kind)
    if trusted and package:
        return resolve_factory(f"{package}:{kind}", [package])
    raise BankError(
        f"plans.json names {name!r} for {key}, which was refused: importing what a file names "
        f"runs code. Allowed are the layers of torch.nn and {', '.join(_BLOCKS)}. Where you "
        "trust the file's origin, pass trusted=True"
    )


def _from_old_keys(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the network of plans from before nnU-Net 2.3, which named its parts singly."""
    kind = configuration.get("UNet_class_name")
    missing = [key for key in _OLD_KEYS if key not in configuration]
    if kind not in _NETWORKS or missing:
        why = f"UNet_class_name={kind!r} of the older form is not one of {', '.join(_NETWORKS)}"
        why = f"{missing} of the older form are missing" if missing else why
        raise BankError(f"plans.json describes no architecture, and {why}")
    per_stage = configuration["n_conv_per_stage_encoder"]
    n_stages = len(per_stage)
    base, most = (configuration[key] for key in _OLD_KEYS[:2])
    return {
        "network_class_name": f"{_UNET}.{kind}",
        "arch_kwargs": {
            "n_stages": n_stages,
            "features_per_stage": [min(base * 2**i, most) for i in range(n_stages)],
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            _NETWORKS[kind]: per_stage,
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            **_layers(len(configuration["patch_size"])),
            "dropout_op": None,
            "dropout_op_kwargs": None,
        },
    }
