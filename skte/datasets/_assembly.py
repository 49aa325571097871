"""The cases that a layout finds on disk, checked together, and every file that is used in none."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from skte._text import clean_text
from skte.datasets._case import CaseList, make_subject, repeated_ids
from skte.datasets._image_file import file_flaw, image_stem, spacing_files
from skte.datasets._problem import Flaw, Problem, Skipped, few, raise_problems
from skte.datasets._read import count_channels
from skte.exceptions import DatasetError, SkteWarning

#: Folders beside the dataset's own that its files may lie in.
ExtraRoots: TypeAlias = Sequence[str | os.PathLike[str]]
_MOST_LISTED = 100_000
_SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "icon\r")
_TEST = ("imagests", "labelsts", "inferts", "imagesval", "test")
_TEXTS = (
    ".json", ".txt", ".md", ".rst", ".tsv", ".csv", ".xlsx", ".pdf", ".html", ".yaml", ".yml",
    ".xml", ".py", ".sh", ".pkl", ".bval", ".bvec", ".sha256", ".md5", ".log",
)  # fmt: skip
_TEXT_NAMES = ("readme", "license", "licence", "changes", "version", "dicomdir")
_DATA = (".raw", ".zraw", ".img", ".img.gz", ".raw.gz")


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


@dataclass
class Draft:
    """What a layout found of one case, and what is wrong with it."""

    case_id: str  # empty: nothing names it
    images: list[Path]
    label: Path | None
    flaws: list[Flaw] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)  # images that are not read
    checked: bool = False  # whether what its files have wrong is among its flaws
    where: str = ""  # before what is wrong, where there is no name
    options: dict[str, Any] = field(default_factory=dict)  # of `make_subject`

    @property
    def files(self) -> list[Path]:
        """Images, and the label if there is one."""
        return [*self.images, *self.others, *([self.label] if self.label else [])]

    @property
    def problems(self) -> list[Problem]:
        """Its flaws, with its name."""
        name = self.case_id or None
        return [Problem(name, self.where + what, remedy) for what, remedy in self.flaws]

    def subject(self, roots: Sequence[Path]) -> Any:
        """Return the lazy subject of a case without flaws."""
        assert self.label is not None
        return make_subject(self.case_id, self.images, self.label, roots=roots, **self.options)


class Assembly:
    """A dataset on disk while its layout finds the cases; `finish` checks and returns them."""

    def __init__(self, place: Path, extra_roots: ExtraRoots, *, skip: bool) -> None:
        self.place, self.skip = place, skip
        self.roots = data_roots(place if place.is_dir() else place.parent, extra_roots)
        self.drafts: list[Draft] = []
        self.problems: list[Problem] = []  # of the dataset as a whole
        self.notes: list[Problem] = []

    def add(self, case_id: str, images: Iterable[Path], label: Path | None) -> Draft:
        """Add a case, whose flaws and options may follow."""
        self.drafts.append(Draft(case_id, list(images), label))
        return self.drafts[-1]

    def fail(self, what: str, remedy: str) -> None:
        """Add a problem of the dataset as a whole."""
        self.problems.append(Problem(None, what, remedy))

    def check(self) -> None:
        """Raise what is wrong with the dataset as a whole, if anything."""
        raise_problems(f"The dataset {self.place} cannot be loaded", self.problems)

    def sound(self) -> list[Draft]:
        """Cases without a flaw so far."""
        return [draft for draft in self.drafts if not draft.flaws]

    def check_channels(self, n_channels: int | None = None) -> Iterator[tuple[Draft, Flaw]]:
        """Cases with other channels than expected; a file may hold several, alpha among them."""
        if n_channels is None and len({len(draft.images) for draft in self.sound()}) < 2:
            return
        for draft in self.sound():
            found = count_channels(draft.images, roots=self.roots) or len(draft.images)
            n_channels = n_channels or found
            if found < n_channels == count_channels(draft.images, roots=self.roots, alpha=True):
                draft.options["alpha"] = True
            elif found != n_channels:
                what = f"it has {found} channels where {n_channels} are expected"
                yield draft, (what, "give every case the same channels")

    def check_files(self) -> None:
        """Add the flaws of files that lead out, or are none: links to nothing, pipes."""
        for draft in self.drafts:
            files = [] if draft.checked else draft.files
            draft.flaws += [flaw for one in files if (flaw := file_flaw(one, self.roots))]
            draft.checked = True

    def finish(
        self, *, read: Iterable[Path] = (), walk: bool = True, quiet: bool = False
    ) -> CaseList:
        """Return the cases, or raise all problems at once.

        Files that are used in none become notes, if `walk`; `read` are used otherwise, and
        `quiet` is for folders that hold much else.
        """
        self.check_files()
        kept = self.sound()
        self.problems += repeated_ids(draft.case_id for draft in kept)
        incomplete = [problem for draft in self.drafts for problem in draft.problems]
        if not (self.skip and kept):
            more = ", or leave it out: skip_incomplete=True (--skip-unusable)" if kept else ""
            self.problems += [one._replace(remedy=one.remedy + more) for one in incomplete]
        self.check()
        if incomplete:
            whats = {p.case_id or p.what: ": ".join(filter(None, p[:2])) for p in incomplete}
            names = clean_text(few(whats.values()), 500)
            what = f"{len(whats)} left out as incomplete: {names}"
            self.notes.append(Problem(None, what, "complete them, or ignore this"))
        told, skipped = list(self.notes), list[Skipped]()
        if walk:
            used = {*read, *(file for draft in self.drafts for file in draft.files)}
            used |= {beside for file in used for beside in spacing_files(file)}
            skipped = list(_skipped(self.place, {Path(os.path.normpath(path)) for path in used}))
            notes = _skipped_notes(self.place, skipped)
            self.notes += notes.values()
            told += [note for (_, expected), note in notes.items() if not (quiet or expected)]
        if told:
            lines = "\n- ".join(map(str, told))
            warnings.warn(f"The dataset {self.place}:\n- {lines}", SkteWarning, stacklevel=3)
        subjects = [draft.subject(self.roots) for draft in kept]
        return CaseList(subjects, skipped=skipped, notes=self.notes)


def is_segmentation(path: Path) -> bool:
    """Whether a file has the name that 3D Slicer gives to segmentations."""
    return path.name.lower().endswith((".seg.nrrd", ".seg.nhdr"))


def _skipped_notes(folder: Path, skipped: Iterable[Skipped]) -> dict[tuple[str, bool], Problem]:
    """One note for all files of a reason, and whether that is expected."""
    by_reason: dict[tuple[str, bool], list[str]] = {}
    for one in skipped:
        name = str(one.path.relative_to(folder))
        by_reason.setdefault((one.reason, one.expected), []).append(name)
    notes = {}
    for key, names in by_reason.items():
        count = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        what = f"{count} not used, {key[0]}: {clean_text(few(names), 500)}"
        notes[key] = Problem(None, what, "give them the names of a case, or ignore this")
    return notes


def _skipped(folder: Path, used: set[Path]) -> Iterator[Skipped]:
    """Files and folders below a folder that are not used, and why."""
    beside = {path.parent for path in used}
    n_left = _MOST_LISTED
    for root, folders, files in os.walk(folder):
        place = Path(root)
        folders.sort()
        if not folders and not files:
            yield Skipped(place, "empty folders", place.parent not in beside)
        for name in [*folders]:
            path = place / name
            if path in used:
                folders.remove(name)
            elif name.startswith(".") or name.lower() in _SYSTEM:
                folders.remove(name)
                yield Skipped(path, "hidden, or written by the system", True)
            elif path.is_symlink():
                yield Skipped(path, "a link to a folder", path.parent not in beside)
        for name in sorted(files):
            path = place / name
            if path in used:
                continue
            n_left -= 1
            if n_left < 0:
                yield Skipped(place, f"not looked at after {_MOST_LISTED} files", False)
                return
            yield Skipped(path, *_reason(path, folder, beside, files))


def _reason(
    path: Path, folder: Path, beside: Collection[Path], siblings: Sequence[str]
) -> tuple[str, bool]:
    """Why a file is not used, and whether that is expected."""
    name = path.name.lower()
    if name.startswith(".") or name in _SYSTEM:
        return "hidden, or written by the system", True
    if any(part.lower() in _TEST for part in path.relative_to(folder).parts[:-1]):
        return "of the test set", True
    stem = name.split(".")[0]
    if name.endswith(_DATA) and any(
        one.lower().startswith(f"{stem}.") and one.lower().endswith((".mhd", ".nhdr", ".hdr"))
        for one in siblings
    ):
        return "the data of a header beside them", True
    if is_segmentation(path):
        return "segmentations beside the images that they are of", False
    if image_stem(path) is not None:
        return "images of no case", False
    expected = path.parent not in beside
    if name in _TEXT_NAMES:
        return "no images", True
    if name.endswith(_TEXTS):
        if image_stem(path.with_suffix("")) is None or path.stem in siblings:
            return "no images", True
        return "images with another extension", expected
    if path.is_symlink() and not path.exists():
        return "links that lead nowhere", expected
    if "." not in name:
        return "no images" if expected else "without an extension", expected
    return "with an extension that is not read", expected
