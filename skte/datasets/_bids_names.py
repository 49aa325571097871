"""File names of BIDS: ``sub-01_ses-2_desc-manual_dseg.nii.gz``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skte.datasets._image_file import file_flaw

__all__ = ["BidsFile", "bids_files", "read_lookup"]

_ENDINGS = (".nii.gz", ".nii")
# What tells one acquisition from another; other entities say how it was processed.
_ACQUISITION = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part", "chunk")
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class BidsFile:
    """A file and what its name says.

    Parameters
    ----------
    path : Path
        The file.
    entities : dict of str to str
        Key and value, ``{"sub": "01", "desc": "manual"}``.
    suffix : str
        What kind of file it is: ``T1w``, ``dseg``.
    """

    path: Path
    entities: dict[str, str]
    suffix: str

    @classmethod
    def parse(cls, path: Path, ending: str) -> BidsFile | None:
        """Read a name; None where it is not of BIDS."""
        *parts, suffix = path.name[: -len(ending)].split("_")
        pairs = [part.partition("-") for part in parts]
        if not suffix.isalnum() or any(not (key and value) for key, _, value in pairs):
            return None
        return cls(path, {key: value for key, _, value in pairs}, suffix)

    @property
    def acquisition(self) -> dict[str, str]:
        """Entities that tell which acquisition it is or belongs to."""
        return {key: self.entities[key] for key in _ACQUISITION if key in self.entities}

    @property
    def case_id(self) -> str:
        """Name of the case: the entities of its acquisition."""
        return "_".join(f"{key}-{value}" for key, value in self.acquisition.items())


def bids_files(root: Path) -> Iterator[BidsFile]:
    """Images of all subjects and sessions below a folder, sorted."""
    for folder in _data_folders(root):
        for path in sorted(folder.iterdir()):
            ending = next((e for e in _ENDINGS if path.name.endswith(e)), None)
            file = BidsFile.parse(path, ending) if ending else None
            # Names of hidden files do not begin with an entity.
            if file and "sub" in file.entities:
                yield file


def read_lookup(
    file: BidsFile, root: Path, roots: Sequence[Path]
) -> tuple[dict[str, list[int]], str | None]:
    """Names of the ids of a segmentation, from its ``*_dseg.tsv``.

    The table beside the file comes first; else, up to the root, the nearest one whose
    entities are all the file's (the inheritance principle).

    Returns
    -------
    members : dict of str to list of int
        Empty where there is no table.
    problem : str or None
        What is wrong with the table.
    """
    folder = file.path.parent
    while True:
        fitting = [
            table
            for path in sorted(folder.glob("*dseg.tsv"))
            if (table := BidsFile.parse(path, ".tsv"))
            and table.suffix == "dseg"
            and table.entities.items() <= file.entities.items()
        ]
        if fitting:
            return _parse_lookup(max(fitting, key=lambda table: len(table.entities)).path, roots)
        if folder == root or folder == folder.parent:
            return {}, None
        folder = folder.parent


def _parse_lookup(path: Path, roots: Sequence[Path]) -> tuple[dict[str, list[int]], str | None]:
    members: dict[str, list[int]] = {}
    if flaw := file_flaw(path, roots):
        return {}, flaw[0]
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        header, *rows = [line.split("\t") for line in lines if line.strip()] or [[]]
        index, name = header.index("index"), header.index("name")
        for row in rows:
            members.setdefault(row[name].strip(), []).append(int(row[index]))
    except (OSError, ValueError, IndexError) as error:
        return {}, f"{path} is no table with columns 'index' and 'name' ({error})"
    return members, None


def _data_folders(root: Path) -> Iterator[Path]:
    """Folders of one data type (anat, perf ...), with or without sessions between."""
    for subject in sorted(root.glob("sub-*")):
        for level in [subject, *sorted(subject.glob("ses-*"))]:
            if level.is_dir():
                yield level
                yield from (p for p in sorted(level.iterdir()) if p.is_dir() and "-" not in p.name)
