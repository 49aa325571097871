"""Everything in a folder that can be a model of a bank, and why the rest cannot."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from skte._files import outside_problem
from skte._text import clean_text
from skte.bank._entry import BankEntry
from skte.bank._manifest import read_manifest
from skte.bank._monai_bundle import is_bundle
from skte.bank._nnunet import is_nnunet_folder
from skte.bank._trust import MANIFESTS, check_packages
from skte.bank._weights import read_checkpoint
from skte.exceptions import BankError

__all__ = ["FolderContent", "read_folder"]

_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".ts", ".onnx", ".pt2")
_DEEPEST, _MOST_FOLDERS = 8, 10_000


@dataclass
class FolderContent:
    """What a folder of models holds.

    Attributes
    ----------
    entries : list of BankEntry
        With distinct names, in the order of their paths.
    not_understood : dict of str to str
        Reasons by path, relative to the folder.
    """

    entries: list[BankEntry] = field(default_factory=list)
    not_understood: dict[str, str] = field(default_factory=dict)


def read_folder(
    path: str | os.PathLike[str],
    trusted: Collection[str] = (),
    trusted_packages: Collection[str] = (),
    extra_roots: Sequence[str | os.PathLike[str]] = (),
) -> FolderContent:
    """Look for models in a folder and the folders in it.

    Parameters
    ----------
    path : path-like
        The folder. Hidden folders are left out.
    trusted : collection of str
        Paths, relative to the folder, of what may run code when it is read; of entries
        of manifests their names.
    trusted_packages : collection of str
        Packages whose functions manifests may name as factories.
    extra_roots : sequence of path-like
        Further folders that links and paths may lead to.

    Returns
    -------
    FolderContent
        Models of nnU-Net v2, MONAI bundles, exported programs, and what manifests named
        ``bank.yaml`` (``.yml``, ``.json``) list.

    Raises
    ------
    BankError
        If there is no such folder, or something trusted is not in it.
    """
    root = Path(path)
    if not root.is_dir():
        raise BankError(f"There is no folder {root}.")
    packages = check_packages(trusted_packages)
    names = {Path(item).as_posix() for item in trusted}
    reader = _Reader(root, names, packages, (root, *extra_roots))
    reader.read(root)
    entries = _distinct(reader.found)
    listed = {
        entry.name
        for (place, _), entry in zip(reader.found, entries, strict=True)
        if place not in reader.seen
    }
    # Names as they are told apart: one that two manifests give is no name of either.
    strangers = sorted(reader.trusted - reader.seen - listed)
    if strangers:
        raise BankError(
            f"trusted names {strangers}, but {root} has no models there; it takes paths relative "
            f"to the folder, and names of entries of manifests, of "
            f"{sorted(reader.seen | listed)}."
        )
    reader.content.entries = [
        replace(entry, trusted=True) if entry.name in reader.trusted & listed else entry
        for entry in entries
    ]
    return reader.content


class _Reader:
    """Walks through a folder and notes what it finds."""

    def __init__(
        self,
        root: Path,
        trusted: set[str],
        packages: tuple[str, ...],
        roots: tuple[str | os.PathLike[str], ...],
    ) -> None:
        self.root, self.trusted, self.packages, self.roots = root, trusted, packages, roots
        self.content = FolderContent()
        self.found: list[tuple[str, BankEntry]] = []
        self.seen: set[str] = set()
        self.n_folders = 0

    def read(self, folder: Path, depth: int = 0, around: tuple[Path, ...] = ()) -> None:
        """Read a folder and those in it; `around` are those it lies in, links followed."""
        self.n_folders += 1
        if self.n_folders > _MOST_FOLDERS or depth > _DEEPEST:
            self.content.not_understood[self._name(folder)] = (
                f"not looked at: there are more than {_MOST_FOLDERS} folders, or more than "
                f"{_DEEPEST} within each other"
            )
            return
        if is_nnunet_folder(folder):
            self._try(folder, BankEntry.from_nnunet, extra_roots=self.roots)
        elif is_bundle(folder):
            self._try(folder, BankEntry.from_monai_bundle, extra_roots=self.roots)
        else:
            self._read_files(folder)
            around = (*around, folder.resolve())
            for inner in sorted(folder.iterdir()):
                if not inner.is_dir() or inner.name.startswith(".") or self._leads_out(inner):
                    continue
                if inner.resolve() not in around:  # a link back would be read again and again
                    self.read(inner, depth + 1, around)

    def _read_files(self, folder: Path) -> None:
        used: set[Path] = set()
        for name in MANIFESTS:
            if (folder / name).is_file() and not self._leads_out(folder / name):
                used |= self._read_manifest(folder / name)
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() not in _WEIGHTS or not file.is_file():
                continue
            if self._leads_out(file):
                continue
            if file.suffix.lower() == ".pt2":
                self._try(file, BankEntry.from_exported)
            elif file.absolute() not in used:
                self.content.not_understood[self._name(file)] = _why_not(file)

    def _read_manifest(self, path: Path) -> set[Path]:
        """Take the entries of a manifest; returns the files that they use."""
        try:
            entries = read_manifest(path, roots=self.roots, trusted_packages=self.packages)
        except BankError as error:
            self.content.not_understood[self._name(path)] = str(error)
            return set()
        self.found += [(self._name(path), entry) for entry in entries]
        return {Path(entry.weights) for entry in entries if entry.weights is not None}

    def _leads_out(self, path: Path) -> bool:
        """Note a link that leads out of the folders that may be read."""
        problem = outside_problem(path, self.roots)
        if problem:
            self.content.not_understood[self._name(path)] = f"not looked at: it {problem}"
        return bool(problem)

    def _try(self, path: Path, read: object, **options: object) -> None:
        name = self._name(path)
        self.seen.add(name)
        try:
            entry: BankEntry = read(  # type: ignore[operator]
                path, trusted=name in self.trusted, **options
            )
        except BankError as error:
            self.content.not_understood[name] = str(error)
        except Exception as error:  # a broken model does not cost the others
            self.content.not_understood[name] = f"{type(error).__name__}: {error}"
        else:
            self.found.append((name, entry))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _why_not(file: Path) -> str:
    """Say why a file of weights is no model by itself."""
    try:
        read_checkpoint(file, lazily=True)
    except BankError as error:
        return str(error)
    return (
        "weights alone are no network: name the factory that builds it, and this file, in a "
        "manifest bank.yaml beside it"
    )


def _distinct(found: list[tuple[str, BankEntry]]) -> list[BankEntry]:
    """Tell entries of one name apart by where they were found."""
    counts = Counter(entry.name for _, entry in found)
    named: list[BankEntry] = []
    taken: set[str] = set()
    for place, entry in found:
        name = entry.name if counts[entry.name] == 1 else f"{entry.name} ({clean_text(place, 200)})"
        for other in _others(name):
            if other not in taken:
                taken.add(other)
                named.append(entry if other == entry.name else replace(entry, name=other))
                break
    return named


def _others(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name} {number}"
        number += 1
