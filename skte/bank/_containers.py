"""Find the state dict among what training code saves around it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from skte.exceptions import BankError

__all__ = ["pick_state_dict", "state_dict_places"]


def pick_state_dict(
    checkpoint: Any, path: Path, state_key: str | None, prefix: str
) -> dict[str, torch.Tensor]:
    """Take the state dict out of a checkpoint and strip a prefix from its keys.

    Parameters
    ----------
    checkpoint : object
        What the file held.
    path : Path
        The file, for messages.
    state_key : str, optional
        Dotted path of the state dict within the checkpoint.
    prefix : str
        Stripped from the keys; keys without it are left out.

    Returns
    -------
    dict of str to Tensor
        The state dict.

    Raises
    ------
    BankError
        If there is no state dict there; the message says where there are some.
    """
    found = _follow(checkpoint, path, state_key) if state_key else checkpoint
    if not _is_state_dict(found):
        place = f" under state_key={state_key!r}" if state_key else ""
        raise BankError(
            f"Weights {path}: no state dict{place}, but {_spoken(found)}. {_advice(checkpoint)}"
        )
    if not prefix:
        return dict(found)
    state = {
        key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)
    }
    if not state:
        starts = sorted({key.partition(".")[0] + "." for key in found})
        raise BankError(
            f"Weights {path}: no key starts with prefix={prefix!r}; keys start with "
            f"{', '.join(map(repr, starts[:8]))}."
        )
    return state


def state_dict_places(checkpoint: Any) -> list[str]:
    """Name the places of state dicts within a checkpoint; none if it is one itself."""
    return [] if _is_state_dict(checkpoint) else list(_state_dicts(checkpoint))


def _follow(checkpoint: Any, path: Path, state_key: str) -> Any:
    """Follow a dotted path; keys that hold dots themselves are found as well."""
    value, rest = checkpoint, state_key
    while rest:
        head = next((cut for cut in _heads(rest) if _has(value, cut)), None)
        if head is None:
            keys = [str(key) for key in value] if isinstance(value, Mapping) else []
            near = difflib.get_close_matches(rest.partition(".")[0], keys, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
            raise BankError(
                f"Weights {path}: state_key={state_key!r} leads nowhere{hint} {_advice(checkpoint)}"
            )
        value, rest = value[head], rest[len(head) + 1 :]
    return value


def _heads(rest: str) -> Iterator[str]:
    parts = rest.split(".")
    for n in range(len(parts), 0, -1):
        yield ".".join(parts[:n])


def _has(value: Any, key: str) -> bool:
    return isinstance(value, Mapping) and key in value


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(item, torch.Tensor) for item in value.values())
        and all(
            isinstance(key, str)
            and (isinstance(item, torch.Tensor) or key.endswith("_extra_state"))
            for key, item in value.items()
        )
    )


def _state_dicts(value: Any, place: str = "", depth: int = 3) -> Iterator[str]:
    if place and _is_state_dict(value):
        yield place
    elif isinstance(value, Mapping) and depth:
        for key, item in value.items():
            yield from _state_dicts(item, f"{place}.{key}" if place else str(key), depth - 1)


def _advice(checkpoint: Any) -> str:
    places = list(_state_dicts(checkpoint))
    if places:
        return f"Pass state_key={' or '.join(map(repr, places[:5]))}."
    return "Save network.state_dict() with torch.save and name that file."


def _spoken(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = [str(key) for key in value]
        more = ", ..." if len(keys) > 8 else ""
        return f"a dict with keys {', '.join(keys[:8])}{more}" if keys else "an empty dict"
    return f"a {type(value).__name__}"
