"""Getting cases ready ahead of their turn: read, sampled, preprocessed within the limit."""

from __future__ import annotations

import itertools
import math
import time
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte._memory import memory_problem
from skte.bank import BankEntry
from skte.datasets import Case, read_case
from skte.exceptions import ExtractionError, SkteWarning
from skte.extraction._sampler import SamplePlan, VoxelSample

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """What one model needs of one case."""

    case_id: str  # name of the case
    image: torch.Tensor  # preprocessed
    to_image: NDArray[np.float64]  # from indices into the label map to indices into the image
    sample: VoxelSample  # voxels to look at

    @property
    def n_bytes(self) -> int:
        """Memory of the image."""
        return self.image.numel() * self.image.element_size()


class CaseStore:
    """Prepared cases that are kept for the next model, as many as fit."""

    # Cases come in the same order for every model, so those that came first are kept: throwing
    # out the oldest would throw out each one just before it is needed. Copies that went to
    # another process share nothing with this one, but in that process all are one.
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


def prepare_case(
    index: int, subject: Any, *, entry: BankEntry, plan: SamplePlan, store: CaseStore
) -> PreparedCase:
    """Read, sample and preprocess the case at a position of the dataset for one model."""
    known = store.get(index, entry.preprocessing)
    if known is not None:
        return known
    case = read_case(subject)
    image, to_image = preprocess_case(case, entry)
    prepared = PreparedCase(case.case_id, image, to_image, plan.draw(case))
    store.put(index, entry.preprocessing, prepared)
    return prepared


def ahead(
    work: Callable[..., Result], items: Iterable[tuple[Any, ...]]
) -> Generator[tuple[Result, float]]:
    """Do the work for each item while the one before is in use; also say how long it took."""
    left = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="skte-load") as pool:
        coming = [pool.submit(work, *item) for item in itertools.islice(left, 1)]
        while coming:
            begun = time.perf_counter()
            result = coming.pop().result()
            waited = time.perf_counter() - begun
            coming = [pool.submit(work, *item) for item in itertools.islice(left, 1)]
            yield result, waited


# Sampled voxels may lie this far (in voxels) outside the preprocessed image, and
# this share of them farther, before a warning. A larger share would carry a
# neighbour's features under another label; dropping those voxels instead would leave
# each model with voxels of its own.
_SLACK, _SHARE_TOLD, _SHARE_REFUSED = 0.51, 0.01, 0.10


def preprocess_case(case: Case, entry: BankEntry) -> tuple[torch.Tensor, NDArray[np.float64]]:
    """Apply an entry's preprocessing to the image."""
    transform = entry.transform()
    if transform is None:
        return case.image, np.eye(4)
    where = f"entry {entry.name!r}, case {case.case_id!r}"
    try:
        image = case.to_image()
        for step in transform.transforms:
            problem = size_problem(step, image)
            if problem:
                raise ExtractionError(f"Preprocessing was stopped ({where}): {problem}.")
            image = step(image)
    except ExtractionError:
        raise
    except (Exception, SystemExit) as error:
        raise ExtractionError(
            f"Preprocessing failed ({where}): {type(error).__name__}: {error}"
        ) from error
    data = image.data.float()
    if data.numel() == 0:
        raise ExtractionError(f"Preprocessing leaves nothing of the image ({where}). Crop less.")
    if not torch.isfinite(data).all():
        raise ExtractionError(f"Preprocessing left NaN or Inf in the image ({where}).")
    return data, np.linalg.solve(image.affine, case.affine)


def carry_voxels(
    voxels: NDArray[np.intp], to_image: NDArray[np.float64], shape: tuple[int, ...], where: str
) -> NDArray[np.float64]:
    """Positions of voxels of the label map in the preprocessed image."""
    carried = voxels @ to_image[:3, :3].T + to_image[:3, 3]
    rounded = np.round(carried)  # undo the rounding of the affines where it can be
    carried = np.where(np.abs(carried - rounded) < 1e-6, rounded, carried)
    last = np.array(shape) - 1
    n_outside = int(((carried < -_SLACK) | (carried > last + _SLACK)).any(axis=1).sum())
    share = n_outside / max(1, len(carried))
    told = f"The preprocessing cuts away {share:.0%} of the sampled voxels ({where})"
    if share > _SHARE_REFUSED:
        raise ExtractionError(
            f"{told}, more than the {_SHARE_REFUSED:.0%} that the nearest voxel left may stand "
            "for. Crop less (Crop, CropOrPad), and use transforms that keep the affine true."
        )
    if share > _SHARE_TOLD:
        warnings.warn(
            f"{told}; the nearest voxel that is left stands for them. Crop less.",
            SkteWarning,
            stacklevel=2,
        )
    return np.clip(carried, 0, last)


Shape = Sequence[float]

_USUAL = 2.0  # times the image's own size: where that fitted, this does


def size_problem(step: Any, image: tio.Image) -> str | None:
    """Say why a step must not run on an image; None if it may, or if its size is not known."""
    for inner in getattr(step, "transforms", ()):  # each sees what the one before it made
        problem = size_problem(inner, image)
        if problem:
            return problem
    kind = getattr(step, "kind", None)  # of one of MONAI's transforms, which has options
    name = str(kind or type(step).__name__)
    known = _SIZES.get(name)
    if known is None:
        return None
    shape, spacing = tuple(image.spatial_shape), np.linalg.norm(image.affine[:3, :3], axis=0)
    try:
        found = known(step.options if kind else vars(step), shape, spacing)
        n_voxels = math.prod(max(float(edge), 1.0) for edge in found)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError, ZeroDivisionError):
        return None  # it will say itself what is wrong with its parameters
    if n_voxels <= _USUAL * math.prod(shape):
        return None
    n_bytes = int(min(n_voxels * image.num_channels * 4, 2.0**62))
    problem = memory_problem(n_bytes)
    if problem is None:
        return None
    return (
        f"{name} would make {' x '.join(f'{edge:.4g}' for edge in found)} voxels of an image of "
        f"{' x '.join(map(str, shape))}; that {problem}; check its parameters"
    )


def _per_axis(value: Any, n: int = 3) -> list[float]:
    values = [float(one) for one in np.atleast_1d(np.asarray(value, dtype=float)).ravel()]
    return values * n if len(values) == 1 else values


def _resampled(shape: Shape, spacing: Shape, target: Any) -> list[float]:
    """Edges at another spacing; axes that are not named, or not positive, stay."""
    wanted = _per_axis(target)
    wanted += list(spacing[len(wanted) :])
    return [
        n * old / new if new > 0 else n for n, old, new in zip(shape, spacing, wanted, strict=False)
    ]


def _nnunet(options: Mapping[str, Any], shape: Shape, spacing: Shape) -> list[float]:
    axes = [(2, 1, 0)[i] for i in options["transpose"]]
    turned, old = [shape[i] for i in axes], [spacing[i] for i in axes]
    given = list(options["spacing"])
    return _resampled(turned, old, [*old[: 3 - len(given)], *given])


def _at_least(shape: Shape, edges: Any) -> list[float]:
    return [max(n, edge) for n, edge in zip(shape, _per_axis(edges), strict=False)]


def _padded(shape: Shape, padding: Any) -> list[float]:
    values = _per_axis(padding)
    pairs = values if len(values) == 6 else [one for one in values for _ in (0, 1)]
    return [n + pairs[2 * i] + pairs[2 * i + 1] for i, n in enumerate(shape)]


def _multiple(shape: Shape, of: Any) -> list[float]:
    return [
        math.ceil(n / k) * k if k > 0 else n for n, k in zip(shape, _per_axis(of), strict=False)
    ]


def _smoothed(shape: Shape, widths: Sequence[float]) -> list[float]:
    """Return the longer of image and kernel, which is as long as the smoothing is wide."""
    return [max(n, 8 * abs(width)) for n, width in zip(shape, widths, strict=False)]


def _blurred(options: Mapping[str, Any], shape: Shape, spacing: Shape) -> list[float]:
    std = options.get("std", options.get("std_ranges", 0))
    return _smoothed(shape, [a / b for a, b in zip(_per_axis(std), spacing, strict=False)])


Size = Callable[[Mapping[str, Any], Shape, Shape], Sequence[float]]

# By the names of torchio, of MONAI and of skte's own; where two share one, options tell.
_SIZES: dict[str, Size] = {
    "Resample": lambda o, shape, spacing: _resampled(shape, spacing, o["target"]),
    "Resize": lambda o, shape, _: _per_axis(o.get("target_shape", o.get("spatial_size"))),
    "CropOrPad": lambda o, shape, _: _at_least(shape, o["target_shape"]),
    "Pad": lambda o, shape, _: _padded(shape, o["padding"]),
    "EnsureShapeMultiple": lambda o, shape, _: _multiple(shape, o["target_multiple"]),
    "Blur": _blurred,
    "NNUNetPreprocessing": _nnunet,
    "Spacing": lambda o, shape, spacing: _resampled(shape, spacing, o["pixdim"]),
    "SpatialPad": lambda o, shape, _: _at_least(shape, o["spatial_size"]),
    "BorderPad": lambda o, shape, _: _padded(shape, o["spatial_border"]),
    "DivisiblePad": lambda o, shape, _: _multiple(shape, o["k"]),
    "GaussianSmooth": lambda o, shape, _: _smoothed(shape, _per_axis(o.get("sigma", 1.0))),
}
