"""Which layout a path has, and its loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skte.datasets._bids import is_bids, load_bids
from skte.datasets._csv import CSV_ENDINGS, load_csv
from skte.datasets._description import ExtraRoots, check_folder, data_roots, read_description
from skte.datasets._dicom import is_dicom_dataset, load_dicom
from skte.datasets._filenames import is_file, is_folder
from skte.datasets._folder import load_folder
from skte.datasets._msd import load_msd
from skte.datasets._nnunet import load_nnunet_raw
from skte.exceptions import DatasetError

__all__ = ["LAYOUTS", "load_path"]

#: Names of the layouts, and what they look like.
LAYOUTS = {
    "msd": "dataset.json that lists 'training' (Medical Segmentation Decathlon)",
    "nnunet": "dataset.json with 'channel_names' or 'modality', imagesTr/, labelsTr/ (nnU-Net raw)",
    "bids": "sub-*/ with *_dseg files, or derivatives/ with them (BIDS)",
    "folder": "images/ with labels/ (load_folder takes other names)",
    "dicom": "a folder a case, with DICOM series in subfolders and one label map",
    "csv": "a .csv or .tsv file with columns 'image' and 'label'",
}
# Layouts whose channels have names.
_NAMED_CHANNELS: dict[str, Callable[..., list[Any]]] = {
    "nnunet": load_nnunet_raw,
    "bids": load_bids,
    "dicom": load_dicom,
    "csv": load_csv,
}
_PLAIN: dict[str, Callable[..., list[Any]]] = {"msd": load_msd, "folder": load_folder}


def load_path(
    path: str | os.PathLike[str],
    layout: str | None,
    channels: Sequence[str] | None,
    *,
    merge_regions: bool,
    extra_roots: ExtraRoots = (),
) -> list[Any]:
    """Load a folder or CSV file; for the parameters see `load_dataset`."""
    if layout is not None and layout not in LAYOUTS:
        raise DatasetError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}.")
    if isinstance(channels, str):
        raise DatasetError(f"channels must be a list of names, got {channels!r}: write [...].")
    layout = layout or _find_layout(path, extra_roots)
    if layout in _PLAIN:
        if channels is not None:
            raise DatasetError(
                f"Channels have no names in the layout {layout!r}: leave channels out, or list "
                "the files in a CSV."
            )
        return _PLAIN[layout](path, extra_roots=extra_roots)
    more: dict[str, Any] = {"merge_regions": merge_regions} if layout == "nnunet" else {}
    return _NAMED_CHANNELS[layout](path, channels=channels, extra_roots=extra_roots, **more)


def _find_layout(path: str | os.PathLike[str], extra_roots: ExtraRoots) -> str:
    if Path(path).suffix.lower() in CSV_ENDINGS and not is_folder(Path(path)):
        return "csv"
    folder = check_folder(path)
    found = []
    description = folder / "dataset.json"
    if description.exists() or description.is_symlink():
        found.append(_described_layout(folder, data_roots(folder, extra_roots)))
    if is_bids(folder):
        found.append("bids")
    # A description is meant; without one, what lies there decides.
    if not found:
        n_plain = (folder / "images").is_dir() + (folder / "labels").is_dir()
        if n_plain == 2:  # they may hold DICOM series, as cases do
            found.append("folder")
        elif is_dicom_dataset(folder):
            found.append("dicom")
        elif n_plain:  # its loader says what is missing
            found.append("folder")
    if len(found) > 1:
        raise DatasetError(
            f"{folder} could be read as {' or as '.join(map(repr, found))}: say which with "
            f"layout={found[0]!r} (--layout {found[0]})."
        )
    if found:
        return found[0]
    if (folder / "imagesTr").is_dir():
        hint = " For this folder, load_folder(path, images='imagesTr', labels='labelsTr') may do."
    else:
        hint = ""
    raise DatasetError(f"The layout of {folder} is unknown. {_known()}{hint}")


def _described_layout(folder: Path, roots: Sequence[Path]) -> str:
    description = read_description(folder, roots)
    if {"channel_names", "file_ending", "dataset"} & description.keys():
        return "nnunet"
    if "training" in description and not _lists_channels(folder, description["training"]):
        return "msd"
    if "modality" in description:
        return "nnunet"
    raise DatasetError(
        f"{folder / 'dataset.json'} has none of the keys 'training', 'channel_names' and "
        f"'modality', so its layout is unknown. {_known()}"
    )


def _lists_channels(folder: Path, training: object) -> bool:
    """Whether images are listed as in nnU-Net v1: without the ``_0000`` of their files."""
    first = training[0] if isinstance(training, list) and training else None
    text = first.get("image") if isinstance(first, dict) else None
    if not isinstance(text, str) or not Path(text).name or is_file(folder / text):
        return False
    name = Path(text).name
    return is_file((folder / text).with_name(name.replace(".", "_0000.", 1)))


def _known() -> str:
    return "Known layouts are:\n- " + "\n- ".join(f"{k}: {v}" for k, v in LAYOUTS.items())
