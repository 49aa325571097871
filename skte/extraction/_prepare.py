"""Getting a case ready for a model: read, sampled, preprocessed; ahead of its turn."""

from __future__ import annotations

import itertools
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from skte.bank import BankEntry
from skte.datasets import Case, read_case
from skte.extraction._preprocess import preprocess_case
from skte.extraction._sampler import VoxelSample, sample_case

Item = TypeVar("Item")
Result = TypeVar("Result")

__all__ = ["CasePreparer", "CaseStore", "PreparedCase", "SamplePlan", "ahead"]


@dataclass(frozen=True)
class SamplePlan:
    """Which voxels are drawn, for all models alike; see `sample_case`."""

    n_class_samples: int
    n_case_samples: int
    samples: str
    random_state: int
    overlap: float
    max_windows: int | None
    cell_size: tuple[int, ...] | None

    def draw(self, case: Case) -> VoxelSample:
        """Draw the sample of a case."""
        return sample_case(
            case,
            n_class_samples=self.n_class_samples,
            n_case_samples=self.n_case_samples,
            random_state=self.random_state,
            samples=self.samples,
            max_windows=self.max_windows,
            window_size=self.cell_size,
            overlap=self.overlap,
        )


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """What one model needs of one case.

    Attributes
    ----------
    case_id : str
        Name of the case.
    image : Tensor of shape (n_channels, x, y, z)
        Preprocessed.
    to_image : ndarray of shape (4, 4)
        From indices into the label map to indices into the image.
    sample : VoxelSample
        Voxels to look at.
    label : Tensor of shape (x, y, z) or None
        The whole label map, where all voxels are looked at.
    ignore_label : int or None
        Label of voxels that belong to no class.
    seconds : float
        What getting it ready took.
    """

    case_id: str
    image: torch.Tensor
    to_image: NDArray[np.float64]
    sample: VoxelSample
    label: torch.Tensor | None
    ignore_label: int | None
    seconds: float

    @property
    def n_bytes(self) -> int:
        """Memory of the image and label."""
        tensors = [self.image] if self.label is None else [self.image, self.label]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class CaseStore:
    """Prepared cases that are kept for the next model, as many as fit.

    Models with the same preprocessing see the same images, and all models the same
    voxels. Cases come in the same order for every model, so those that came first are
    kept: throwing out the oldest would throw out each one just before it is needed.

    A copy that went to another process shares nothing with this one, but all copies
    in that process are one.

    Parameters
    ----------
    max_bytes : int
        Memory of all images that are kept.
    """

    _here: ClassVar[dict[str, CaseStore]] = {}

    def __init__(self, max_bytes: int, token: str | None = None) -> None:
        self.max_bytes = max_bytes
        self.token: str = token or uuid.uuid4().hex
        self.n_bytes: int = 0
        self._kept: dict[int, list[tuple[Sequence[Any], PreparedCase]]] = defaultdict(list)

    def get(self, index: int, preprocessing: Sequence[Any]) -> PreparedCase | None:
        """Return the case of this position and preprocessing, if it was kept."""
        for own, prepared in self._kept[index]:
            if own == preprocessing:
                return prepared
        return None

    def put(self, index: int, preprocessing: Sequence[Any], prepared: PreparedCase) -> None:
        """Keep a case if there is room."""
        if self.n_bytes + prepared.n_bytes <= self.max_bytes:
            self._kept[index].append((preprocessing, prepared))
            self.n_bytes += prepared.n_bytes

    def forget(self) -> None:
        """Keep none of the cases, so that they are prepared again."""
        self._kept.clear()
        self.n_bytes = 0

    def __reduce__(self) -> tuple[Callable[..., CaseStore], tuple[int, str]]:
        return type(self)._of_process, (self.max_bytes, self.token)

    @classmethod
    def _of_process(cls, max_bytes: int, token: str) -> CaseStore:
        if token not in cls._here:
            cls._here.clear()  # of a run that is over
            cls._here[token] = cls(max_bytes, token)
        return cls._here[token]


@dataclass(frozen=True)
class CasePreparer:
    """Reads, samples and preprocesses cases for one model.

    Attributes
    ----------
    entry : BankEntry
        The model.
    plan : SamplePlan
        Which voxels are drawn.
    keep_label : bool
        Whether the whole label map is needed later.
    store : CaseStore
        Where prepared cases of other models may be found.
    """

    entry: BankEntry
    plan: SamplePlan
    keep_label: bool = False
    store: CaseStore = field(default_factory=lambda: CaseStore(0))

    def prepare(self, index: int, subject: Any) -> PreparedCase:
        """Get the case at a position of the dataset ready."""
        begun = time.perf_counter()
        known = self.store.get(index, self.entry.preprocessing)
        if known is not None:
            return known
        case = read_case(subject)
        image, to_image = preprocess_case(case, self.entry)
        prepared = PreparedCase(
            case_id=case.case_id,
            image=image,
            to_image=to_image,
            sample=self.plan.draw(case),
            label=case.label if self.keep_label else None,
            ignore_label=case.ignore_label,
            seconds=time.perf_counter() - begun,
        )
        self.store.put(index, self.entry.preprocessing, prepared)
        return prepared


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[tuple[Result, float]]:
    """Do the work for each item while the one before is in use.

    Parameters
    ----------
    work : callable
        Runs in a thread of its own.
    items : iterable
        In order.

    Yields
    ------
    result : object
        What `work` returns; an exception is raised in its turn.
    waited : float
        Seconds that the result was waited for.
    """
    left = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="skte-load") as pool:
        coming = [pool.submit(work, item) for item in itertools.islice(left, 1)]
        while coming:
            begun = time.perf_counter()
            result = coming.pop().result()
            waited = time.perf_counter() - begun
            coming = [pool.submit(work, item) for item in itertools.islice(left, 1)]
            yield result, waited
