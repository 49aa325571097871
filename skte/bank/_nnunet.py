"""From a results folder of nnU-Net v2 to the fields of an entry."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from skte._text import clean_text
from skte.bank._containers import pick_state_dict
from skte.bank._nnunet_plans import NNUNetPlan, read_plan
from skte.bank._nnunet_transform import NNUNetPreprocessing
from skte.bank._parse import check_inside, parse_file
from skte.bank._weights import read_checkpoint
from skte.exceptions import BankError

__all__ = ["is_nnunet_folder", "nnunet_fields"]

_FOLD = re.compile(r"fold_(\d+|all)")
_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
# What wrappers leave in front of every key.
_PREFIXES = ("module.", "_orig_mod.")
_KEY = "network_weights"
_DESCRIPTIONS = ("plans.json", "dataset.json")


def is_nnunet_folder(folder: Path) -> bool:
    """Whether a folder looks like one of nnU-Net's trained models, be it without its folds."""
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
    """Read the fields of a `BankEntry` from a results folder of nnU-Net v2.

    Parameters
    ----------
    folder : path-like
        With ``plans.json``, ``dataset.json`` and ``fold_*``.
    name, fold, configuration, checkpoint, trusted, extra_roots
        As for `BankEntry.from_nnunet`.

    Returns
    -------
    dict of str to object
        Arguments of `BankEntry`.

    Raises
    ------
    BankError
        If anything is missing, not understood or refused; the message names the folder.
    """
    folder = Path(folder)
    try:
        _check_folder(folder)
        weights = _weights_file(folder, fold, checkpoint)
        check_inside(folder, [*_DESCRIPTIONS, weights], extra_roots)
        return _fields(folder, name, configuration, weights, trusted)
    except BankError as error:
        raise BankError(f"nnU-Net folder {folder}: {clean_text(error)}") from error
    except (
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
    ) as error:  # a value of a kind nobody writes
        raise BankError(
            f"nnU-Net folder {folder}: plans.json or dataset.json is not of the form that nnU-Net "
            f"writes ({type(error).__name__}: {clean_text(error, 300)}); copy them again from "
            "where it was trained"
        ) from error


def _fields(
    folder: Path,
    name: str | None,
    configuration: str | None,
    weights: Path,
    trusted: bool,
) -> dict[str, Any]:
    if importlib.util.find_spec("dynamic_network_architectures") is None:
        raise BankError(
            "its networks come from the package dynamic-network-architectures, which is not "
            "installed: pip install --no-deps 'dynamic-network-architectures>=0.4'"
        )
    plans = parse_file(folder / "plans.json", "Plans")
    dataset = parse_file(folder / "dataset.json", "Description")
    channels = _channel_names(dataset)
    saved = read_checkpoint(weights, trusted=trusted, lazily=True)
    plan = read_plan(
        plans, configuration or _configuration(folder, plans, saved), len(channels), trusted=trusted
    )
    state, prefix = _state_dict(saved, weights)
    n_inputs, n_outputs = _ends(state, weights)
    if n_inputs != len(channels):
        raise BankError(
            f"the network takes {n_inputs} channels, but dataset.json names {len(channels)} "
            f"({', '.join(channels)}); a cascade's further stage cannot be used, of other "
            "networks mend dataset.json"
        )
    labels = dataset.get("labels", {})
    regions = isinstance(labels, Mapping) and any(isinstance(v, list) for v in labels.values())
    steps: list[Any] = ["ToCanonical"] if plan.reorient else []
    return {
        "name": name or f"{plan.dataset}-{plan.configuration}-{weights.parent.name}",
        "factory": plan.architecture.factory,
        "arguments": {
            **plan.architecture.arguments,
            "input_channels": n_inputs,
            "num_classes": n_outputs,
            "deep_supervision": False,
        },
        "weights": weights,
        "state_key": _KEY,
        "prefix": prefix,
        "window_size": plan.patch_size,
        "spatial_dims": len(plan.patch_size),
        "in_channels": n_inputs,
        "preprocessing": [*steps, NNUNetPreprocessing(**plan.preprocessing)],
        "activation": "sigmoid" if regions else "softmax",
        "trusted": trusted,
        "trusted_packages": [plan.architecture.factory.partition(":")[0]] if trusted else [],
        "provenance": _provenance(plan, saved, weights, channels, labels),
    }


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
    return sorted(found, key=lambda fold: (fold == "fold_all", len(fold), fold))


def _weights_file(folder: Path, fold: int | str | None, checkpoint: str | None) -> Path:
    folds = _folds(folder)
    chosen = folds[0] if fold is None else f"fold_{str(fold).removeprefix('fold_')}"
    if chosen not in folds:
        raise BankError(f"there is no {chosen}; it has {', '.join(folds)}")
    if checkpoint is not None and Path(checkpoint).name != checkpoint:
        raise BankError(f"checkpoint={checkpoint!r} must be the name of a file in {chosen}")
    names = _CHECKPOINTS if checkpoint is None else (checkpoint,)
    found = [folder / chosen / name for name in names if (folder / chosen / name).is_file()]
    if not found:
        there = sorted(p.name for p in (folder / chosen).glob("*.pth"))
        raise BankError(
            f"{chosen} has no {' or '.join(names)}"
            + (f"; name one of checkpoint={there}" if there else "; the training did not finish")
        )
    return found[0].absolute()


def _configuration(folder: Path, plans: Any, saved: Any) -> str:
    """Tell the configuration by the folder's name, or by what the trainer noted."""
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


def _state_dict(saved: Any, weights: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Return the weights by the network's own keys, and what stood in front of them."""
    state = pick_state_dict(saved, weights, _KEY, "")
    prefix = next((p for p in _PREFIXES if all(key.startswith(p) for key in state)), "")
    return {key.removeprefix(prefix): value for key, value in state.items()}, prefix


def _ends(state: Mapping[str, torch.Tensor], weights: Path) -> tuple[int, int]:
    """Channels that go in and come out, as the weights have them."""
    first = next((t for t in state.values() if t.ndim >= 4), None)
    heads = [t for key, t in state.items() if re.search(r"seg_layers\.\d+\.weight$", key)]
    if first is None or not heads:
        raise BankError(
            f"{weights.parent.name}/{weights.name} holds no network of nnU-Net's own kind (there "
            "are no decoder.seg_layers): a trainer of its own may have built another one. Use "
            f"BankEntry(name, factory, weights=..., state_key={_KEY!r})"
        )
    return first.shape[1], heads[-1].shape[0]


def _provenance(
    plan: NNUNetPlan, saved: Mapping[str, Any], weights: Path, channels: list[str], labels: Any
) -> dict[str, Any]:
    return {
        "format": "nnU-Net v2",
        "dataset": plan.dataset,
        "configuration": plan.configuration,
        "fold": weights.parent.name.removeprefix("fold_"),
        "checkpoint": weights.name,
        "trainer": str(saved.get("trainer_name", "unknown")),
        "channels": channels,
        "labels": labels,
        "spacing": list(plan.preprocessing["spacing"]),
    }
