"""A list of cases that shows what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, SupportsIndex, overload

from skte._table import format_html_table
from skte.datasets._read import read_headers
from skte.datasets._subject import split_images, subject_case_id
from skte.datasets._values import few

__all__ = ["CaseList"]

_SHOWN_CASES = 20  # the header of each is read


class CaseList(list[Any]):
    """The cases of a dataset: a list of subjects that a notebook shows as a table.

    It is a list in every other way. A slice is a list of cases too; adding, sorting and
    the like are those of lists.

    Parameters
    ----------
    subjects : iterable of Subject, default=()
        The cases.

    Examples
    --------
    >>> from skte.datasets import make_phantoms
    >>> cases = make_phantoms(4, size=(16, 16, 16))
    >>> cases
    CaseList(4 cases: ellipsoids_000, ellipsoids_001, ellipsoids_002, ellipsoids_003)
    >>> cases[:2]
    CaseList(2 cases: ellipsoids_000, ellipsoids_001)
    """

    def __init__(self, subjects: Iterable[Any] = ()) -> None:
        super().__init__(subjects)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> CaseList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found = super().__getitem__(index)
        return CaseList(found) if isinstance(index, slice) else found

    def __repr__(self) -> str:
        names = few(subject_case_id(subject, i) for i, subject in enumerate(self))
        return f"{type(self).__name__}({_count(len(self))}{': ' if self else ''}{names})"

    def _repr_html_(self) -> str:
        rows = [_row(subject_case_id(case, i), case) for i, case in enumerate(self[:_SHOWN_CASES])]
        caption = _count(len(self))
        if classes := _classes(self):
            caption += f"; classes {classes}"
        if (more := len(self) - len(rows)) > 0:
            caption += f"; the first {len(rows)}, {more} more are not shown"
        header = ["case", "channels", "size", "spacing (mm)", "image", "label"]
        return format_html_table(header, rows, caption=caption)


def _count(n: int) -> str:
    return f"{n} case" if n == 1 else f"{n} cases"


def _row(case_id: str, subject: Any) -> list[object]:
    """Tell what headers tell; a file that cannot be read must not spoil the table."""
    images, labels = split_images(subject)
    headers, flaws = [], []
    for name, image in images.items():
        found, broken = read_headers(image, name)
        headers += found
        flaws += broken
    files = [_files(images), _files(labels)]
    if flaws or not headers:
        return [case_id, "", "cannot be read" if flaws else "", "", *files]
    first = headers[0]
    spacing = (first.affines[0][:3, :3] ** 2).sum(axis=0) ** 0.5
    return [
        case_id,
        sum(header.shape[0] for header in headers),
        " x ".join(map(str, first.shape[1:])),
        " x ".join(f"{edge:.4g}" for edge in spacing),
        *files,
    ]


def _files(images: dict[str, Any]) -> str:
    paths: list[Path | None] = []
    for image in images.values():
        paths += image.path if isinstance(image.path, list) else [image.path]
    return ", ".join("in memory" if path is None else path.name for path in paths)


def _classes(subjects: Iterable[Any]) -> str:
    names: dict[int, str] = {}
    ignored: dict[int, None] = {}
    for subject in subjects:
        names |= subject.get("label_names") or {}
        if (ignore := subject.get("ignore_label")) is not None:
            ignored[ignore] = None
    texts = [f"{k} {name}" for k, name in sorted(names.items()) if k not in ignored]
    return ", ".join([*texts, *(f"{k} (ignored)" for k in ignored)])
