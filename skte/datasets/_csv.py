"""A table of paths: one row per case."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from skte.datasets._assembly import Assembly, ExtraRoots
from skte.datasets._case import ID_KEYS, CaseList, stem_case_id
from skte.datasets._image_file import find_file
from skte.datasets._problem import Problem
from skte.exceptions import DatasetError

_ENDINGS = (".csv", ".tsv")
_MOST_BYTES = 50_000_000  # of a table of paths; more is another file
_MOST_CELLS = 1_000_000


def load_csv(
    path: str | os.PathLike[str],
    *,
    channels: Sequence[str] | None = None,
    label: str = "label",
    case_id: str | None = None,
    extra_roots: ExtraRoots = (),
    skip_incomplete: bool = False,
) -> CaseList:
    r"""Load the cases that a table of paths lists, one per row.

    The first line names the columns: ``label``; ``image``, or one column per channel
    (``image_t1``, ``image_t2``, ...: all that begin with ``image``, in order); and, where
    there is one, ``case_id`` (or ``id``, ``name``, ``subject_id``). Others are left
    alone. Columns are divided by commas or semicolons, in a ``.tsv`` by tabs.

    Parameters
    ----------
    path : path-like
        The file. Paths in it are relative to its folder, or absolute, and must lie within
        it or the `extra_roots`. An image may be a folder that holds one DICOM series.
    channels : sequence of str, optional
        Columns of the channels, in order, where their names do not begin with "image".
    label : str, default="label"
        Column of the label map.
    case_id : str, optional
        Column of the case id. Without one, a case is named by its first image.
    extra_roots : sequence of path-like, default=()
        Folders outside that of the file that paths may lead to, a data share for instance.
    skip_incomplete : bool, default=False
        As for `load_dataset`.

    Returns
    -------
    CaseList
        Lazy subjects, as `load_dataset` returns them, in the order of the rows.

    Raises
    ------
    DatasetError
        If the file, its columns or files it names are missing, or case ids repeat; it lists
        all problems.

    Examples
    --------
    >>> import shutil, tempfile
    >>> from pathlib import Path
    >>> from skte.datasets import load_csv, make_phantoms
    >>> folder = Path(tempfile.mkdtemp())
    >>> (case,) = make_phantoms(1, size=(16, 16, 16))
    >>> for kind in ("image", "label"):
    ...     case[kind].save(folder / f"{kind}.nii.gz")
    >>> table = "case_id,image,label\na,image.nii.gz,label.nii.gz"
    >>> _ = (folder / "cases.csv").write_text(table)
    >>> [subject["case_id"] for subject in load_csv(folder / "cases.csv")]
    ['a']
    >>> shutil.rmtree(folder)
    """
    file = Path(path).expanduser().absolute()
    columns, rows = _read_table(file)
    found = Assembly(file, extra_roots, skip=skip_incomplete)
    if channels is None:
        channels = [name for name in columns if name.lower().startswith("image")]
    needed = [*channels, label]
    found.problems += _column_problems(columns, needed, case_id)
    if not rows:
        found.fail("the table lists no case", "add a line for each")
    found.check()
    id_column = case_id or next((name for name in ID_KEYS if name in columns), None)
    for number, row in rows:
        files = {name: find_file(file.parent, row[name]) for name in needed if row[name]}
        images = [files[name] for name in channels if name in files]
        name = row[id_column] if id_column else ""
        name = name or (stem_case_id(images[0]) if images else f"in line {number}")
        empty = [(f"column {name!r} is empty", "name a file") for name in needed if not row[name]]
        found.add(name, images, files.get(label)).flaws += empty
    return found.finish(walk=False)


def is_csv(path: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether a path is named like a table, and is not a folder."""
    return path.suffix.lower() in _ENDINGS and not os.path.isdir(path)


def _read_table(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns, and rows with the numbers of their lines."""
    if not os.path.isfile(file):
        raise DatasetError(f"The table {file} does not exist: check the path.")
    if file.stat().st_size > _MOST_BYTES:
        raise DatasetError(f"{file} is too large for a table of paths: give one with fewer rows.")
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            delimiter = _delimiter(file, opened.readline())
            opened.seek(0)
            reader = csv.DictReader(opened, delimiter=delimiter, restkey="", strict=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = []
            for row in reader:
                if any(isinstance(value, str) and value.strip() for value in row.values()):
                    kept = {k: (v or "").strip() for k, v in row.items() if k}
                    rows.append((reader.line_num, kept))
                if len(rows) * len(columns) > _MOST_CELLS:
                    raise ValueError(f"it has more than {_MOST_CELLS} cells")
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{file} is not a valid table ({error}): correct it.") from error
    return columns, rows


def _delimiter(file: Path, first: str) -> str:
    if file.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=first.count)  # the comma where none occurs


def _column_problems(
    columns: Sequence[str], needed: Sequence[str], case_id: str | None
) -> list[Problem]:
    there = f"the columns are {', '.join(columns) or '(none)'}"
    problems = [
        Problem(None, f"there is no column {name!r}", f"add it, or name another; {there}")
        for name in [*needed, *([case_id] if case_id else [])]
        if name not in columns
    ]
    if len(needed) == 1:
        remedy = f"name one 'image', or name the channels' columns; {there}"
        problems.append(Problem(None, "no column begins with 'image'", remedy))
    problems += [
        Problem(None, f"column {name!r} occurs {n} times", "give each a name of its own")
        for name in dict.fromkeys(needed)
        if (n := columns.count(name)) > 1
    ]
    return problems
