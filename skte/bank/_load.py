"""One door for everything that can be a bank."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn

from skte.bank._bank import ModelBank
from skte.bank._entry import BankEntry
from skte.exceptions import BankError

__all__ = ["BankLike", "load_bank"]

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
        Packages or modules whose functions a manifest may name as factories. Of a path
        only: an entry has its own.
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
    raise BankError(
        f"Entry {name!r}: expected an nn.Module or BankEntry, got {type(model).__name__}."
    )
