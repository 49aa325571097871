"""Cases: subjects, the list of them, one case in memory, and what it is as one digest."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
import torch
import torchio as tio
from numpy.typing import NDArray
from torchio.data.io import read_image

from skte._digests import file_digest, file_stamp, tensor_digest
from skte._text import name_problem
from skte.datasets._dicom_file import label_file
from skte.datasets._image_file import (
    image_paths,
    image_stem,
    named_roots,
    segment_names,
    spacing_files,
)
from skte.datasets._labels import (
    RelabelingReader,
    label_members,
    names_of,
    parse_label_names,
    split_images,
    subject_of,
)
from skte.datasets._picture import PICTURE_ENDINGS
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
    ChannelReader,
    ImageHeader,
    geometry_flaws,
    image_options,
    memory_flaws,
    read_arrays,
    read_headers,
    reorient,
    turn_between,
    widen,
)
from skte.exceptions import DatasetError

ID_KEYS = ("case_id", "id", "name", "subject_id")
# Formats that hold all of an image in one file. Others have a second file beside the one
# that is named, or are folders.
_WHOLE_FILES = (
    ".nii", ".nii.gz", ".mha", ".mgz", ".mgh", ".npy", ".png", ".jpg", ".jpeg", ".bmp", ".tif",
    ".tiff", ".dcm", ".dicom",
)  # fmt: skip


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
    return subject_of(items, subject)


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
        What was done in reading and may be unexpected, and what to do about it.

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
        """Return the image as a torchio image with a copy of the values, for preprocessing."""
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
        problems with their remedies.

    Notes
    -----
    Values are those that files store, not as torchio reads them: in a label the indices of
    a palette are the ids, and a resolution for printing is not a spacing. A label or channel
    whose axes lie in another order than the image's is put in order.

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
    """The cases of a dataset: a list of subjects that shows their names.

    A slice is a list of cases too; adding, sorting and the like are those of lists.

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
        """Return a list of other subjects of the same dataset, with its notes."""
        return CaseList(subjects, skipped=self.skipped, notes=self.notes)

    def __repr__(self) -> str:
        names = few(subject_case_id(subject, i) for i, subject in enumerate(self))
        count = f"{len(self)} case{'s' if len(self) != 1 else ''}"
        return f"{type(self).__name__}({count}{': ' if self else ''}{names})"


def case_fingerprint(subject: Any) -> str:
    """Digest the content of a case: image, label (as relabelled), case id and ignored label.

    Files count by their bytes, images in memory by type, shape, values and affine. Where
    files lie, when they were written and whether the subject is loaded does not count.

    Parameters
    ----------
    subject : Subject
        As for `read_case`.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    DatasetError
        If it is no such subject, or a file cannot be read.

    Examples
    --------
    >>> from skte.datasets import case_fingerprint, make_phantoms
    >>> first, second = make_phantoms(2, size=(8, 8, 8))
    >>> case_fingerprint(first) == case_fingerprint(make_phantoms(2, size=(8, 8, 8))[0])
    True
    >>> case_fingerprint(first) == case_fingerprint(second)
    False
    """
    case_id = checked_case_id(subject, "case_fingerprint")
    images, labels = split_images(subject)
    ignore_label = subject.get("ignore_label")
    try:
        content = {
            "case_id": case_id,
            "ignore_label": None if ignore_label is None else int(ignore_label),
            "images": [_fingerprint(image) for image in images.values()],
            "label": _fingerprint(next(iter(labels.values()))),
        }
    except Exception as error:  # readers of images raise errors of any kind
        raise DatasetError(
            f"Case {case_id!r} cannot be read ({type(error).__name__}: {error}). A file may be "
            "missing, truncated or corrupted: replace it or leave the case out."
        ) from error
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fingerprint(image: Any) -> list[Any]:
    paths = image_paths(image)
    if not paths:
        return _of_values(image)
    reader: Any = image.reader
    how: list[Any] = []
    if isinstance(reader, RelabelingReader):
        how = ["relabeled", list(reader.relabeling.ids), reader.relabeling.rest]
        reader = reader.reader
    elif isinstance(reader, ChannelReader):
        how = ["channels", list(reader.channels)]
        reader = reader.reader
    if image_stem(paths[0], PICTURE_ENDINGS):
        how += ["picture", bool(image.get("alpha")), image.get("calibrated", True)]
    fresh = type(image)(image.path, **image_options(image))
    by_files = reader is read_image and all(map(_is_whole_file, paths))
    if _is_loaded(image) and not (by_files and _are_alike(image, fresh)):
        return _of_values(image)
    if not by_files:
        _readable_header(fresh)
        return _of_values(fresh)
    return [*how, "files", *map(file_digest, [p for path in paths for p in _with_spacing(path)])]


def _with_spacing(path: Path) -> list[Path]:
    """Return a file, and those beside it that may state its spacing."""
    return [path, *(spacing_files(path) if image_stem(path, PICTURE_ENDINGS) else ())]


def _readable_header(image: Any) -> ImageHeader:
    """Refuse what must not be read, before it is."""
    headers, _, flaws = read_headers({"image": image})
    if flaws := flaws + memory_flaws(headers, None):
        raise DatasetError("; ".join(f"{what}; {remedy}" for what, remedy in flaws))
    return headers[0]


def _is_loaded(image: Any) -> bool:
    return isinstance(image.get(tio.DATA), torch.Tensor)


def _is_whole_file(path: Path) -> bool:
    """Whether a file holds all of an image, with nothing beside it."""
    return path.is_file() and path.name.lower().endswith(_WHOLE_FILES)


def _are_alike(image: Any, fresh: Any) -> bool:
    """Whether a loaded image is still what its files hold."""
    affine = _readable_header(fresh).affines[0]
    arrays, wrong, _ = read_arrays({"image": fresh})
    # What torchio reads may be other than what is read here: colours for a palette's indices.
    if wrong or not np.allclose(affine, image.affine, rtol=1e-5, atol=1e-5):
        return False
    ours, theirs = np.concatenate(arrays), image.data.numpy()
    if ours.shape != theirs.shape or not all(
        np.allclose(a, b, rtol=1e-5, equal_nan=True) for a, b in zip(ours, theirs, strict=True)
    ):
        return False
    # By digests, where NaN is like itself; they tell types and shapes apart as well.
    alike = tensor_digest(image.data) == tensor_digest(fresh.data)
    return alike and np.array_equal(image.affine, fresh.affine)


def _of_values(image: Any) -> list[Any]:
    affine = np.asarray(image.affine, dtype=np.float64)
    return ["values", tensor_digest(image.data), affine.tobytes().hex()]


def case_stamp(subject: Any) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of every file of a case."""
    images, labels = split_images(subject)
    stamps: dict[str, tuple[int, int]] = {}
    for image in (*images.values(), *labels.values()):
        for path in () if _is_loaded(image) else image_paths(image):
            with suppress(OSError):
                stamps |= {str(file): file_stamp(file) for file in _files_of(path)}
    return stamps


def check_unchanged(subject: Any, stamp: Mapping[str, tuple[int, int]]) -> None:
    """Refuse to go on with a case whose files were written to."""
    now = case_stamp(subject)
    changed = sorted(file for file in {*now, *stamp} if now.get(file) != stamp.get(file))
    if changed:
        raise DatasetError(
            f"Case {subject_case_id(subject)!r} changed while it was in use: "
            f"{', '.join(changed)}. Models that were run before and after have seen different "
            "cases. Run again when the files are complete."
        )


def _files_of(path: Path) -> list[Path]:
    if _is_whole_file(path):
        return _with_spacing(path)
    if path.is_dir():
        return sorted(path.iterdir())
    # A header has its values in a second file beside it.
    stem = path.name.split(".")[0]
    return sorted(other for other in path.parent.iterdir() if other.name.split(".")[0] == stem)
