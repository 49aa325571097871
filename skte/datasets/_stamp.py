"""Whether the files of a case were written to since they were looked at."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from skte._digests import file_stamp
from skte.datasets._fingerprint import image_paths, is_loaded, is_whole_file
from skte.datasets._subject import split_images, subject_case_id
from skte.exceptions import DatasetError

__all__ = ["case_stamp", "check_unchanged"]


def case_stamp(subject: Any) -> dict[str, tuple[int, int]]:
    """Size and time of the last change of every file of a case.

    It costs no reading. Where it differs from an earlier one, the case may have changed:
    `case_fingerprint` tells.

    Parameters
    ----------
    subject : Subject
        A torchio subject with one label map and one or more images.

    Returns
    -------
    dict of str to tuple of int
        By file; none for images in memory. A file that is missing is left out.

    Examples
    --------
    >>> from skte.datasets import case_stamp, make_phantoms
    >>> case_stamp(make_phantoms(1, size=(8, 8, 8))[0])
    {}
    """
    images, labels = split_images(subject)
    stamps: dict[str, tuple[int, int]] = {}
    for image in (*images.values(), *labels.values()):
        for path in () if is_loaded(image) else image_paths(image):
            with suppress(OSError):
                stamps |= {str(file): file_stamp(file) for file in _files(path)}
    return stamps


def check_unchanged(subject: Any, stamp: Mapping[str, tuple[int, int]]) -> None:
    """Refuse to go on with a case whose files were written to.

    Parameters
    ----------
    subject : Subject
        The case.
    stamp : mapping of str to tuple of int
        What `case_stamp` gave before.

    Raises
    ------
    DatasetError
        It names the case and the files.
    """
    now = case_stamp(subject)
    changed = sorted(file for file in {*now, *stamp} if now.get(file) != stamp.get(file))
    if changed:
        raise DatasetError(
            f"Case {subject_case_id(subject)!r} was written to while it was in use: "
            f"{', '.join(changed)}. Models that were run before and after have seen different "
            "cases. Run again when the files are complete."
        )


def _files(path: Path) -> list[Path]:
    if is_whole_file(path):
        return [path]
    if path.is_dir():
        return sorted(path.iterdir())
    # A header has its values in a second file beside it.
    stem = path.name.split(".")[0]
    return sorted(other for other in path.parent.iterdir() if other.name.split(".")[0] == stem)
