"""State dicts from ``.safetensors`` files, which hold numbers and nothing that runs.

The format is a length, a header in JSON, and the bytes of the tensors one after the other.
It is read here, not by the package of that name, for three reasons: that package maps the file
into memory, so that a process dies where the file is cut off later; it keeps the last of two
tensors of one name; and booleans other than 0 and 1 pass.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import torch

from skte._memory import memory_problem
from skte._text import clean_text
from skte.bank._checkpoint import MalformedError, check_shape

__all__ = ["read_safetensors"]

_AGAIN = "copy or download it again"
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
_JSON_SHARE = 50  # memory that parsed JSON takes, as a multiple of its text
_DTYPES = {
    name: getattr(torch, dtype)
    for name, dtype in {
        "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16",
        "U32": "uint32", "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16",
        "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    }.items()
    if hasattr(torch, dtype)
}  # fmt: skip


def read_safetensors(path: Path, *, values: bool = True) -> dict[str, torch.Tensor]:
    """Read all tensors of a ``.safetensors`` file.

    Parameters
    ----------
    path : Path
        The file.
    values : bool, default=True
        Otherwise tensors are on the meta device: they have a shape and a type, and take no
        memory.

    Returns
    -------
    dict of str to Tensor
        By name, on the CPU.

    Raises
    ------
    MalformedError
        If the file is cut off, its header claims what is not there, or it would take more
        memory than it may.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        places, start = _read_header(file, size)
        problem = memory_problem(size - start, size)
        if problem:
            raise MalformedError(f"the file {problem}", "")
        if not values:
            return {name: torch.empty(s, dtype=t, device="meta") for name, t, s, _ in places}
        return {name: _read(file, t, s, start + at) for name, t, s, at in places}


_Place = tuple[str, torch.dtype, list[int], int]  # name, type, shape, offset


def _read_header(file: IO[bytes], size: int) -> tuple[list[_Place], int]:
    """Parse the header: each tensor, and where the bytes of tensors begin."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, _LONGEST_HEADER):
        raise MalformedError(
            f"the header claims {length} bytes, but the file has {size}; it is truncated or "
            "not a safetensors file",
            _AGAIN,
        )
    problem = memory_problem(_JSON_SHARE * length, size)
    if problem:
        raise MalformedError(f"the header of the file {problem}", "")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise MalformedError(
            f"the header is truncated, corrupted or not that of a safetensors file "
            f"({clean_text(error, 200)})",
            _AGAIN,
        ) from error
    if type(header) is not dict:
        raise MalformedError("the header is not that of a safetensors file", _AGAIN)
    header.pop("__metadata__", None)
    places = [_place(name, fields) for name, fields in header.items()]
    _check_places([place for place, _ in places], [stop for _, stop in places], size - 8 - length)
    return [place for place, _ in places], 8 + length


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _place(name: str, fields: Any) -> tuple[_Place, int]:
    match fields:
        case {"dtype": str() as kind, "shape": list() as shape, "data_offsets": [start, stop]}:
            pass
        case _:
            raise MalformedError(
                f"the header does not describe tensor {clean_text(name, 100)}", _AGAIN
            )
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise MalformedError(
            f"tensor {clean_text(name, 100)} is of the type {clean_text(kind, 40)!r}, which "
            "torch cannot hold as plain numbers",
            "",
        )
    if type(start) is not int or type(stop) is not int or start < 0:
        raise MalformedError(f"tensor {clean_text(name, 100)} has no place in the file", _AGAIN)
    if check_shape(shape, dtype.itemsize) != stop - start:
        raise MalformedError(
            f"tensor {clean_text(name, 100)} has another size than its type and shape", _AGAIN
        )
    return (name, dtype, shape, start), stop


def _check_places(places: list[_Place], stops: list[int], n_bytes: int) -> None:
    """Tensors fill the file without gap or overlap, as the format demands."""
    at = 0
    for start, stop in sorted((p[3], stop) for p, stop in zip(places, stops, strict=True)):
        if start != at:
            raise MalformedError("tensors overlap in the file, or leave gaps", _AGAIN)
        at = stop
    if at != n_bytes:
        raise MalformedError(
            f"tensors take {at} bytes, but the file has {n_bytes}; it is truncated or corrupted. "
            "Copy or download it again"
        )


def _read(file: IO[bytes], dtype: torch.dtype, shape: list[int], start: int) -> torch.Tensor:
    tensor = torch.empty(shape, dtype=dtype, device="cpu")
    raw = tensor.view(-1).view(torch.uint8) if tensor.numel() else torch.empty(0)
    file.seek(start)
    if tensor.numel() and file.readinto(raw.numpy()) < raw.numel():  # type: ignore[attr-defined]
        raise MalformedError("the file was cut off while it was read", _AGAIN)
    if dtype == torch.bool:
        raw.clamp_(max=1)  # code that counts and indexes by truth relies on 0 and 1
    return tensor
