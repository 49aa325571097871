"""Segmentations among the derivatives of a BIDS dataset, and their images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skte.datasets._assembly import Assembly, ExtraRoots, check_folder
from skte.datasets._case import CaseList
from skte.datasets._image_file import file_flaw
from skte.datasets._problem import Flaw, Problem

_ENDINGS = (".nii.gz", ".nii")
# Entities of the acquisition; others are of its processing.
_ACQUISITION = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part", "chunk")
_MOST_BYTES = 1_000_000
_NO_IMAGES = ("dseg", "probseg", "mask")


@dataclass(frozen=True)
class BidsFile:
    """A file and what its name states: ``{"sub": "01"}`` and the suffix ``dseg``."""

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
        """Entities of the acquisition that it is or belongs to."""
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
    """Ids by name, and a problem, from the ``*_dseg.tsv`` beside a segmentation or above it."""
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
        return {}, f"{path} is not a table with columns 'index' and 'name' ({error})"
    return members, None


def _data_folders(root: Path) -> Iterator[Path]:
    """Folders of one data type (anat, perf ...), with or without sessions between."""
    for subject in sorted(root.glob("sub-*")):
        for level in [subject, *sorted(subject.glob("ses-*"))]:
            if level.is_dir():
                yield level
                yield from (p for p in sorted(level.iterdir()) if p.is_dir() and "-" not in p.name)


def load_bids(
    path: str | os.PathLike[str],
    *,
    channels: Sequence[str] | None = None,
    desc: str | None = None,
    extra_roots: ExtraRoots = (),
    skip_incomplete: bool = False,
) -> CaseList:
    """Load the segmentations (``*_dseg.nii.gz``) of a BIDS dataset and their images.

    Segmentations lie among the derivatives, with names of their ids in a ``*_dseg.tsv``
    beside them or above. The image of one is of the same subject, session and further
    entities of its acquisition (``acq``, ``run`` ...), and of the same ``space``. It is
    looked for among the same derivatives first, then in the dataset itself.

    Parameters
    ----------
    path : path-like
        The dataset, or one folder of its ``derivatives``.
    channels : sequence of str, optional
        Suffixes of the images to read as channels, in order: ``["T1w", "FLAIR"]``. None:
        the only one there is.
    desc : str, optional
        Which segmentations, where there are several of a case: the value of their entity
        ``desc``.
    extra_roots : sequence of path-like, default=()
        Folders outside the dataset that links and paths may lead to.
    skip_incomplete : bool, default=False
        As for `load_dataset`.

    Returns
    -------
    CaseList
        Lazy subjects, as `load_dataset` returns them: one per segmentation, named by its
        entities (``sub-01_ses-2``) and sorted.

    Raises
    ------
    DatasetError
        If there are no segmentations, several of a case, several folders of derivatives
        with some, no image, or several to choose from; it lists all problems.

    Examples
    --------
    >>> from skte.datasets import load_bids
    >>> cases = load_bids("ds000001", channels=["T1w", "FLAIR"])  # doctest: +SKIP
    """
    folder = check_folder(path)
    root, problems = _root_of_segmentations(folder, desc)
    raw = _raw_root(root)
    # Derivatives and their dataset are one, whichever of both was given.
    found = Assembly(raw or folder, extra_roots, skip=skip_incomplete)
    found.place = folder
    found.problems += problems
    found.check()
    places = [list(bids_files(one)) for one in (root, *([raw] if raw else []))]
    by_case: dict[str, list[BidsFile]] = {}
    for file in places[0]:
        if _is_wanted(file, desc):
            by_case.setdefault(file.case_id, []).append(file)
    for case_id, (file, *others) in by_case.items():
        images, flaws = _images_of(file, places, channels)
        draft = found.add(case_id, images, file.path)
        draft.options["members"], broken = read_lookup(file, root, found.roots)
        draft.flaws += flaws + ([(broken, "correct or remove it")] if broken else [])
        if others:
            names = ", ".join(one.path.name for one in (file, *others))
            remedy = "choose with load_bids(path, desc=...), or list the files in a CSV"
            draft.flaws.append((f"it has several segmentations ({names})", remedy))
    # Images and tables of all kinds lie in such a dataset.
    return found.finish(quiet=True)


def is_bids(folder: Path, extra_roots: ExtraRoots = ()) -> bool:
    """Whether a folder holds segmentations as BIDS has them."""
    return any(_has_segmentations(root, None) for root in [folder, *_derivatives(folder)])


def _root_of_segmentations(folder: Path, desc: str | None) -> tuple[Path, list[Problem]]:
    """Find the folder in which the subjects with segmentations lie."""
    if _has_segmentations(folder, desc):
        return folder, []
    found = [root for root in _derivatives(folder) if _has_segmentations(root, desc)]
    if len(found) == 1:
        return found[0], []
    if not found:
        files = f"sub-*/anat/*_desc-{desc}_dseg.nii.gz" if desc else "sub-*/anat/*_dseg.nii.gz"
        what = f"there is no file {files} in it or in its derivatives"
        return folder, [Problem(None, what, "add segmentations, or give another folder")]
    names = ", ".join(f"derivatives/{root.name}" for root in found)
    what = f"several folders hold segmentations: {names}"
    return folder, [Problem(None, what, "give the path of one of them")]


def _derivatives(folder: Path) -> list[Path]:
    parent = folder / "derivatives"
    # Some tools write subjects into derivatives/ itself.
    return [p for p in [parent, *sorted(parent.glob("*"))] if p.is_dir()]


def _raw_root(root: Path) -> Path | None:
    """Find the dataset that derivatives are of."""
    return next((p.parent for p in (root, *root.parents) if p.name == "derivatives"), None)


def _has_segmentations(root: Path, desc: str | None) -> bool:
    return any(_is_wanted(file, desc) for file in bids_files(root))


def _is_wanted(file: BidsFile, desc: str | None) -> bool:
    return file.suffix == "dseg" and desc in (None, file.entities.get("desc"))


def _images_of(
    file: BidsFile, places: Sequence[Sequence[BidsFile]], channels: Sequence[str] | None
) -> tuple[list[Path], list[Flaw]]:
    """Images of a segmentation, one per channel."""
    for files in places:
        fitting = [image for image in files if _fits(image, file)]
        by_suffix: dict[str, list[Path]] = {}
        for image in fitting:
            by_suffix.setdefault(image.suffix, []).append(image.path)
        if by_suffix and not (channels and set(channels).isdisjoint(by_suffix)):
            return _choose(by_suffix, channels)
    what = "there is no image of its subject, session and space"
    return [], [(f"{what} for {file.path.name}", "add it, or list the files in a CSV")]


def _fits(image: BidsFile, segmentation: BidsFile) -> bool:
    # "orig" is the space of the image itself.
    space = segmentation.entities.get("space", "orig")
    return (
        image.suffix not in _NO_IMAGES
        and image.acquisition == segmentation.acquisition
        and image.entities.get("space", "orig") == space
        and image.entities.get("res") == segmentation.entities.get("res")
    )


def _choose(
    by_suffix: dict[str, list[Path]], channels: Sequence[str] | None
) -> tuple[list[Path], list[Flaw]]:
    there = ", ".join(by_suffix)
    if channels is None:
        if len(by_suffix) > 1:
            remedy = f"choose with channels=[...] (--channels ...): {there}"
            return [], [("it has images of several kinds", remedy)]
        channels = list(by_suffix)
    flaws = [
        (f"it has no image {name!r}", f"choose among {there}, or add it")
        for name in channels
        if name not in by_suffix
    ]
    for name in channels:
        if len(paths := by_suffix.get(name, [])) > 1:
            names = ", ".join(path.name for path in paths)
            flaws.append((f"it has several images {name}: {names}", "list the files in a CSV"))
    return [by_suffix[name][0] for name in channels if name in by_suffix], flaws
