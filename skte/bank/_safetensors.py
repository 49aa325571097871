"""State dicts from ``.safetensors`` files, which hold numbers and nothing that runs."""

from __future__ import annotations

from pathlib import Path

import torch

from skte.exceptions import BankError

__all__ = ["read_safetensors"]

_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a ``.safetensors`` file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict of str to Tensor
        By name, on the CPU.

    Raises
    ------
    BankError
        If the package is missing, the file is cut off, or its header claims what is not
        there.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise BankError(
            f"Reading {path} needs the package safetensors: pip install skte[safetensors]."
        ) from error
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, _LONGEST_HEADER):
        raise BankError(
            f"Weights {path}: the header claims {length} bytes, but the file has {size}; it is "
            "truncated or no safetensors file. Copy or download it again."
        )
    try:
        tensors: dict[str, torch.Tensor] = load_file(path, device="cpu")
    except Exception as error:
        raise BankError(
            f"Weights {path}: the file is truncated, corrupted or no safetensors file "
            f"({type(error).__name__}: {error}). Copy or download it again."
        ) from error
    return tensors
