"""Cases: subjects, the list of them, their checks, and one case in memory."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray

from skte._table import format_html_table
from skte._text import name_problem
from skte.datasets._dicom_file import label_file
from skte.datasets._image_file import image_paths, image_stem, named_roots, segment_names
from skte.datasets._labels import (
    label_members,
    names_of,
    parse_label_names,
    split_images,
    subject_members,
)
from skte.datasets._problem import (
    Flaw,
    Problem,
    Skipped,
    case_problems,
    few,
    image_flaws,
    label_flaws,
    raise_problems,
)
from skte.datasets._read import (
    ImageHeader,
    geometry_flaws,
    memory_flaws,
    read_arrays,
    read_headers,
    reorient,
    turn_between,
    widen,
)
from skte.exceptions import DatasetError

__all__ = [
    "Case",
    "CaseList",
    "ID_KEYS",
    "checked_case_id",
    "copy_subject",
    "find_problems",
    "make_subject",
    "read_case",
    "repeated_ids",
    "stem_case_id",
    "structure_problems",
    "subject_case_id",
]

ID_KEYS = ("case_id", "id", "name", "subject_id")
_SHOWN_CASES = 20  # the header of each is read


def make_subject(
    case_id: str,
    images: Sequence[Path],
    label: Path,
    *,
    roots: Sequence[Path],
    ignore_label: int | None = None,
    members: Mapping[str, Sequence[int]] | None = None,
    **options: Any,
) -> Any:
    """Return a lazy subject of files that must lie in `roots`; `members`: ids of each name.

    `options` say how images are read: the reader, and whether alpha and ImageJ's spacing count.
    """
    label = label_file(label)
    members = members or segment_names(label, roots)
    files = [path.absolute() for path in images]
    image = tio.ScalarImage(files[0] if len(files) == 1 else files, roots=roots, **options)
    kept = {key: options[key] for key in ("calibrated",) if key in options}
    return tio.Subject(
        image=image,
        label=tio.LabelMap(label.absolute(), roots=roots, **kept),
        case_id=case_id,
        ignore_label=ignore_label,
        label_names=names_of(members),
        label_ids={name: tuple(ids) for name, ids in members.items()},
    )


def copy_subject(
    subject: Any, case_id: str, extra_roots: Sequence[str | os.PathLike[str]] = ()
) -> Any:
    """Return a subject whose images are its own (``copy.copy`` shares them) and share tensors."""
    items = {
        k: _copy_image(v, extra_roots) if isinstance(v, tio.Image) else v
        for k, v in subject.items()
    }
    items["case_id"] = case_id
    items.setdefault("ignore_label", None)
    names = items.get("label_names")
    members = label_members(names)[0] if isinstance(names, Mapping) else {}
    items.setdefault("label_ids", {name: tuple(ids) for name, ids in members.items()})
    items["label_names"], _ = parse_label_names(names)
    result = tio.Subject(items)
    result.applied_transforms = list(subject.applied_transforms)
    return result


def _copy_image(image: Any, extra_roots: Sequence[str | os.PathLike[str]]) -> Any:
    """Return a copy whose files stay the same when the current folder changes."""
    image = copy.copy(image)
    if not image.path:
        return image
    paths = [path.absolute() for path in image_paths(image)]
    image.path = paths if isinstance(image.path, list) else paths[0]
    if extra_roots:
        own = image.get("roots") or [root for path in paths for root in named_roots(path)]
        image["roots"] = (*own, *(Path(root).expanduser().absolute() for root in extra_roots))
    return image


def subject_case_id(subject: Any, index: int = 0) -> str:
    """Name of a case: stated, or its image's file stem, or a digest of its content."""
    # Not the position: the sampled voxels depend on the id, and a case must stay itself in a
    # shuffled or sliced list. It is left for what is neither in memory nor in a file.
    for key in ID_KEYS:
        if subject.get(key) is not None:
            return str(subject[key])
    for image in split_images(subject)[0].values():
        if paths := image_paths(image):
            return stem_case_id(paths[0])
    digest = hashlib.sha256()
    for image in subject.get_images(intensity_only=False):
        if tio.DATA not in image:
            return f"case_{index:03d}"
        digest.update(image.data.detach().cpu().contiguous().numpy().tobytes())
    return f"case_{digest.hexdigest()[:8]}"


def stem_case_id(path: Path) -> str:
    """Name of a case by the file of its first image."""
    return (image_stem(path) or unicodedata.normalize("NFC", path.name)).removesuffix("_0000")


def checked_case_id(subject: Any, door: str) -> str:
    """Name of a case that has an image and a label; an error names what is missing."""
    if not isinstance(subject, tio.Subject):
        raise DatasetError(
            f"{door} takes a torchio Subject, got {type(subject).__name__}: "
            "load_dataset turns other forms into subjects."
        )
    case_id = subject_case_id(subject)
    raise_problems(f"Case {case_id!r} cannot be used", structure_problems(case_id, subject))
    return case_id


def find_problems(subjects: Iterable[Any]) -> list[Problem]:
    """Find the problems of all cases in file headers."""
    subjects = list(subjects)
    if not subjects:
        return [Problem(None, "The dataset holds no case", "give at least two")]
    ids = [subject_case_id(subject, i) for i, subject in enumerate(subjects)]
    problems = repeated_ids(ids)
    n_channels: dict[int, list[str]] = {}
    for case_id, subject in zip(ids, subjects, strict=True):
        found, channels = _case_header_problems(case_id, subject)
        problems += found
        if channels:
            n_channels.setdefault(channels, []).append(case_id)
    problems += _renumbered(ids, subjects)
    if len(n_channels) > 1:
        counts = "; ".join(f"{n} in {few(cases)}" for n, cases in sorted(n_channels.items()))
        what = f"The cases differ in their number of channels ({counts})"
        problems.append(Problem(None, what, "give every case the same channels"))
    return problems


def _renumbered(ids: Sequence[str], subjects: Sequence[Any]) -> list[Problem]:
    """Problems of classes whose name stands for different ids in different cases."""
    first: dict[str, tuple[str, list[int]]] = {}
    found: dict[str, Problem] = {}
    for case_id, subject in zip(ids, subjects, strict=True):
        for name, own in subject_members(subject).items():
            other, known = first.setdefault(name, (case_id, own))
            if sorted(known) != sorted(own):
                what = f"Class {name!r} is {few(known)} in {other}, and {few(own)} in {case_id}"
                remedy = "choose classes by name, with labels={...} (--labels)"
                found.setdefault(name, Problem(None, what, remedy))
    return list(found.values())


def repeated_ids(ids: Iterable[str]) -> list[Problem]:
    """Problems of case ids that occur more than once."""
    return [
        Problem(None, f"Case id {case_id!r} is used by {n} cases", "give every case one of its own")
        for case_id, n in Counter(ids).items()
        if n > 1
    ]


def structure_problems(case_id: str, subject: Any) -> list[Problem]:
    """Problems of what a subject holds, nothing of it read."""
    images, labels = split_images(subject)
    flaws: list[Flaw] = []
    if problem := name_problem(case_id):
        flaws.append((f"its name {problem}", "rename it, or its files"))
    if not labels:
        flaws.append(("it has no label", "add a LabelMap"))
    if len(labels) > 1:
        flaws.append((f"it has {len(labels)} label maps ({few(labels)})", "keep one"))
    for name, image in labels.items():
        if (n_files := len(image_paths(image))) > 1:
            flaws.append((f"label {name!r} has {n_files} files", "merge them into one"))
    if not images:
        flaws.append(("it has no image", "add a ScalarImage"))
    ignore = subject.get("ignore_label")
    if ignore is not None and not (
        isinstance(ignore, (int, np.integer)) and not isinstance(ignore, bool)
    ):
        what = f"ignore_label must be an integer or None, got {ignore!r}"
        flaws.append((what, "give the id to leave out"))
    flaws += parse_label_names(subject.get("label_names"))[1]
    return case_problems(case_id, flaws)


def _case_header_problems(case_id: str, subject: Any) -> tuple[list[Problem], int]:
    """Problems of one case, and its number of channels (0 where that cannot be told)."""
    images, labels = split_images(subject)
    headers, _, flaws = read_headers(images)
    label_headers, _, unopened = read_headers(dict(list(labels.items())[:1]))
    label = widen(label_headers[0], headers) if label_headers else None
    flaws += unopened
    channels = 0 if flaws else sum(h.shape[0] for h in headers)
    flaws += geometry_flaws(headers, label) + memory_flaws(headers, label)
    problems = structure_problems(case_id, subject) + case_problems(case_id, flaws)
    return problems, channels


@dataclass(frozen=True, eq=False)
class Case:
    """Image and label of one case, loaded and checked.

    Parameters
    ----------
    case_id : str
        Name of the case.
    image : Tensor of shape (n_channels, x, y, z), float32
        Intensities as stored. A 2-D image has z = 1.
    label : Tensor of shape (x, y, z), int64
        Class ids, 0 for background; any others, {0, 2, 7} for instance.
    affine : ndarray of shape (4, 4)
        From voxel indices to world coordinates in mm (RAS+).
    spacing : tuple of float
        Size of a voxel along x, y and z in mm.
    ignore_label : int or None
        Voxels with this label belong to no class.
    label_names : mapping of int to str
        Names of the class ids, where known.
    notes : tuple of (str, str)
        What was done in reading and may be unexpected, and what to do about it: ids rounded,
        lengths converted, an alpha channel left out.

    Examples
    --------
    >>> from skte.datasets import make_phantoms, read_case
    >>> case = read_case(make_phantoms(1, size=(16, 16, 16))[0])
    >>> case.case_id, case.image.shape, case.spacing
    ('ellipsoids_000', torch.Size([1, 16, 16, 16]), (1.0, 1.0, 1.0))
    """

    case_id: str
    image: torch.Tensor
    label: torch.Tensor
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    ignore_label: int | None = None
    label_names: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[tuple[str, str], ...] = ()

    def to_image(self) -> Any:
        """Return the image as a torchio image, for preprocessing.

        Returns
        -------
        ScalarImage
            It has a copy of the values, so that transforms leave the case as it is.
        """
        # An affine holds the spacing to within rounding, which moves sizes at half a voxel.
        return tio.ScalarImage(
            tensor=self.image.clone(), affine=self.affine.copy(), stated_spacing=self.spacing
        )


def read_case(subject: Any) -> Case:
    """Load and check one case.

    Parameters
    ----------
    subject : Subject
        A torchio subject with one label map and one or more images, which become
        channels in order. It is left as it is: nothing stays loaded on it.

    Returns
    -------
    Case
        Float32 image and int64 label, voxel by voxel on the grid of the first image.

    Raises
    ------
    DatasetError
        If the case cannot be used. The message names the case and lists all its
        problems with their remedies: files missing, truncated or corrupted; image and
        label of different shape or affine; label missing, with channels, empty, with
        one class only, float-valued or negative; NaN or Inf; a constant image. A case
        that merely lacks some of the dataset's classes is fine.

    Notes
    -----
    NIfTI files are read with nibabel: ITK, which torchio uses, fills truncated files
    with zeros and turns NaN into zero silently. Pictures are read as they are stored: in
    a label the indices of a palette are the ids, the resolution for printing is no
    spacing. A label or channel whose affine differs
    from the image's by flips and swaps of axes alone holds the same voxels in another
    order (a NIfTI label beside a DICOM series, for instance) and is put in order.

    Examples
    --------
    >>> from skte.datasets import make_phantoms, read_case
    >>> case = read_case(make_phantoms(1, size=(32, 32, 1), labels=(0, 2, 7))[0])
    >>> case.label.unique()
    tensor([0, 2, 7])
    """
    case_id = checked_case_id(subject, "read_case")
    title = f"Case {case_id!r} cannot be used"
    images, labels = split_images(subject)
    (label_name, label_image), *_ = labels.items()
    headers, opened, flaws = read_headers(images)
    label_headers, opened_label, unopened = read_headers({label_name: label_image})
    label_header = widen(label_headers[0], headers) if label_headers else None
    ignore_label = subject.get("ignore_label")
    flaws += unopened + geometry_flaws(headers, label_header)
    # What has no header is not read, nor what would take too much: promises are believed.
    if too_large := memory_flaws(headers, label_header):
        raise_problems(title, case_problems(case_id, flaws + too_large))
    arrays, wrong, notes = read_arrays(opened)
    flaws += wrong + image_flaws(arrays)
    image = None if flaws else _stack(arrays, headers)
    del arrays  # before the label is read
    label_arrays, wrong, label_notes = read_arrays(opened_label)
    flaws += wrong
    label_arrays = [label_header.complete(array) for array in label_arrays if label_header]
    for array in label_arrays:
        flaws += label_flaws(array, ignore_label)
    raise_problems(title, case_problems(case_id, flaws))
    assert image is not None
    assert label_header is not None
    label = reorient(label_arrays[0], turn_between(label_header, headers[0]))[0]
    notes += [note for header in headers for note in header.notes]
    label_notes += label_header.notes
    told = [(f"image: {what}", remedy) for what, remedy in notes]
    told += [(f"label: {what}", remedy) for what, remedy in label_notes]
    return Case(
        case_id=case_id,
        image=torch.from_numpy(image),
        label=torch.from_numpy(np.array(label, dtype=np.int64, order="C")),  # shares nothing
        affine=headers[0].affines[0],
        spacing=headers[0].spacing,
        ignore_label=None if ignore_label is None else int(ignore_label),
        label_names=parse_label_names(subject.get("label_names"))[0],
        notes=tuple(dict.fromkeys(told)),
    )


def _stack(arrays: Sequence[NDArray[Any]], headers: Sequence[ImageHeader]) -> NDArray[np.float32]:
    """Channels of all files on the grid of the first; other orders of voxels are turned."""
    turned = [
        reorient(array, turn_between(header, headers[0]))
        for array, header in zip(arrays, headers, strict=True)
    ]
    stacked = np.empty((sum(map(len, turned)), *turned[0].shape[1:]), dtype=np.float32)
    return np.concatenate(turned, out=stacked, casting="unsafe")


class CaseList(list[Any]):
    """The cases of a dataset: a list of subjects that a notebook shows as a table.

    It is a list in every other way. A slice is a list of cases too; adding, sorting and
    the like are those of lists.

    Parameters
    ----------
    subjects : iterable of Subject, default=()
        The cases.
    skipped : iterable of Skipped, default=()
        Files of the dataset that are used in no case, each with the reason.
    notes : iterable of Problem, default=()
        What may be a mistake in the dataset.

    Examples
    --------
    >>> from skte.datasets import make_phantoms
    >>> cases = make_phantoms(4, size=(16, 16, 16))
    >>> cases
    CaseList(4 cases: ellipsoids_000, ellipsoids_001, ellipsoids_002, ellipsoids_003)
    >>> cases[:2]
    CaseList(2 cases: ellipsoids_000, ellipsoids_001)
    """

    def __init__(
        self,
        subjects: Iterable[Any] = (),
        *,
        skipped: Iterable[Skipped] = (),
        notes: Iterable[Problem] = (),
    ) -> None:
        super().__init__(subjects)
        self.skipped = tuple(skipped)
        self.notes = tuple(notes)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> CaseList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return self.like(found) if isinstance(index, slice) else found

    def like(self, subjects: Iterable[Any]) -> CaseList:
        """Return a list of other subjects of the same dataset.

        Parameters
        ----------
        subjects : iterable of Subject
            The cases.

        Returns
        -------
        CaseList
            With the same files skipped, and the same notes.
        """
        return CaseList(subjects, skipped=self.skipped, notes=self.notes)

    def __repr__(self) -> str:
        names = few(subject_case_id(subject, i) for i, subject in enumerate(self))
        return f"{type(self).__name__}({_count(len(self))}{': ' if self else ''}{names})"

    def _repr_html_(self) -> str:
        rows = [_row(subject_case_id(case, i), case) for i, case in enumerate(self[:_SHOWN_CASES])]
        caption = _count(len(self))
        if classes := _classes(self):
            caption += f"; classes {classes}"
        if self.skipped:
            caption += f"; {len(self.skipped)} files are not used"
        if (more := len(self) - len(rows)) > 0:
            caption += f"; the first {len(rows)}, {more} more are not shown"
        header = ["case", "channels", "size", "spacing (mm)", "image", "label"]
        return format_html_table(header, rows, caption=caption)


def _count(n: int) -> str:
    return f"{n} case" if n == 1 else f"{n} cases"


def _row(case_id: str, subject: Any) -> list[object]:
    """Return what headers state; a file that cannot be read must not spoil the table."""
    images, labels = split_images(subject)
    headers, _, flaws = read_headers(images)
    files = [_files(images), _files(labels)]
    if flaws or not headers:
        return [case_id, "", "cannot be read" if flaws else "", "", *files]
    first = headers[0]
    return [
        case_id,
        sum(header.shape[0] for header in headers),
        " x ".join(map(str, first.shape[1:])),
        " x ".join(f"{edge:.4g}" for edge in first.spacing),
        *files,
    ]


def _files(images: dict[str, Any]) -> str:
    names = [[p.name for p in image_paths(image)] or ["in memory"] for image in images.values()]
    return ", ".join(itertools.chain(*names))


def _classes(subjects: Iterable[Any]) -> str:
    names: dict[int, str] = {}
    ignored: dict[int, None] = {}
    for subject in subjects:
        names |= subject.get("label_names") or {}
        if (ignore := subject.get("ignore_label")) is not None:
            ignored[ignore] = None
    texts = [f"{k} {name}" for k, name in sorted(names.items()) if k not in ignored]
    return ", ".join([*texts, *(f"{k} (ignored)" for k in ignored)])
