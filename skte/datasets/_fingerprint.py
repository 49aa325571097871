"""What a case is, as one digest, and whether its files were written to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torchio.data.io import read_image

from skte._digests import file_digest, file_stamp, tensor_digest
from skte.datasets._case import checked_case_id, subject_case_id
from skte.datasets._image_file import image_paths, image_stem, spacing_files
from skte.datasets._labels import RelabelingReader, split_images
from skte.datasets._picture import PICTURE_ENDINGS
from skte.datasets._read import (
    ChannelReader,
    image_options,
    memory_flaws,
    read_arrays,
    read_headers,
)
from skte.exceptions import DatasetError

__all__ = ["case_fingerprint", "case_stamp", "check_unchanged"]

# Formats that hold all of an image in one file. Others have a second file beside the one
# that is named, or are folders.
_WHOLE_FILES = (
    ".nii", ".nii.gz", ".mha", ".mgz", ".mgh", ".npy", ".png", ".jpg", ".jpeg", ".bmp", ".tif",
    ".tiff", ".dcm", ".dicom",
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
    fresh = type(image)(image.path, **image_options(image))
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
    by_values = reader is not read_image or not all(is_whole_file(path) for path in paths)
    if by_values and is_loaded(image):
        return _of_values(image)
    if by_values or is_loaded(image):
        _check_readable(fresh)
    if by_values:
        return _of_values(fresh)
    if is_loaded(image) and not _are_alike(image, fresh):
        return _of_values(image)
    return [*how, "files", *map(file_digest, [p for path in paths for p in _with_spacing(path)])]


def _with_spacing(path: Path) -> list[Path]:
    """Return a file, and those beside it that may state its spacing."""
    return [path, *(spacing_files(path) if image_stem(path, PICTURE_ENDINGS) else ())]


def _check_readable(image: Any) -> None:
    """Refuse what must not be read, before it is."""
    headers, _, flaws = read_headers({"image": image})
    flaws += memory_flaws(headers, None)
    if flaws:
        raise DatasetError("; ".join(f"{what}; {remedy}" for what, remedy in flaws))


def is_loaded(image: Any) -> bool:
    """Whether a torchio image holds its values in memory."""
    return isinstance(image.get(tio.DATA), torch.Tensor)


def is_whole_file(path: Path) -> bool:
    """Whether a file holds all of an image, with nothing beside it."""
    return path.is_file() and path.name.lower().endswith(_WHOLE_FILES)


def _are_alike(image: Any, fresh: Any) -> bool:
    """Whether a loaded image is still what its files hold."""
    # By digests, where NaN is like itself; they tell types and shapes apart as well.
    if tensor_digest(image.data) != tensor_digest(fresh.data):
        return False
    if not np.array_equal(image.affine, fresh.affine):
        return False
    # What torchio reads may be other than what is read here: colours for a palette's indices.
    again = {"image": type(image)(image.path, **image_options(image))}
    headers, _, flaws = read_headers(again)
    arrays, wrong, _ = read_arrays(again)
    if flaws or wrong or sum(map(len, arrays)) != len(image.data):
        return False
    if not np.allclose(headers[0].affines[0], image.affine, rtol=1e-5, atol=1e-5):
        return False
    pairs = zip(np.concatenate(arrays), image.data.numpy(), strict=True)
    return all(
        ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-5, equal_nan=True)
        for ours, theirs in pairs
    )


def _of_values(image: Any) -> list[Any]:
    affine = np.asarray(image.affine, dtype=np.float64)
    return ["values", tensor_digest(image.data), affine.tobytes().hex()]


def case_stamp(subject: Any) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of every file of a case."""
    images, labels = split_images(subject)
    stamps: dict[str, tuple[int, int]] = {}
    for image in (*images.values(), *labels.values()):
        for path in () if is_loaded(image) else image_paths(image):
            with suppress(OSError):
                stamps |= {str(file): file_stamp(file) for file in _files(path)}
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


def _files(path: Path) -> list[Path]:
    if is_whole_file(path):
        return _with_spacing(path)
    if path.is_dir():
        return sorted(path.iterdir())
    # A header has its values in a second file beside it.
    stem = path.name.split(".")[0]
    return sorted(other for other in path.parent.iterdir() if other.name.split(".")[0] == stem)
