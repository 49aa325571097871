"""Keys, entries and records of the feature cache: their forms as bytes, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from skte.features import CaseFeatures, pack_case, unpack_case

__all__ = [
    "MOST_RECORD",
    "make_key",
    "open_entry",
    "open_record",
    "seal_entry",
    "seal_record",
]

#: Part of every key. Raise it whenever the same recipe on the same case gives other
#: features (sampler, windows, interpolation), or the files of features change their form.
FORMAT_VERSION = 1

#: Bytes of a record.
MOST_RECORD = 2**20


def make_key(**parts: Any) -> str:
    """Make the key of what a set of parts determines.

    Parameters
    ----------
    **parts
        Numbers, text, None, and lists, tuples and text-keyed dicts of them. Lists and
        tuples are alike, 1 and 1.0 are not.

    Returns
    -------
    str
        64 hexadecimal digits: SHA-256 of the parts and of the cache's format, the same
        in every process and on every machine.

    Raises
    ------
    TypeError
        If a part has no stable form; the message names it.

    Examples
    --------
    >>> from skte.extraction import make_key
    >>> make_key(entry="ab12", window=(64, 64)) == make_key(window=[64, 64], entry="ab12")
    True
    """
    plain = {name: _plain(value, name) for name, value in parts.items()}
    return _digest({"format": FORMAT_VERSION, "parts": plain})


def seal_entry(key: str, case: CaseFeatures) -> bytes:
    """Return the bytes of an entry; its key stands in it, so that a renamed file is noticed."""
    return _entry_head(key) + pack_case(case)


def open_entry(key: str, data: bytes) -> CaseFeatures:
    """Return the features of an entry's bytes; a ValueError for what `seal_entry` did not make."""
    head = _entry_head(key)
    if not data.startswith(head):
        raise ValueError("it is not the entry that its name says")
    return unpack_case(memoryview(data)[len(head) :])


def seal_record(key: str, record: Mapping[str, Any]) -> bytes:
    """Return the bytes of a record.

    Parameters
    ----------
    key : str
        Its key.
    record : mapping
        What JSON can hold, text-keyed.

    Returns
    -------
    bytes
        JSON with a checksum.

    Raises
    ------
    TypeError
        If JSON cannot hold the record.
    ValueError
        If it takes more than 1 MiB.
    """
    plain = _plain(record, "record")
    content = {"key": key, "record": plain, "sha256": _digest([key, plain])}
    data = json.dumps(content, sort_keys=True).encode()
    if len(data) > MOST_RECORD:
        raise ValueError(f"record takes {len(data)} bytes, and {MOST_RECORD} are the most.")
    return data


def open_record(key: str, data: bytes) -> dict[str, Any]:
    """Return the record in its bytes; a ValueError for what `seal_record` did not make."""
    try:
        content = json.loads(data)
        record = content["record"]
        sound = content["key"] == key and content["sha256"] == _digest([key, record])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("it is truncated or was changed") from error
    if not sound or not isinstance(record, dict):
        raise ValueError("its checksum does not fit, or it is not the record that its name says")
    return record


def _entry_head(key: str) -> bytes:
    return f"skte cache entry {key}\n".encode()


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, where: str) -> Any:
    """Check that JSON holds a value; numpy's numbers become Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which has no stable form: use numbers, text, "
        "None, or lists, tuples and text-keyed dicts of them."
    )
