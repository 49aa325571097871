"""Giving the ids of a label map other numbers, while it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchio.data.io import read_image

__all__ = ["Relabeling", "RelabelingReader"]

_TABLE_SIZE = 65_536  # ids further apart than this are looked up by sorting


@dataclass(frozen=True)
class Relabeling:
    """A function of class ids.

    Parameters
    ----------
    ids : tuple of (int, int)
        Old and new ids, sorted by the old ones.
    rest : int or None
        Where all other ids from 0 on go; None: they stay. Negative values stay in any
        case, as do values that are no integers, so that the checks find them.
    """

    ids: tuple[tuple[int, int], ...]
    rest: int | None = None

    @classmethod
    def of(cls, ids: Mapping[int, int], rest: int | None = None) -> Relabeling:
        """Make one of a mapping from old to new ids; equal functions are equal."""
        plain = cls((), rest)
        return cls(tuple(sorted((a, b) for a, b in ids.items() if b != plain(a))), rest)

    def __call__(self, value: int) -> int:
        """Return the new id of one id."""
        for old, new in self.ids:
            if old == value:
                return new
        return value if self.rest is None or value < 0 else self.rest

    def then(self, other: Relabeling) -> Relabeling:
        """Return both in a row as one."""
        ids = {old: other(new) for old, new in self.ids}
        if self.rest is None:
            ids = {old: other(old) for old, _ in other.ids} | ids
            return Relabeling.of(ids, other.rest)
        # Negative values, which no rest takes, reach the other as they are.
        negative = {old: new for old, new in other.ids if old < 0}
        return Relabeling.of(negative | ids, other(self.rest))

    def apply(self, label: NDArray[Any]) -> NDArray[Any]:
        """Return an int64 map of new ids; what holds no integers is returned as it is."""
        if label.dtype.kind not in "iufb" or not label.size:
            return label
        if label.dtype.kind == "f" and not _is_integral(label):
            return label
        lowest, highest = int(label.min()), int(label.max())
        if not -(2**63) <= lowest <= highest < 2**63:
            return label
        if highest - lowest < _TABLE_SIZE:
            values = np.subtract(label, lowest, dtype=np.int64, casting="unsafe")
            result: NDArray[Any] = self._table(range(lowest, highest + 1))[values]
        else:
            found, where = np.unique(label.astype(np.int64), return_inverse=True)
            result = self._table(found.tolist())[where].reshape(label.shape)
        return result

    def _table(self, values: Any) -> NDArray[np.int64]:
        known = dict(self.ids)
        rest = self.rest
        return np.array(
            [known.get(v, v if rest is None or v < 0 else rest) for v in values], dtype=np.int64
        )


@dataclass(frozen=True)
class RelabelingReader:
    """A reader for torchio that relabels what another one reads.

    Parameters
    ----------
    relabeling : Relabeling
        The new ids.
    reader : callable, optional
        Takes a path, gives a tensor and an affine; torchio's own by default.
    """

    relabeling: Relabeling
    reader: Callable[[Any], Any] = read_image

    def __call__(self, path: str | Path) -> tuple[torch.Tensor, Any]:
        """Read and relabel."""
        tensor, affine = self.reader(path)
        array = np.asarray(tensor)
        return torch.from_numpy(np.ascontiguousarray(self.relabeling.apply(array))), affine


def _is_integral(label: NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((label == np.round(label)).all() and np.isfinite(label).all())
