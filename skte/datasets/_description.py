"""Reading ``dataset.json``, which the MSD and nnU-Net layouts share."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from skte.datasets._image_file import file_flaw
from skte.datasets._problem import Flaw
from skte.exceptions import DatasetError

__all__ = ["ExtraRoots", "check_folder", "data_roots", "read_description", "resolve_inside"]

#: Folders beside the dataset's own that its files may lie in.
ExtraRoots: TypeAlias = Sequence[str | os.PathLike[str]]

_MOST_BYTES = 16_000_000  # of dataset.json; parsed, it takes up to thirty times as much


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Return the path of a folder that exists and is not empty."""
    folder = Path(path).expanduser().absolute()
    if not folder.exists():
        raise DatasetError(f"The dataset folder {folder} does not exist: check the path.")
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is not a folder: give the folder that holds the dataset, not a file in it."
        )
    if not any(not p.name.startswith(".") for p in folder.iterdir()):
        raise DatasetError(f"The dataset folder {folder} is empty: check the path.")
    return folder


def data_roots(folder: Path, extra_roots: ExtraRoots) -> tuple[Path, ...]:
    """Return the folders in which all files of a dataset must lie."""
    if isinstance(extra_roots, (str, os.PathLike)):
        extra_roots = [os.fspath(extra_roots)]
    return folder, *(Path(root).expanduser().absolute() for root in extra_roots)


def read_description(folder: Path, roots: Sequence[Path] | None = None) -> dict[str, Any]:
    """Return the content of a folder's ``dataset.json``, an object."""
    path = folder / "dataset.json"
    if not (path.exists() or path.is_symlink()):
        raise DatasetError(
            f"{folder} has no dataset.json: this layout needs one. Without it, "
            "load_folder(path, images=..., labels=...) reads two folders of files."
        )
    if flaw := file_flaw(path, roots or (folder,)):
        raise DatasetError(f"{path} cannot be read: {flaw[0]}; {flaw[1]}.")
    if path.stat().st_size > _MOST_BYTES:
        raise DatasetError(f"{path} has more than {_MOST_BYTES} bytes: list fewer cases in it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}): mend it.") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold an object ({{...}}), got {type(content).__name__}.")
    return content


def resolve_inside(
    folder: Path, relative: object, roots: Sequence[Path]
) -> tuple[Path, Flaw | None]:
    """Return the path of a file that a description names, and what is wrong with it."""
    if not isinstance(relative, str) or not relative:
        return folder, (f"{relative!r:.200} is not a path", "write the path of a file")
    path = folder / relative
    return path, file_flaw(path, roots, name=relative)
