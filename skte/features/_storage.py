"""Features of one case as bytes, for files: plain arrays behind a checked header.

Layout: magic, version and length of the header (little-endian), a JSON header with types
and shapes of the arrays, the arrays one after the other, and the SHA-256 of all before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from skte.features._set import CaseFeatures, LayerSample

_T = TypeVar("_T")

_MAGIC = b"SKTEFEAT"
_VERSION = 2
_PREFIX = struct.Struct("<8sIQ")
_DIGEST_SIZE = hashlib.sha256().digest_size
# Parsed JSON takes some fifty times the memory of its text: this bounds a hostile one.
_MOST_HEADER = 2**20
_MOST_EDGE = 2**40
_DTYPES = {
    dtype.str
    for kind in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    for dtype in (np.dtype(kind), np.dtype(kind).newbyteorder())
}
_SAMPLE = {"X": 2, "y": 1, "X_case": 2}  # axes of each array, in the order of the file


def pack_case(case: CaseFeatures) -> bytes:
    """Turn the features of a case into bytes."""
    where = f"case {case.case_id!r}"
    samples = dict(case.layers)
    if case.posterior is not None:
        samples["source posterior"] = case.posterior
    arrays = [
        array for name, sample in samples.items() for array in _arrays(sample, f"{where}, {name}")
    ]
    header = {
        "case_id": _checked(case.case_id, str, "case_id"),
        "no_posterior": _checked(case.no_posterior, str, "no_posterior"),
        "layers": [_checked(name, str, "a layer's name") for name in case.layers],
        "posterior": case.posterior is not None,
    }
    try:
        header["info"] = _encode(dict(case.info), "info")
    except RecursionError as error:
        raise ValueError(f"info of {where} is nested too deeply to be stored.") from error
    header["arrays"] = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    if len(text) > _MOST_HEADER:
        raise ValueError(f"info and names of {where} take {len(text)} bytes: too many to store.")
    parts = [_PREFIX.pack(_MAGIC, _VERSION, len(text)), text, *(a.tobytes() for a in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()])


def unpack_case(data: bytes | memoryview) -> CaseFeatures:
    """Turn bytes of `pack_case` back into the features of a case."""
    try:
        return _unpack(memoryview(data))
    except (ValueError, RecursionError, OverflowError) as error:
        reason = str(error).rstrip(".") or "the header is nested too deeply"
        raise ValueError(
            f"Stored features cannot be read: {reason}. Extract them again."
        ) from error


def _arrays(sample: LayerSample, where: str) -> Iterator[NDArray[Any]]:
    for name, n_axes in _SAMPLE.items():
        array = np.asarray(getattr(sample, name))
        if array.dtype.str not in _DTYPES or array.ndim != n_axes:
            raise ValueError(
                f"{name} of {where} cannot be stored: it must have {n_axes} axes and hold "
                f"booleans, integers or floats, got {array.ndim} axes of {array.dtype}."
            )
        yield array


def _encode(value: Any, where: str) -> Any:
    """JSON for a value of ``info``; tags distinguish tuples and dicts from lists."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        items = [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {str(k): _encode(v, f"{where}[{k!r}]") for k, v in value.items()}}
    raise ValueError(
        f"{where} cannot be stored: it is a {type(value).__name__}; use numbers, text, None, "
        "or lists, tuples and text-keyed dicts of them."
    )


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["tuple"]:
        return tuple(_decode(item) for item in _checked(value["tuple"], list, "a tuple"))
    if list(value) == ["dict"]:
        return {k: _decode(v) for k, v in _checked(value["dict"], dict, "a dict").items()}
    raise ValueError("info in the header is malformed")


def _unpack(data: memoryview) -> CaseFeatures:
    header, body = _split(data)
    arrays = iter(_read_arrays(_field(header, "arrays", list), body))
    layers: dict[str, LayerSample] = {}
    for name in _field(header, "layers", list):
        if _checked(name, str, "a layer's name") in layers:
            raise ValueError(f"the header lists layer {name!r} twice")
        layers[name] = _unpack_sample(arrays)
    if not isinstance(header.get("posterior"), bool):
        raise ValueError("posterior must be true or false")
    head = _unpack_sample(arrays) if header["posterior"] else None
    if next(arrays, None) is not None:
        raise ValueError("the header lists arrays that belong to no layer")
    info = _checked(_decode(header.get("info")), dict, "info")
    reason = _field(header, "no_posterior", str)
    return CaseFeatures(_field(header, "case_id", str), layers, head, info, reason)


def _split(data: memoryview) -> tuple[dict[str, Any], memoryview]:
    """Header and arrays of data whose checksum holds."""
    if len(data) < _PREFIX.size + _DIGEST_SIZE:
        raise ValueError("they are truncated")
    magic, version, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("they do not start as stored features do")
    if version != _VERSION:  # before the checksum, whose place another version may change
        raise ValueError(f"they have format version {version}, this skte reads {_VERSION}")
    content = data[:-_DIGEST_SIZE]
    if hashlib.sha256(content).digest() != bytes(data[-_DIGEST_SIZE:]):
        raise ValueError("they are truncated or were changed (the checksum does not fit)")
    start = _PREFIX.size
    if length > min(_MOST_HEADER, len(content) - start):
        raise ValueError(f"a header of {length} bytes is too long")
    header = json.loads(bytes(content[start : start + length]))
    return _checked(header, dict, "the header"), content[start + length :]


def _read_arrays(specifications: list[Any], body: memoryview) -> list[NDArray[Any]]:
    arrays = []
    start = 0
    for specification in specifications:
        if len(_checked(specification, list, "an array")) != 2:
            raise ValueError("an array in the header is malformed")
        kind, shape = specification
        if _checked(kind, str, "a type") not in _DTYPES:
            raise ValueError(f"an array has the unknown type {kind[:40]!r}")
        edges = [_checked(edge, int, "a shape") for edge in _checked(shape, list, "a shape")]
        if len(edges) > 2 or not all(0 <= edge <= _MOST_EDGE for edge in edges):
            raise ValueError("an array has an impossible shape")
        dtype = np.dtype(kind)
        stop = start + math.prod(edges) * dtype.itemsize
        if stop > len(body):  # before anything is allocated
            raise ValueError(f"arrays of shape {tuple(edges)} are larger than the data")
        # A copy: writable, aligned, and not holding on to the whole file.
        arrays.append(np.frombuffer(body[start:stop], dtype).reshape(edges).copy())
        start = stop
    if start != len(body):
        raise ValueError("there are bytes that belong to no array")
    return arrays


def _unpack_sample(arrays: Iterator[NDArray[Any]]) -> LayerSample:
    found = dict(zip(_SAMPLE, arrays, strict=False))
    for name, n_axes in _SAMPLE.items():
        if name not in found or found[name].ndim != n_axes:
            raise ValueError(f"array {name} is missing or has another number of axes")
    return LayerSample(**found)


def _field(mapping: dict[str, Any], key: str, kind: type[_T]) -> _T:
    return _checked(mapping.get(key), kind, key)


def _checked(value: Any, kind: type[_T], what: str) -> _T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{what} must be a {kind.__name__}, got a {type(value).__name__}")
    return value
