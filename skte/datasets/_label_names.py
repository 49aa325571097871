"""Names of label ids, in either way of writing them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from numbers import Integral

from skte.datasets._problem import Flaw

__all__ = ["label_id", "label_members", "names_of", "parse_label_names", "parse_labels"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_LARGEST = 2**63 - 1


def parse_labels(labels: object) -> tuple[dict[str, list[int]], int | None, list[Flaw]]:
    """Ids of each label, the ignore label, and what is wrong, of a ``dataset.json``.

    Both ``{"0": "background"}`` (MSD, nnU-Net v1) and ``{"background": 0}`` (nnU-Net
    v2, where a region lists several ids) are read.
    """
    if not isinstance(labels, Mapping) or not labels:
        wanted = 'write an object such as {"background": 0, ...}'
        return {}, None, [("dataset.json: key 'labels' names no label", wanted)]
    members, flaws = label_members(labels)
    ignore = members.pop("ignore", None)
    if ignore and len(ignore) > 1:
        flaws.append((f"label 'ignore' must be one integer, not {ignore}", "name a single id"))
    flaws = [(f"dataset.json: {what}", remedy) for what, remedy in flaws]
    return members, ignore[0] if ignore else None, flaws


def parse_label_names(names: object) -> tuple[dict[int, str], list[Flaw]]:
    """Names of label ids, and what is wrong, of a case in memory.

    Parameters
    ----------
    names : mapping or None
        From id to name, or from name to id (or ids) as nnU-Net writes it.

    Returns
    -------
    names : dict of int to str
        Sorted by id.
    flaws : list of (str, str)
        What is no id, and what to do.
    """
    if names is None:
        return {}, []
    if not isinstance(names, Mapping):
        what = f"label_names must map ids to names ({{1: 'liver'}}), got {reprlib.repr(names)}"
        return {}, [(what, "give a mapping")]
    members, flaws = label_members(names)
    return names_of(members), [(f"label_names: {what}", remedy) for what, remedy in flaws]


def label_members(labels: Mapping[object, object]) -> tuple[dict[str, list[int]], list[Flaw]]:
    """Ids of each name, and what is wrong."""
    members: dict[str, list[int]] = {}
    flaws: list[Flaw] = []
    for key, value in labels.items():
        # MSD writes id -> name, nnU-Net v2 name -> id.
        swap = isinstance(value, str) and label_id(key) is not None
        name, given = (value, key) if swap else (key, value)
        ids = [label_id(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
        if ids and None not in ids:
            members.setdefault(str(name), []).extend(i for i in ids if i is not None)
        else:
            flaws.append(
                (
                    f"label {reprlib.repr(key)} must map to an integer (of 64 bits) or a list "
                    f"of them, not {reprlib.repr(value)}",
                    "give its id",
                )
            )
    return members, flaws


def names_of(members: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """Names by id; an id in several regions takes the name of the smallest."""
    names: dict[int, str] = {}
    for name, ids in sorted(members.items(), key=lambda item: -len(item[1])):
        names.update(dict.fromkeys(ids, name))  # smaller regions come later and win
    return dict(sorted(names.items()))


def label_id(value: object) -> int | None:
    """Return a label id given as an integer or its text; None for anything else."""
    if isinstance(value, str):  # not isdigit: it takes what int() refuses
        value = int(value) if _INTEGER.fullmatch(value.strip()) else None
    if not isinstance(value, Integral) or isinstance(value, bool):
        return None
    return int(value) if abs(int(value)) <= _LARGEST else None
