"""The unit-level problem: the features of one layer with labels and cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skte.features._moments import ClassMoments

__all__ = ["FeatureBlock"]


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Features of one layer: the problem ``(X, y, groups)`` an estimator scores.

    A block is what a one-layer `FeatureSet` and the plain array call
    ``fit(X, y, groups=groups)`` have in common.

    Parameters
    ----------
    X : array-like of shape (n_voxels, n_channels)
        The class sample: features of voxels drawn class by class.
    y : array-like of shape (n_voxels,)
        Target label of each row of `X` (or a regression target, for estimators that take one).
    groups : array-like of shape (n_voxels,), optional
        The case each row came from. Any values; rows with equal values belong
        to one case. None: every row is a case of its own.
    X_case : array-like of shape (n_case_voxels, n_channels), optional
        The whole-case sample: voxels drawn uniformly from each case, whatever their label. Without
        it, all rows of a case in `X` serve as its whole-case sample.
    groups_case : array-like of shape (n_case_voxels,), optional
        The case each row of `X_case` came from. Required with `X_case`, as `groups` is.
    name : str, default=""
        Name of the layer, used in messages.
    case_names : sequence of str, optional
        Where groups are 0, 1, ...: what messages and diagnoses call them.

    Raises
    ------
    ValueError
        If lengths or widths disagree; the message names the array.

    Examples
    --------
    >>> import numpy as np
    >>> from skte import FeatureBlock
    >>> block = FeatureBlock(np.eye(4), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    >>> block.n_voxels, block.n_channels
    (4, 4)
    """

    X: NDArray[Any]
    y: NDArray[Any]
    groups: NDArray[Any] | None = None
    X_case: NDArray[Any] | None = None
    groups_case: NDArray[Any] | None = None
    name: str = ""
    case_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for field in ("X", "y", "groups", "X_case", "groups_case"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, np.ndarray):
                object.__setattr__(self, field, np.asarray(value))
        problems = []
        if self.X.ndim != 2:
            problems.append(f"X must be 2-D (voxels, channels), got shape {self.X.shape}")
        for field in ("y", "groups"):
            problems += _row_problems(field, getattr(self, field), "X", self.X)
        if (self.X_case is None) != (self.groups_case is None):
            problems.append("X_case and groups_case must be given together")
        elif self.X_case is not None and self.groups_case is not None:
            problems += self._case_problems(self.X_case, self.groups_case)
        if problems:
            raise ValueError(f"FeatureBlock ({self.label}): " + "; ".join(problems) + ".")

    def _case_problems(self, X_case: NDArray[Any], groups_case: NDArray[Any]) -> list[str]:
        problems = []
        if X_case.ndim != 2 or X_case.shape[1:] != self.X.shape[1:]:
            problems.append(
                f"X_case has shape {X_case.shape}, X has {self.X.shape}: the channels must agree"
            )
        problems += _row_problems("groups_case", groups_case, "X_case", X_case)
        if self.groups is None:
            problems.append("X_case needs groups: they say which rows of X are of the same cases")
        elif groups_case.size and not np.isin(groups_case, self.groups).any():
            problems.append("groups_case shares no case with groups; name cases alike in both")
        return problems

    @property
    def label(self) -> str:
        """What messages call the block: its layer, where it has a name."""
        return f"layer {self.name!r}" if self.name else "features"

    @property
    def n_voxels(self) -> int:
        """Number of rows of the class sample."""
        return int(self.X.shape[0])

    @property
    def n_channels(self) -> int:
        """Number of feature channels."""
        return int(self.X.shape[1])

    @cached_property
    def moments(self) -> ClassMoments:
        """Moments of `X` by class, computed once for all who ask."""
        return ClassMoments.from_arrays(self.X, self.y, name=self.name)

    @property
    def moments_suffice(self) -> bool:
        """Whether scores that can be computed from moments should be: they are smaller than `X`."""
        return self.n_channels <= self.n_voxels

    def case_name(self, group: Any) -> str:
        """Return what to call the case of a group."""
        return str(group if self.case_names is None else self.case_names[int(group)])

    @property
    def case_sample(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The whole-case sample and its groups.

        Without one, all rows of a case serve as its sample; without groups, all
        rows together are one sample.
        """
        if self.groups is None:
            return self.X, np.zeros(len(self.X), dtype=np.intp)
        if self.X_case is None or self.groups_case is None:
            return self.X, self.groups
        return self.X_case, self.groups_case


def _row_problems(name: str, rows: NDArray[Any] | None, of: str, X: NDArray[Any]) -> list[str]:
    if rows is None:
        return []
    if rows.ndim == 0:
        return [f"{name} must be a list with one value per row of {of}, got {rows!r}"]
    if X.ndim and len(rows) != len(X):
        return [f"{name} has {len(rows)} rows, {of} has {len(X)}"]
    return []
