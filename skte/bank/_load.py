"""One door for everything that can be a bank."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from skte.bank._bank import ModelBank
from skte.bank._entry import BankEntry
from skte.exceptions import BankError

__all__ = ["load_bank"]


def load_bank(bank: Any) -> ModelBank:
    """Make a `ModelBank` of anything that can be one.

    Parameters
    ----------
    bank : ModelBank, dict of str to nn.Module or BankEntry, list of BankEntry, or path
        A path leads to a YAML or JSON manifest, or to a folder of models. In a dict the
        key is the name, also of an entry that has another one.

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
    if isinstance(bank, ModelBank):
        return bank
    if isinstance(bank, BankEntry):
        return ModelBank([bank])
    if isinstance(bank, (str, os.PathLike)):
        is_folder = os.path.isdir(bank)
        return ModelBank.from_folder(bank) if is_folder else ModelBank.from_manifest(bank)
    if isinstance(bank, Mapping):
        return ModelBank(_named(name, model) for name, model in bank.items())
    if isinstance(bank, Sequence):
        return ModelBank(bank)
    raise BankError(
        f"Cannot make a bank of {type(bank).__name__}. Give a ModelBank, a dict of names to "
        "networks, a list of BankEntry, or the path of a manifest or folder."
    )


def _named(name: Any, model: Any) -> BankEntry:
    if isinstance(model, BankEntry):
        return model if model.name == name else dataclasses.replace(model, name=name)
    if isinstance(model, nn.Module):
        return BankEntry.from_module(name, model)
    raise BankError(
        f"Entry {name!r}: expected an nn.Module or BankEntry, got {type(model).__name__}."
    )
