"""Several models with distinct names."""

from __future__ import annotations

import operator
import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Self, overload

from torch import nn

from skte._table import format_html_table
from skte.bank._checks import did_you_mean
from skte.bank._entry import BankEntry
from skte.bank._from_folder import read_folder
from skte.bank._manifest import read_manifest
from skte.exceptions import BankError, SkteWarning

__all__ = ["ModelBank"]


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

    Raises
    ------
    BankError
        If there are no entries, something else is among them, or names repeat.

    See Also
    --------
    load_bank : Makes a bank of anything that can be one.

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
        """Read a bank from a YAML or JSON manifest.

        Parameters
        ----------
        path : path-like
            The manifest. Paths in it are relative to its folder, and may not leave it.
        trusted_packages : collection of str
            Packages or modules whose functions the manifest may name as factories,
            beside those that ``skte bank init --trust-package`` keeps for it.
        extra_roots : collection of path-like
            Further folders that its paths and links may lead to.

        Returns
        -------
        ModelBank
            Nothing is imported or loaded yet.

        Raises
        ------
        BankError
            If the manifest is wrong; the message lists every problem.

        Notes
        -----
        ``load`` of an entry imports and calls the factory its manifest names: a class of
        networks from a library that skte knows, or what a trusted package defines.
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

        Found are results folders of nnU-Net v2 (one fold of each), MONAI bundles,
        programs of ``torch.export`` and the entries of manifests named ``bank.yaml``
        (``.yml``, ``.json``), at any depth. What cannot be used costs nothing else.

        Parameters
        ----------
        path : path-like
            The folder.
        trusted : collection of str
            Paths, relative to the folder, of models that may run code when they are
            read; of entries of manifests their names.
        trusted_packages : collection of str
            Packages or modules whose functions manifests may name as factories.
        extra_roots : collection of path-like
            Further folders that links and paths may lead to.

        Returns
        -------
        ModelBank
            `not_understood` says what was left out and why; a warning does so as well.

        Raises
        ------
        BankError
            If nothing in the folder can be used; the message lists what there is.
        """
        found = read_folder(path, trusted, trusted_packages, tuple(extra_roots))
        listed = "\n".join(f"  - {name}: {why}" for name, why in found.not_understood.items())
        if not found.entries:
            raise BankError(
                f"Folder {path} holds no model that can be used"
                + (f":\n{listed}" if listed else ": no nnU-Net, no MONAI bundle, no bank.yaml.")
            )
        if listed:
            warnings.warn(
                f"Folder {path}: not understood and left out:\n{listed}", SkteWarning, stacklevel=2
            )
        bank = cls(found.entries)
        bank.not_understood = found.not_understood
        return bank

    @classmethod
    def from_modules(cls, modules: Mapping[str, nn.Module]) -> Self:
        """Make a bank of networks at hand.

        Parameters
        ----------
        modules : mapping of str to nn.Module
            Networks by name.

        Returns
        -------
        ModelBank
            Its entries hold these very networks.
        """
        return cls(BankEntry.from_module(name, module) for name, module in modules.items())

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
