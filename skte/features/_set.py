"""The unit-level problem: the features of one layer with labels and cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from skte._table import format_html_table
from skte.features._moments import ClassMoments


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Features of one layer: the problem ``(X, y, groups)`` an estimator scores.

    Parameters
    ----------
    X : array-like of shape (n_voxels, n_channels)
        The class sample: features of voxels drawn class by class.
    y : array-like of shape (n_voxels,)
        Target label of each row of `X` (or a regression target, for estimators that take one).
    groups : array-like of shape (n_voxels,), optional
        The case each row came from, as any values. None: every row is a case of its own.
    X_case : array-like of shape (n_case_voxels, n_channels), optional
        The whole-case sample: voxels drawn uniformly from each case, whatever their label. Without
        it, all rows of a case in `X` serve as its whole-case sample.
    groups_case : array-like of shape (n_case_voxels,), optional
        The case each row of `X_case` came from. Required with `X_case`, as `groups` is.
    name : str, default=""
        Name of the layer, used in messages.
    case_names : sequence of str, optional
        Where groups are 0, 1, ...: what messages and diagnoses call them.

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
        for name in ("X", "y", "groups", "X_case", "groups_case"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, np.ndarray):
                object.__setattr__(self, name, np.asarray(value))
        problems = []
        if self.X.ndim != 2:
            problems.append(f"X must be 2-D (voxels, channels), got shape {self.X.shape}")
        for name in ("y", "groups"):
            problems += _row_problems(name, getattr(self, name), "X", self.X)
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
        """The whole-case sample and its groups; without groups, all rows are one sample."""
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


@dataclass(frozen=True, eq=False)
class LayerSample:
    """Features of one layer at the sampled voxels of one case.

    Parameters
    ----------
    X : ndarray of shape (n_voxels, n_channels)
        Features at the class sample.
    y : ndarray of shape (n_voxels,)
        Label of each row of `X`.
    X_case : ndarray of shape (n_case_voxels, n_channels)
        Features at the whole-case sample.
    """

    X: NDArray[np.floating]
    y: NDArray[np.integer]
    X_case: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class CaseFeatures:
    """Sampled features of one case: an element of a `FeatureSet`.

    Parameters
    ----------
    case_id : str
        Name of the case.
    layers : mapping of str to LayerSample
        Layers in order from coarse to fine.
    posterior : LayerSample, optional
        The source head's class probabilities at the class sample (``X``, whose rows sum to one).
        None where the model has no source head, or one whose output is unusable.
    info : mapping, optional
        What the extraction cost: windows run, seconds.
    no_posterior : str, default=""
        Why there is no posterior, where the model does have a source head.
    """

    case_id: str
    layers: Mapping[str, LayerSample]
    posterior: LayerSample | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    no_posterior: str = ""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError(f"Case {self.case_id!r} has no layers.")
        samples = dict(self.layers)
        if self.posterior is not None:
            samples["source posterior"] = self.posterior
        for name, sample in samples.items():
            X, y, X_case = sample.X, sample.y, sample.X_case
            where = f"Features of case {self.case_id!r}, layer {name!r}"
            if X.ndim != 2 or X_case.ndim != 2:
                raise ValueError(f"{where} must be 2-D (voxels, channels).")
            if len(X) != len(y):
                raise ValueError(f"{where}: {len(X)} rows but {len(y)} labels.")
            if X.shape[1] != X_case.shape[1]:
                widths = (
                    f"class sample has {X.shape[1]} channels, whole-case sample {X_case.shape[1]}"
                )
                raise ValueError(f"{where}: {widths}.")
            if not (np.isfinite(X).all() and np.isfinite(X_case).all()):
                raise ValueError(f"{where} contain NaN or Inf. Check weights and preprocessing.")


class FeatureSet(Sequence[CaseFeatures]):
    """Features of one model on a dataset: a sequence of cases, labels inside.

    ``len`` and indexing count *cases*, as scikit-learn expects of what a
    transformer returns. An integer gives a `CaseFeatures`; a slice, a list or
    array of integers, or a boolean mask gives a `FeatureSet`.

    Parameters
    ----------
    cases : iterable of CaseFeatures
        All with the same layers of the same widths, and distinct ``case_id``.
    name : str, default=""
        The model the features came from.

    Attributes
    ----------
    layer_names : tuple of str
        Layers in order from coarse to fine.
    case_ids : tuple of str
        One per case.
    has_posterior : bool
        Whether every case carries the source head's probabilities (for LEEP).

    Examples
    --------
    >>> import numpy as np
    >>> from skte import FeatureBlock, FeatureSet
    >>> rng = np.random.default_rng(0)
    >>> block = FeatureBlock(
    ...     rng.normal(size=(8, 3)), np.tile([0, 1], 4), np.repeat([0, 1], 4), name="up1"
    ... )
    >>> features = FeatureSet.from_blocks([block])
    >>> len(features), features.layer_names
    (2, ('up1',))
    >>> len(features[:1])
    1
    """

    def __init__(self, cases: Iterable[CaseFeatures], *, name: str = "") -> None:
        self.cases: tuple[CaseFeatures, ...] = tuple(cases)
        self.name = name
        self._blocks: list[FeatureBlock] | None = None
        self._joined: FeatureBlock | None = None
        if not self.cases:
            raise ValueError("A FeatureSet needs at least one case, got none.")
        for case in self.cases:
            if not isinstance(case, CaseFeatures):
                raise TypeError(f"A FeatureSet holds CaseFeatures, got {type(case).__name__}.")
        self.case_ids: tuple[str, ...] = tuple(case.case_id for case in self.cases)
        if repeated := sorted(i for i, n in Counter(self.case_ids).items() if n > 1):
            raise ValueError(f"Case ids must be distinct; repeated: {repeated}.")
        first = _widths(self.cases[0])
        for case in self.cases[1:]:
            if list(_widths(case).items()) != list(first.items()):
                raise ValueError(
                    f"Case {case.case_id!r} has layers {_widths(case)}, but case "
                    f"{self.case_ids[0]!r} has {first}: all cases must share layers and widths."
                )
        self.layer_names: tuple[str, ...] = tuple(first)
        self.has_posterior: bool = all(c.posterior is not None for c in self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    @overload
    def __getitem__(self, index: int) -> CaseFeatures: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[np.generic]) -> FeatureSet: ...
    def __getitem__(
        self, index: int | slice | Sequence[int] | NDArray[np.generic]
    ) -> CaseFeatures | FeatureSet:
        if isinstance(index, (int, np.integer)):
            return self.cases[index]
        if isinstance(index, slice):
            return FeatureSet(self.cases[index], name=self.name)
        chosen = np.arange(len(self))[np.asarray(index)]
        return FeatureSet([self.cases[i] for i in chosen], name=self.name)

    def __repr__(self) -> str:
        layers = ", ".join(f"{k}: {w}" for k, w in _widths(self.cases[0]).items())
        name = f"{self.name!r}, " if self.name else ""
        return f"FeatureSet({name}{len(self)} cases, layers {{{layers}}})"

    def _repr_html_(self) -> str:
        rows = []
        for name, width in _widths(self.cases[0]).items():
            samples = [case.layers[name] for case in self.cases]
            rows.append(
                [name, width, sum(len(s.X) for s in samples), sum(len(s.X_case) for s in samples)]
            )
        head = "with" if self.has_posterior else "without"
        caption = f"{self.name or 'Features'}: {len(self)} cases, {head} source head"
        header = ["layer", "channels", "voxels of classes", "voxels of whole cases"]
        return format_html_table(header, rows, caption=caption)

    def blocks(self) -> list[FeatureBlock]:
        """Return one `FeatureBlock` per layer, coarse to fine, cases concatenated.

        Returns
        -------
        list of FeatureBlock
            Features are float64; ``groups`` are positions of the cases in this set.
        """
        if self._blocks is None:
            self._blocks = [
                _stack([case.layers[name] for case in self.cases], name, self.case_ids)
                for name in self.layer_names
            ]
        return list(self._blocks)

    def joined_block(self) -> FeatureBlock:
        """Return all layers side by side, at the voxels that every layer holds.

        Returns
        -------
        FeatureBlock
            Its name is that of the layer, or the names of all layers joined by " + ".
        """
        # Layers near the bottleneck hold a prefix of each class's sample.
        if len(self.layer_names) == 1:
            return self.blocks()[0]
        if self._joined is None:
            name = " + ".join(self.layer_names)
            self._joined = _stack([_joined(case) for case in self.cases], name, self.case_ids)
        return self._joined

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": None, "_joined": None}  # they can be made again

    def posterior_block(self) -> FeatureBlock:
        """Return the source head's class probabilities, in ``X``, at the class sample.

        Raises
        ------
        ValueError
            If a case carries no posterior: the model has no source head, or its output is unusable.
        """
        samples = [case.posterior for case in self.cases if case.posterior is not None]
        if len(samples) < len(self):
            of = f" of model {self.name!r}" if self.name else ""
            why = "the model has no source head (its output is not a per-voxel class map)"
            for case in self.cases:
                if case.no_posterior:
                    why = f"in case {case.case_id!r}, {case.no_posterior}"
                    break
            raise ValueError(
                f"The features{of} carry no source-head probabilities: {why}. LEEP needs one; "
                "NLEEP does without."
            )
        return _stack(samples, "source posterior", self.case_ids)

    @classmethod
    def from_blocks(
        cls,
        blocks: Sequence[FeatureBlock],
        *,
        posterior: FeatureBlock | None = None,
        name: str = "",
    ) -> FeatureSet:
        """Build a set from arrays, one `FeatureBlock` per layer, coarse to fine.

        Parameters
        ----------
        blocks : sequence of FeatureBlock
            Their ``groups`` name the cases; every block must hold the same ones.
        posterior : FeatureBlock, optional
            Source-head probabilities, for LEEP.
        name : str, default=""
            The model the features came from.

        Returns
        -------
        FeatureSet
            One case per group, sorted.
        """
        given = [*blocks, posterior] if posterior is not None else blocks
        if not blocks or any(block.groups is None for block in given):
            raise ValueError("from_blocks needs blocks with groups (cases), at least one.")
        groups = np.unique(np.asarray(blocks[0].groups))
        if not all(np.array_equal(np.unique(np.asarray(b.groups)), groups) for b in given):
            raise ValueError("All blocks must hold the same groups (cases).")
        names = [b.name or f"layer_{i}" for i, b in enumerate(blocks)]
        cases = []
        for group in groups:
            layers = {n: _slice(b, group) for n, b in zip(names, blocks, strict=True)}
            probabilities = None if posterior is None else _slice(posterior, group)
            cases.append(CaseFeatures(str(group), layers, probabilities))
        return cls(cases, name=name)


def _widths(case: CaseFeatures) -> dict[str, int]:
    return {name: int(sample.X.shape[1]) for name, sample in case.layers.items()}


def _joined(case: CaseFeatures) -> LayerSample:
    """All layers of a case side by side, at the rows of each class that all of them hold."""
    samples = list(case.layers.values())
    counts = [Counter(sample.y.tolist()) for sample in samples]
    common = {label: min(count[label] for count in counts) for label in counts[0]}
    # Positions of the first rows of each class, in order.
    firsts = [[np.flatnonzero(s.y == label)[:n] for label, n in common.items()] for s in samples]
    rows = [np.sort(np.concatenate([np.zeros(0, dtype=np.intp), *parts])) for parts in firsts]
    labels = [sample.y[kept] for sample, kept in zip(samples, rows, strict=True)]
    if not all(np.array_equal(labels[0], other) for other in labels[1:]):
        raise ValueError(
            f"Case {case.case_id!r}: its layers hold classes in different orders: no joining them."
        )
    X = np.hstack([sample.X[kept] for sample, kept in zip(samples, rows, strict=True)])
    return LayerSample(X, labels[0], X[:0])


def _slice(block: FeatureBlock, group: object) -> LayerSample:
    X_case, groups_case = block.case_sample
    rows = np.asarray(block.groups) == group
    return LayerSample(block.X[rows], block.y[rows], X_case[groups_case == group])


def _stack(samples: Sequence[LayerSample], name: str, case_ids: Sequence[str]) -> FeatureBlock:
    index = np.arange(len(samples))
    return FeatureBlock(
        X=np.concatenate([s.X for s in samples], dtype=np.float64),
        y=np.concatenate([s.y for s in samples]),
        groups=np.repeat(index, [len(s.X) for s in samples]),
        X_case=np.concatenate([s.X_case for s in samples], dtype=np.float64),
        groups_case=np.repeat(index, [len(s.X_case) for s in samples]),
        name=name,
        case_names=case_ids,
    )
