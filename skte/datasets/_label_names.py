"""Names of label ids, in either way of writing them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from numbers import Integral

__all__ = ["parse_label_names", "parse_labels"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_LARGEST = 2**63 - 1


def parse_labels(labels: object) -> tuple[dict[int, str], int | None, list[str]]:
    """Names of label ids, the ignore label, and problems, of a ``dataset.json``.

    Both ``{"0": "background"}`` (MSD, nnU-Net v1) and ``{"background": 0}`` (nnU-Net
    v2, where a region lists several ids) are read. An id in several regions takes the
    name of the smallest.
    """
    if not isinstance(labels, Mapping) or not labels:
        wanted = 'must be an object such as {"background": 0, ...}'
        return {}, None, [f"dataset.json: key 'labels' {wanted}"]
    members, problems = _members(labels)
    ignore = members.pop("ignore", None)
    if ignore and len(ignore) > 1:
        problems.append(f"label 'ignore' must be one integer, not {ignore}")
    problems = [f"dataset.json: {problem}" for problem in problems]
    return _names(members), ignore[0] if ignore else None, problems


def parse_label_names(names: object) -> tuple[dict[int, str], list[str]]:
    """Names of label ids, and problems, of a case in memory.

    Parameters
    ----------
    names : mapping or None
        From id to name, or from name to id (or ids) as nnU-Net writes it.

    Returns
    -------
    names : dict of int to str
        Sorted by id.
    problems : list of str
        What is no id.
    """
    if names is None:
        return {}, []
    if not isinstance(names, Mapping):
        return {}, [
            f"label_names must map ids to names ({{1: 'liver'}}), got {reprlib.repr(names)}"
        ]
    members, problems = _members(names)
    return _names(members), [f"label_names: {problem}" for problem in problems]


def _members(labels: Mapping[object, object]) -> tuple[dict[str, list[int]], list[str]]:
    """Ids of each name, and what is wrong."""
    members: dict[str, list[int]] = {}
    problems = []
    for key, value in labels.items():
        # MSD writes id -> name, nnU-Net v2 name -> id.
        swap = isinstance(value, str) and _id(key) is not None
        name, given = (value, key) if swap else (key, value)
        ids = [_id(one) for one in (given if isinstance(given, list) else [given])]
        if ids and None not in ids:
            members.setdefault(str(name), []).extend(i for i in ids if i is not None)
        else:
            problems.append(
                f"label {reprlib.repr(key)} must map to an integer (of 64 bits) or a list of "
                f"them, not {reprlib.repr(value)}"
            )
    return members, problems


def _names(members: Mapping[str, list[int]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, ids in sorted(members.items(), key=lambda item: -len(item[1])):
        names.update(dict.fromkeys(ids, name))  # smaller regions come later and win
    return dict(sorted(names.items()))


def _id(value: object) -> int | None:
    """Return a label id given as an integer or its text; None for anything else."""
    if isinstance(value, str):  # not isdigit: it takes what int() refuses
        value = int(value) if _INTEGER.fullmatch(value.strip()) else None
    if not isinstance(value, Integral) or isinstance(value, bool):
        return None
    return int(value) if abs(int(value)) <= _LARGEST else None
