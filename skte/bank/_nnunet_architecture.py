"""The network that nnU-Net's plans name: class and arguments, by an allow-list."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from skte.bank._factory import resolve_factory
from skte.exceptions import BankError

__all__ = ["Architecture", "read_architecture"]

_UNET = "dynamic_network_architectures.architectures.unet"
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


class Architecture(NamedTuple):
    """A network's factory and its arguments, without channels in and out."""

    factory: str
    arguments: dict[str, Any]


def read_architecture(configuration: Mapping[str, Any], *, trusted: bool = False) -> Architecture:
    """Read class and arguments of a configuration's network.

    Parameters
    ----------
    configuration : mapping
        Of nnU-Net's plans. Older ones have no ``architecture``: their arguments are
        derived from the keys they have.
    trusted : bool, default=False
        Whether classes outside the allow-list may be named.

    Returns
    -------
    Architecture
        Networks are named, classes of layers resolved within ``torch.nn``.

    Raises
    ------
    BankError
        If a class is not allowed, or the description is incomplete.
    """
    described = configuration.get("architecture")
    if described is None:
        described = _from_old_keys(configuration)
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
    return Architecture(_network(str(described.get("network_class_name")), trusted), arguments)


def _network(name: str, trusted: bool) -> str:
    package, _, kind = name.rpartition(".")
    if package.partition(".")[0] == _UNET.partition(".")[0] and kind in _NETWORKS:
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
        raise BankError(
            "plans.json describes no architecture, and "
            + (
                f"{missing} of the older form are missing"
                if missing
                else f"UNet_class_name={kind!r} of the older form is not one of "
                f"{', '.join(_NETWORKS)}"
            )
        )
    per_stage = configuration["n_conv_per_stage_encoder"]
    n_axes = len(configuration["patch_size"])
    n_stages = len(per_stage)
    base, most = (configuration[key] for key in _OLD_KEYS[:2])
    return {
        "network_class_name": f"{_UNET}.{kind}",
        "arch_kwargs": {
            "n_stages": n_stages,
            "features_per_stage": [min(base * 2**i, most) for i in range(n_stages)],
            "conv_op": f"torch.nn.Conv{n_axes}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            _NETWORKS[kind]: per_stage,
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{n_axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    }
