"""Reading ``dataset.json``, which the MSD and nnU-Net layouts share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skte.exceptions import DatasetError

__all__ = ["check_folder", "parse_labels", "read_description", "resolve_inside"]


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


def resolve_inside(folder: Path, relative: object) -> tuple[Path, str | None]:
    """Return the path of a file that ``dataset.json`` names, and what is wrong with it.

    Only the text is judged: a link inside the folder may lead anywhere, for whoever
    made the folder placed it there; a text from elsewhere may not.
    """
    if not isinstance(relative, str) or not relative:
        return folder, f"{relative!r} is not a path"
    path = Path(os.path.normpath(folder / relative))
    if not path.is_relative_to(os.path.normpath(folder)):
        return path, f"{relative!r} leads out of the dataset folder; paths must stay inside"
    if not path.is_file():
        return path, f"the file {relative!r} does not exist"
    return path, None


def parse_labels(labels: object) -> tuple[dict[int, str], int | None, list[str]]:
    """Names of label ids, the ignore label, and problems, from either way of writing.

    Both ``{"0": "background"}`` (MSD, nnU-Net v1) and ``{"background": 0}`` (nnU-Net
    v2, where a region lists several ids) are read. An id in several regions takes the
    name of the smallest.
    """
    if not isinstance(labels, Mapping) or not labels:
        return {}, None, ["key 'labels' must be an object such as {\"background\": 0, ...}"]
    members: dict[str, list[int]] = {}
    problems = []
    for key, value in labels.items():
        # MSD writes id -> name, nnU-Net v2 name -> id.
        name, ids = (value, key) if isinstance(value, str) and _is_integer(key) else (key, value)
        ids = ids if isinstance(ids, list) else [ids]
        if ids and all(_is_integer(i) for i in ids):
            members[str(name)] = [int(i) for i in ids]
        else:
            problems.append(
                f"label {key!r} must map to an integer or a list of them, not {value!r}"
            )
    ignore = members.pop("ignore", None)
    names: dict[int, str] = {}
    for name, ids in sorted(members.items(), key=lambda item: -len(item[1])):
        names.update(dict.fromkeys(ids, name))  # smaller regions come later and win
    if ignore and len(ignore) > 1:
        problems.append(f"label 'ignore' must be one integer, not {ignore}")
    return dict(sorted(names.items())), ignore[0] if ignore else None, problems


def _is_integer(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lstrip("+-").isdigit()
    return isinstance(value, int) and not isinstance(value, bool)
