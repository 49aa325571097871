"""Several models with distinct names, and where they are found."""

from __future__ import annotations

import dataclasses
import operator
import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeAlias, overload

from torch import nn

from skte._files import outside_problem
from skte._table import format_html_table
from skte._text import clean_text, did_you_mean
from skte.bank._entry import BankEntry
from skte.bank._manifest import check_packages, read_manifest
from skte.bank._readers import MANIFEST, Reader, ReadOptions, all_readers
from skte.bank._weights import NOT_READ, read_checkpoint, weight_file
from skte.exceptions import BankError, SkteWarning


class ModelBank(Sequence[BankEntry]):
    """The models to choose from: entries in order, also found by name.

    Parameters
    ----------
    entries : iterable of BankEntry
        At least one, with distinct names.

    Attributes
    ----------
    names : tuple of str
        Names of the entries, in order.
    not_understood : dict of str to str
        What `from_folder` found but could not use, with the reasons, by path.
    places : dict of str to str
        Where `from_folder` found each entry, by name: paths relative to the folder.

    Raises
    ------
    BankError
        If there are no entries, something else is among them, or names repeat.

    Examples
    --------
    >>> from torch import nn
    >>> from skte import ModelBank
    >>> bank = ModelBank.from_modules({"a": nn.Conv3d(1, 2, 1), "b": nn.Conv3d(1, 2, 1)})
    >>> bank
    ModelBank(['a', 'b'])
    >>> bank["b"] is bank[1], len(bank), "a" in bank
    (True, 2, True)
    """

    def __init__(self, entries: Iterable[BankEntry]) -> None:
        if isinstance(entries, Mapping):
            raise BankError("A ModelBank takes entries; load_bank makes one of a dict.")
        self.entries: tuple[BankEntry, ...] = tuple(entries)
        self.not_understood: dict[str, str] = {}
        self.places: dict[str, str] = {}
        if not self.entries:
            raise BankError("A bank needs at least one entry, got none.")
        strangers = [type(e).__name__ for e in self.entries if not isinstance(e, BankEntry)]
        if strangers:
            raise BankError(
                f"A bank holds BankEntry objects, got {', '.join(sorted(set(strangers)))}. Wrap "
                "networks at hand with BankEntry.from_module(name, network)."
            )
        counts = Counter(entry.name for entry in self.entries)
        repeated = [name for name, n in counts.items() if n > 1]
        if repeated:
            raise BankError(f"Entry names must be distinct; repeated: {repeated}.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the entries, in order."""
        return tuple(entry.name for entry in self.entries)

    @classmethod
    def from_manifest(
        cls,
        path: str | os.PathLike[str],
        *,
        trusted_packages: Collection[str] = (),
        extra_roots: Collection[str | os.PathLike[str]] = (),
    ) -> Self:
        """Read a bank from a YAML or JSON manifest; nothing is imported or loaded yet.

        Parameters
        ----------
        path : path-like
            The manifest. Paths in it are relative to its folder, and may not leave it.
        trusted_packages, extra_roots
            As for `load_bank`.

        Raises
        ------
        BankError
            If the manifest is wrong; the message lists every problem.
        """
        return cls(read_manifest(path, roots=tuple(extra_roots), trusted_packages=trusted_packages))

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        *,
        trusted: Collection[str] = (),
        trusted_packages: Collection[str] = (),
        extra_roots: Collection[str | os.PathLike[str]] = (),
    ) -> Self:
        """Make a bank of all models in a folder, whatever tool left them.

        Found, at any depth, is what a reader of `all_readers` knows: models of nnU-Net v2 (each
        fold is one), MONAI bundles, programs of ``torch.export``, the entries of manifests
        named ``bank.yaml`` (``.yml``, ``.json``). What cannot be used costs nothing else.

        Parameters
        ----------
        path : path-like
            The folder.
        trusted : collection of str
            Paths, relative to the folder, of models that may run code when they are read; of
            entries of manifests their names.
        trusted_packages, extra_roots
            As for `load_bank`.

        Returns
        -------
        ModelBank
            `not_understood` says what was left out and why; a warning does so as well.

        Raises
        ------
        BankError
            If nothing in the folder can be used; the message lists what there is.
        """
        root = Path(path)
        if not root.is_dir():
            raise BankError(f"There is no folder {root}.")
        options = ReadOptions(
            trusted_packages=check_packages(trusted_packages), extra_roots=(root, *extra_roots)
        )
        readers = all_readers()
        search = _FolderSearch(root, trusted, options, tuple(readers.values()))
        entries = search.entries()
        listed = "\n".join(f"  - {name}: {why}" for name, why in search.not_understood.items())
        if not entries:
            raise BankError(
                f"Folder {path} holds no model that can be used"
                + (f":\n{listed}" if listed else f": no {', no '.join(readers)}.")
            )
        if listed:
            warnings.warn(
                f"Folder {path}: not understood and left out:\n{listed}", SkteWarning, stacklevel=2
            )
        bank = cls(entries)
        bank.not_understood = search.not_understood
        bank.places = dict(zip(bank.names, (place for place, _ in search.found), strict=True))
        return bank

    @classmethod
    def from_modules(cls, modules: Mapping[str, nn.Module], **fields: Any) -> Self:
        """Make a bank of networks at hand.

        Parameters
        ----------
        modules : mapping of str to nn.Module
            Networks by name, which are used as they are.
        **fields
            Other fields of every `BankEntry`, such as ``preprocessing=["ZNormalization"]``: without
            it, networks get images as they are.
        """
        return cls(BankEntry.from_module(name, one, **fields) for name, one in modules.items())

    @overload
    def __getitem__(self, index: int | str) -> BankEntry: ...

    @overload
    def __getitem__(self, index: slice) -> ModelBank: ...

    def __getitem__(self, index: int | str | slice) -> BankEntry | ModelBank:
        if isinstance(index, slice):
            return type(self)(self.entries[index])
        if isinstance(index, str):
            for entry in self.entries:
                if entry.name == index:
                    return entry
            alike = [name for name in self.names if name.startswith(f"{index} (")]
            if len(alike) > 1:  # as from_folder tells them apart
                raise BankError(
                    f"The bank has {len(alike)} entries {index!r}, from different places; name "
                    f"one of: {', '.join(map(repr, alike))}."
                )
            raise BankError(f"The bank has no entry {index!r}; {did_you_mean(index, self.names)}")
        return self.entries[operator.index(index)]

    def __contains__(self, item: Any) -> bool:
        return item in (self.names if isinstance(item, str) else self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelBank) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.names)})"

    def _repr_html_(self) -> str:
        rows = []
        for entry in self.entries:
            layers = entry.layers if isinstance(entry.layers, str) else ", ".join(entry.layers)
            window = "fitted" if entry.window_size is None else entry.window_size
            origin = "; ".join(f"{key}: {value}" for key, value in entry.provenance.items())
            rows.append([entry.name, layers, window, len(entry.preprocessing), origin])
        header = ["model", "layers", "window", "preprocessing steps", "provenance"]
        return format_html_table(header, rows, caption=f"{len(self)} models")


#: Type of what is taken as a bank: a `ModelBank`, an entry or a list of them, a dict of names to
#: networks or entries, or a path; see `load_bank`.
BankLike: TypeAlias = (
    ModelBank
    | BankEntry
    | Mapping[str, nn.Module | BankEntry]
    | Sequence[BankEntry]
    | str
    | os.PathLike[str]
)


def load_bank(
    bank: BankLike,
    *,
    trusted_packages: Collection[str] = (),
    extra_roots: Collection[str | os.PathLike[str]] = (),
) -> ModelBank:
    """Make a `ModelBank` of anything that can be one.

    Parameters
    ----------
    bank : ModelBank, dict of str to nn.Module or BankEntry, list of BankEntry, or path
        A path leads to a YAML or JSON manifest, or to a folder of models. In a dict the
        key is the name, also of an entry that has another one.
    trusted_packages : collection of str
        Packages or modules whose functions a manifest may name as factories, beside those that
        ``skte bank init --trust-package`` keeps for it; `BankEntry.load` imports and calls them.
        Of a path only: an entry has its own.
    extra_roots : collection of path-like
        Further folders that paths and links in the folder or manifest may lead to.

    Returns
    -------
    ModelBank
        A `ModelBank` is returned as it is.

    Raises
    ------
    BankError
        If `bank` is something else, is empty, or holds something else.

    Examples
    --------
    >>> from torch import nn
    >>> from skte.bank import load_bank
    >>> load_bank({"tiny": nn.Conv3d(1, 2, 1)})
    ModelBank(['tiny'])
    """
    if isinstance(bank, (str, os.PathLike)):
        read = ModelBank.from_folder if os.path.isdir(bank) else ModelBank.from_manifest
        return read(bank, trusted_packages=trusted_packages, extra_roots=extra_roots)
    if trusted_packages or extra_roots:
        raise BankError(
            "trusted_packages and extra_roots are about a path, and this bank is not one; give "
            "trusted_packages to each BankEntry."
        )
    if isinstance(bank, ModelBank):
        return bank
    if isinstance(bank, BankEntry):
        return ModelBank([bank])
    if isinstance(bank, Mapping):
        return ModelBank(_named(name, model) for name, model in bank.items())
    if not isinstance(bank, Sequence):
        raise BankError(
            f"Cannot make a bank of {type(bank).__name__}. Give a ModelBank, a dict of names to "
            "networks, a list of BankEntry, or the path of a manifest or folder."
        )
    return ModelBank(bank)  # type: ignore[arg-type]  # mypy: a str, which left above


def _named(name: Any, model: Any) -> BankEntry:
    if isinstance(model, BankEntry):
        return model if model.name == name else dataclasses.replace(model, name=name)
    if isinstance(model, nn.Module):
        return BankEntry.from_module(name, model)
    got, remedy = type(model).__name__, ""
    if isinstance(model, type):
        got, remedy = f"the class {model.__name__}", f"; call it: {model.__name__}(...)"
    elif isinstance(model, Mapping):
        remedy = "; build the network, and call its load_state_dict with this"
    elif isinstance(model, (str, os.PathLike)):
        entry = f"BankEntry({name!r}, factory, weights={os.fspath(model)!r})"
        remedy = f"; give {entry}, where factory builds the network"
    raise BankError(f"Entry {name!r}: expected an nn.Module or BankEntry, got {got}{remedy}.")


_WEIGHTS = (
    ".pt", ".pth", ".pth.tar", ".ckpt", ".safetensors", ".bin", ".ts", ".torchscript", ".jit",
    ".model", ".pkl", ".zip", *NOT_READ,
)  # fmt: skip
_DEEPEST, _MOST_FOLDERS = 8, 10_000


class _FolderSearch:
    """What the readers find in a folder and the folders in it, and why the rest is left out."""

    def __init__(
        self, root: Path, trusted: Collection[str], options: ReadOptions, readers: Sequence[Reader]
    ) -> None:
        self.root, self.options, self.readers = root, options, readers
        self.trusted = {Path(item).as_posix() for item in trusted}
        self.not_understood: dict[str, str] = {}
        self.found: list[tuple[str, BankEntry]] = []
        self.seen: set[str] = set()  # places of single models
        self.visited: set[Path] = set()
        self.used: set[Path] = set()  # weights that manifests name
        self.links: list[tuple[Path, int]] = []

    def entries(self) -> list[BankEntry]:
        """Read the folder; its entries have distinct names, in the order of their places."""
        self._visit(self.root)
        while self.links:
            self._visit(*self.links.pop(0))
        entries = _distinct(self.found)
        # Names as they are told apart: one that two manifests give is no name of either.
        listed = {
            entry.name
            for (place, _), entry in zip(self.found, entries, strict=True)
            if place not in self.seen
        }
        strangers = sorted(self.trusted - self.seen - listed)
        if strangers:
            raise BankError(
                f"trusted names {strangers}, but {self.root} has no models there; it takes paths "
                "relative to the folder, and names of entries of manifests, of "
                f"{sorted(self.seen | listed)}."
            )
        return [
            replace(entry, trusted=True) if entry.name in self.trusted & listed else entry
            for entry in entries
        ]

    def _visit(self, folder: Path, depth: int = 0) -> None:
        """Read a folder and those in it; links wait for the end, and no folder is read twice."""
        if folder.resolve() in self.visited:
            return
        self.visited.add(folder.resolve())
        if len(self.visited) > _MOST_FOLDERS or depth > _DEEPEST:
            self.not_understood[self._name(folder)] = (
                f"not looked at: there are more than {_MOST_FOLDERS} folders, or they are nested "
                f"deeper than {_DEEPEST} levels"
            )
            return
        reader = self._reader(folder)
        if reader is not None:
            self._read(folder, reader)
            return
        content = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        self._visit_files([path for path in content if path.is_file()])
        for inner in content:
            if not inner.is_dir() or self._leads_out(inner):
                continue
            if inner.is_symlink():
                self.links.append((inner, depth + 1))
            else:
                self._visit(inner, depth + 1)

    def _visit_files(self, files: Sequence[Path]) -> None:
        # Manifests first: they say what the weights beside and below them are for.
        for file in sorted(files, key=lambda file: not MANIFEST.matches(file)):
            reader = self._reader(file)
            if (reader is None and not file.name.lower().endswith(_WEIGHTS)) or self._leads_out(
                file
            ):
                continue
            if reader is not None:
                entries = self._read(file, reader)
                for entry in entries:
                    if entry.weights is not None:
                        self.used.add(weight_file(Path(entry.weights)))
            elif file.absolute() not in self.used:
                self.not_understood[self._name(file)] = _why_not(file)

    def _reader(self, path: Path) -> Reader | None:
        for reader in self.readers:
            try:
                if reader.matches(path):
                    return reader
            except Exception as error:  # of another package
                why = f"its reader {reader.name!r} failed: {type(error).__name__}: {error}"
                self.not_understood[self._name(path)] = why
        return None

    def _read(self, path: Path, reader: Reader) -> Sequence[BankEntry]:
        read: list[BankEntry] = []
        for part in getattr(reader, "parts", lambda path: [path])(path):
            names = {self._name(path), self._name(part)}
            if reader is not MANIFEST:
                self.seen |= names
            try:
                options = replace(self.options, trusted=not names.isdisjoint(self.trusted))
                entries = [self._checked(entry) for entry in reader.read(part, options)]
            except BankError as error:
                self.not_understood[self._name(part)] = str(error)
            except Exception as error:  # a broken model does not cost the others
                self.not_understood[self._name(part)] = f"{type(error).__name__}: {error}"
            else:
                self.found += [(self._name(part), entry) for entry in entries]
                read += entries
        return read

    def _checked(self, entry: Any) -> BankEntry:
        """Return what a reader, perhaps of another package, made of a model, or refuse it."""
        if not isinstance(entry, BankEntry):
            raise BankError(
                f"its reader returned {clean_text(repr(entry), 100)}, which is not a BankEntry; "
                "update or uninstall its package"
            )
        if entry.weights is not None:
            problem = outside_problem(entry.weights, self.options.extra_roots)
            if problem:
                raise BankError(f"its weights file {Path(entry.weights).name} {problem}")
        return entry

    def _leads_out(self, path: Path) -> bool:
        """Note a link that leads out of the folders that may be read."""
        problem = outside_problem(path, self.options.extra_roots)
        if problem:
            self.not_understood[self._name(path)] = f"not looked at: it {problem}"
        return bool(problem)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _why_not(file: Path) -> str:
    """Say why a file of weights is not a model by itself."""
    if file.name.endswith((".model", ".pkl")) and file.with_name("plans.pkl").exists():
        return "this is a model of nnU-Net v1, which is not supported; train it with v2"
    try:
        read_checkpoint(file, lazily=True)
    except BankError as error:
        return str(error)
    return (
        "weights alone are not a network: name the factory that builds it, and this file, in a "
        "manifest bank.yaml beside it"
    )


def _distinct(found: list[tuple[str, BankEntry]]) -> list[BankEntry]:
    """Tell entries of one name apart by where they were found."""
    counts = Counter(entry.name for _, entry in found)
    return [
        entry
        if counts[entry.name] == 1
        else replace(entry, name=f"{entry.name} ({clean_text(place, 200)})")
        for place, entry in found
    ]
