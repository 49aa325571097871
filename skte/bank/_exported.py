"""From a program of ``torch.export`` to the fields of an entry."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from skte.exceptions import BankError

SUFFIX = ".pt2"


def exported_fields(
    path: str | os.PathLike[str], *, name: str | None = None, trusted: bool = False
) -> dict[str, Any]:
    """Read the fields of a `BankEntry` from a ``.pt2`` file."""
    path = Path(path).absolute()
    if not path.is_file():
        raise BankError(f"Exported program {path}: there is no such file.")
    if not trusted:
        raise BankError(
            f"Exported program {path} was refused: torch evaluates text of such a file and "
            "unpickles parts of it, which can run code. Where you trust its origin, pass "
            "trusted=True; or save the network's state_dict() with torch.save."
        )
    shape = _input_shape(_load(path), path)
    return {
        "name": name or path.stem,
        "factory": exported_network,
        "arguments": {"path": path},
        "window_size": shape[2:],
        "spatial_dims": len(shape) - 2,
        "in_channels": shape[1],
        "trusted": True,
        "provenance": {"format": "torch.export"},
    }


def exported_network(path: str | os.PathLike[str]) -> nn.Module:
    """Load an exported program as modules under their own names."""
    program = _load(Path(path))
    with warnings.catch_warnings():  # about torch's own code
        warnings.simplefilter("ignore", FutureWarning)
        network: nn.Module = torch.export.unflatten(program)
    return network


def _load(path: Path) -> torch.export.ExportedProgram:
    try:
        return torch.export.load(str(path))
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise BankError(
            f"Exported program {path}: the file is truncated, of another version of torch, or no "
            f"file of torch.export.save ({type(error).__name__}: {first:.200})."
        ) from error


def _input_shape(program: torch.export.ExportedProgram, path: Path) -> tuple[int, ...]:
    names = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.name in names[:1]:
            shape = tuple(node.meta["val"].shape)
            if len(shape) in (4, 5) and all(isinstance(edge, int) for edge in shape[1:]):
                return shape
    raise BankError(
        f"Exported program {path}: its first input is not an image (n_images, n_channels, x, y[, "
        "z]) of a fixed size; export it with an example of one window."
    )
