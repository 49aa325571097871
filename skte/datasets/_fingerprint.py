"""What a case is, as one digest of its content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torchio.data.io import read_image

from skte._digests import file_digest, tensor_digest
from skte.datasets._checks import structure_problems
from skte.datasets._problem import raise_problems
from skte.datasets._read import memory_flaws, read_headers
from skte.datasets._relabel import RelabelingReader
from skte.datasets._subject import split_images, subject_case_id
from skte.exceptions import DatasetError

__all__ = ["case_fingerprint", "image_paths", "is_loaded", "is_whole_file"]

# Formats that hold all of an image in one file. Others have a second file beside the one
# that is named, or are folders.
_WHOLE_FILES = (
    ".nii", ".nii.gz", ".mha", ".mgz", ".mgh", ".npy", ".png", ".jpg", ".jpeg", ".bmp", ".tif",
    ".tiff",
)  # fmt: skip


def case_fingerprint(subject: Any) -> str:
    """Digest the content of a case: image, label (as relabelled), case id and ignored label.

    Files count by their bytes, images in memory by type, shape, values and affine. Where
    files lie, when they were written and whether the subject is loaded does not count.
    Unlike a joblib hash, it is the same in every process.

    Parameters
    ----------
    subject : Subject
        A torchio subject with one label map and one or more images. It is left as it
        is: nothing stays loaded on it.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    DatasetError
        If it is no such subject, or a file cannot be read.

    Notes
    -----
    A file is read once in a process and then only when its size or times have changed.
    Of a loaded image that names a file the values are compared with the file's: one that
    was changed in memory is another image.

    Examples
    --------
    >>> from skte.datasets import case_fingerprint, make_phantoms
    >>> first, second = make_phantoms(2, size=(8, 8, 8))
    >>> case_fingerprint(first) == case_fingerprint(make_phantoms(2, size=(8, 8, 8))[0])
    True
    >>> case_fingerprint(first) == case_fingerprint(second)
    False
    """
    if not isinstance(subject, tio.Subject):
        raise DatasetError(
            f"case_fingerprint takes a torchio Subject, got {type(subject).__name__}: "
            "load_dataset turns other forms into subjects."
        )
    case_id = subject_case_id(subject)
    raise_problems(f"Case {case_id!r} cannot be used", structure_problems(case_id, subject))
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
            "missing, truncated or corrupted: get it again or leave the case out."
        ) from error
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fingerprint(image: Any) -> list[Any]:
    paths = image_paths(image)
    if not paths:
        return _of_values(image)
    fresh = type(image)(image.path, reader=image.reader, roots=image.get("roots"))
    reader, how = image.reader, []
    if isinstance(reader, RelabelingReader):
        how = ["relabeled", list(reader.relabeling.ids), reader.relabeling.rest]
        reader = reader.reader
    if reader is not read_image or not all(is_whole_file(path) for path in paths):
        if not is_loaded(image):
            _check_readable(fresh)
        return _of_values(image if is_loaded(image) else fresh)
    if is_loaded(image):
        _check_readable(fresh)
    if is_loaded(image) and not _are_alike(image, fresh):
        return _of_values(image)
    return [*how, "files", *map(file_digest, paths)]


def _check_readable(image: Any) -> None:
    """Refuse what must not be read, before it is."""
    headers, flaws = read_headers(image, "image")
    flaws += memory_flaws(headers, None)
    if flaws:
        raise DatasetError("; ".join(f"{what}; {remedy}" for what, remedy in flaws))


def image_paths(image: Any) -> list[Path]:
    """Return the files of a torchio image; none where it lives in memory."""
    if not image.path:
        return []
    return list(image.path) if isinstance(image.path, list) else [image.path]


def is_loaded(image: Any) -> bool:
    """Tell whether a torchio image holds its values in memory."""
    return isinstance(image.get(tio.DATA), torch.Tensor)


def is_whole_file(path: Path) -> bool:
    """Tell whether a file holds all of an image, with nothing beside it."""
    return path.is_file() and path.name.lower().endswith(_WHOLE_FILES)


def _are_alike(image: Any, fresh: Any) -> bool:
    """Tell whether a loaded image is still what its files hold."""
    # By digests, where NaN is like itself; they tell types and shapes apart as well.
    same_values = tensor_digest(image.data) == tensor_digest(fresh.data)
    return same_values and bool(np.array_equal(image.affine, fresh.affine))


def _of_values(image: Any) -> list[Any]:
    affine = np.asarray(image.affine, dtype=np.float64)
    return ["values", tensor_digest(image.data), affine.tobytes().hex()]
