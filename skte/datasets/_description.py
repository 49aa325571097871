"""Reading ``dataset.json``, which the MSD and nnU-Net layouts share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from skte.datasets._filenames import is_file
from skte.datasets._problem import Flaw
from skte.exceptions import DatasetError

__all__ = ["check_folder", "read_description", "resolve_inside"]


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Return the path of a folder that exists and is not empty."""
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DatasetError(f"The dataset folder {folder} does not exist: check the path.")
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is not a folder: give the folder that holds the dataset, not a file in it."
        )
    if not any(not p.name.startswith(".") for p in folder.iterdir()):
        raise DatasetError(f"The dataset folder {folder} is empty: check the path.")
    return folder


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's ``dataset.json``, an object."""
    path = folder / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"{folder} has no dataset.json: this layout needs one. Without it, "
            "load_folder(path, images=..., labels=...) reads two folders of files."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON ({error}): mend it.") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold an object ({{...}}), got {type(content).__name__}.")
    return content


def resolve_inside(folder: Path, relative: object) -> tuple[Path, Flaw | None]:
    """Return the path of a file that ``dataset.json`` names, and what is wrong with it.

    Only the text is judged: a link inside the folder may lead anywhere, for whoever
    made the folder placed it there; a text from elsewhere may not.
    """
    if not isinstance(relative, str) or not relative:
        return folder, (f"{relative!r:.200} is not a path", "write the path of a file")
    path = Path(os.path.normpath(folder / relative))
    if not path.is_relative_to(os.path.normpath(folder)):
        what = f"{relative!r:.200} leads out of the dataset folder"
        return path, (what, "paths must stay inside; a CSV of paths may lead anywhere")
    if not is_file(path):
        return path, (f"the file {relative!r:.200} does not exist", "add it, or take it off")
    return path, None
