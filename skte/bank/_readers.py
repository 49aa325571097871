"""What can be found in a folder of models: one registry of readers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from skte._registry import load_plugins
from skte.bank._entry import BankEntry
from skte.bank._exported import SUFFIX
from skte.bank._manifest import MANIFESTS, read_manifest
from skte.bank._monai_bundle import is_bundle
from skte.bank._nnssl import is_nnssl_folder
from skte.bank._nnunet import is_nnunet_folder, nnunet_folds

_GROUP = "skte.readers"


@dataclass(frozen=True)
class ReadOptions:
    """What a reader of models may do."""

    trusted: bool = False  # whether reading this model may run code
    trusted_packages: tuple[str, ...] = ()  # whose functions may be named as factories
    extra_roots: tuple[str | os.PathLike[str], ...] = ()  # that links and paths may lead to


@runtime_checkable
class Reader(Protocol):
    """How models in one format are found in a folder and read.

    `ModelBank.from_folder` refuses entries whose weights lie outside the folder. Any other file
    that `read` opens must lie within `path` or the ``extra_roots`` of its options.

    Examples
    --------
    >>> import json
    >>> from skte.bank import BankEntry, Reader
    >>> class MyTool:
    ...     name = "my tool"
    ...
    ...     def matches(self, path):
    ...         return (path / "network.json").is_file()
    ...
    ...     def read(self, path, options):
    ...         network = json.loads((path / "network.json").read_text("utf-8"))
    ...         return [
    ...             BankEntry(
    ...                 path.name,
    ...                 network["factory"],
    ...                 weights=path / "weights.pt",
    ...                 trusted=options.trusted,
    ...                 trusted_packages=options.trusted_packages,
    ...             )
    ...         ]
    >>> isinstance(MyTool(), Reader)
    True
    """

    @property
    def name(self) -> str:
        """Name of the format, for messages: ``"nnU-Net v2"``."""

    def matches(self, path: Path) -> bool:
        """Return whether a folder or file looks like this format; without reading much."""

    def read(self, path: Path, options: ReadOptions) -> Sequence[BankEntry]:
        """Return the models there; raises `BankError` with what is wrong and what to do."""


@dataclass(frozen=True)
class _Format:
    """A format that skte itself reads."""

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, ReadOptions], Sequence[BankEntry]]
    parts: Callable[[Path], Sequence[Path]] = lambda path: [path]  # which are read one by one


def _entry(make: Callable[..., BankEntry], path: Path, options: ReadOptions) -> BankEntry:
    return make(path, trusted=options.trusted, extra_roots=options.extra_roots)


#: Its entries have names of their own, by which they are trusted one by one.
MANIFEST: Reader = _Format(
    "manifest bank.yaml",
    lambda path: path.name in MANIFESTS and path.is_file(),
    lambda path, options: read_manifest(
        path, roots=options.extra_roots, trusted_packages=options.trusted_packages
    ),
)
#: The formats that skte itself reads, in the order in which they are asked.
_READERS: tuple[Reader, ...] = (
    MANIFEST,
    _Format("nnssl", is_nnssl_folder, lambda path, how: [_entry(BankEntry.from_nnssl, path, how)]),
    _Format(
        "nnU-Net v2",
        is_nnunet_folder,
        lambda path, how: [_entry(BankEntry.from_nnunet, path, how)],
        nnunet_folds,
    ),
    _Format(
        "MONAI bundle",
        is_bundle,
        lambda path, how: [_entry(BankEntry.from_monai_bundle, path, how)],
    ),
    _Format(
        "exported program",
        lambda path: path.suffix.lower() == SUFFIX and path.is_file(),
        lambda path, how: [BankEntry.from_exported(path, trusted=how.trusted)],
    ),
)


def all_readers() -> dict[str, Reader]:
    """Return the readers of models: those of skte, and those that other packages declare.

    Returns
    -------
    dict of str to Reader
        By name, in the order in which they are asked. What cannot be loaded is left out
        with a warning.

    Examples
    --------
    >>> from skte.bank import all_readers
    >>> list(all_readers())
    ['manifest bank.yaml', 'nnssl', 'nnU-Net v2', 'MONAI bundle', 'exported program']

    An entry point in the ``pyproject.toml`` of another package names an object with the
    attributes of `Reader`::

        [project.entry-points."skte.readers"]
        mytool = "my_package:reader"
    """
    return load_plugins(_GROUP, {reader.name: reader for reader in _READERS}, _name_of)


def _name_of(point: str, reader: Any) -> str:
    if not isinstance(reader, Reader) or not isinstance(reader.name, str):
        raise TypeError(f"{reader!r} lacks 'name', 'matches' or 'read'")
    return reader.name
