"""Entries from what other tools leave: their folders and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

from skte.bank._exported import exported_fields
from skte.bank._monai_bundle import bundle_fields
from skte.bank._nnunet import nnunet_fields

__all__ = ["FolderReaders"]


class FolderReaders:
    """Ways to make a `BankEntry` that read all of its fields from files."""

    @classmethod
    def from_nnunet(
        cls,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        fold: int | str | None = None,
        configuration: str | None = None,
        checkpoint: str | None = None,
        trusted: bool = False,
        extra_roots: Sequence[str | os.PathLike[str]] = (),
        **fields: Any,
    ) -> Self:
        """Make an entry from a trained model of nnU-Net v2, without nnU-Net.

        The network, its patch size and all of its preprocessing (axis order, crop to
        nonzero, normalisation, resampling) follow ``plans.json``, older forms of it
        included. It needs the package ``dynamic-network-architectures``.

        Parameters
        ----------
        folder : path-like
            ``trainer__plans__configuration``, with ``plans.json``, ``dataset.json`` and
            the folds.
        name : str, optional
            Default: dataset, configuration and fold.
        fold : int or "all", optional
            Default: the lowest there is.
        configuration : str, optional
            Default: the one that the folder's name, or the checkpoint, says.
        checkpoint : str, optional
            Default: ``checkpoint_final.pth``, or else ``checkpoint_best.pth``.
        trusted : bool, default=False
            Lets the plans name any class and the checkpoint hold any pickle. Either runs
            code.
        extra_roots : sequence of path-like
            Folders beside this one that its links may lead to.
        **fields
            Other fields, such as ``layers``, in place of those read.

        Returns
        -------
        BankEntry
            The weights are read by `load`.

        Raises
        ------
        BankError
            If a file is missing, something is not done as nnU-Net does it, or would run
            code; the message says what and how to go on.
        """
        read = nnunet_fields(
            folder,
            name=name,
            fold=fold,
            configuration=configuration,
            checkpoint=checkpoint,
            trusted=trusted,
            extra_roots=extra_roots,
        )
        return cls(**{**read, **fields})

    @classmethod
    def from_monai_bundle(
        cls,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        weights: str | os.PathLike[str] | None = None,
        trusted: bool = False,
        extra_roots: Sequence[str | os.PathLike[str]] = (),
        **fields: Any,
    ) -> Self:
        """Make an entry from a MONAI bundle, reading its configuration as data.

        The network must be a class of ``monai.networks.nets`` with arguments that are
        values or references. Preprocessing is MONAI's own, step by step; steps without a
        counterpart are left out with a warning. The window is the inferer's.

        Parameters
        ----------
        folder : path-like
            With ``configs/inference.json`` (or ``.yaml``) and ``models/model.pt``.
        name : str, optional
            Default: the folder's name.
        weights : path-like, optional
            Default: ``models/model.pt``, or the one file of weights beside it.
        trusted : bool, default=False
            Lets MONAI's own parser run the network's expressions (``$...``) and build
            any class, and the weights hold any pickle. All of that runs code.
        extra_roots : sequence of path-like
            Folders beside this one that its links may lead to.
        **fields
            Other fields, such as ``layers``, in place of those read.

        Returns
        -------
        BankEntry
            The weights are read by `load`.

        Raises
        ------
        BankError
            If a file is missing, or what it says would run code; the message says what
            and how to go on.
        """
        read = bundle_fields(
            folder, name=name, weights=weights, trusted=trusted, extra_roots=extra_roots
        )
        return cls(**{**read, **fields})

    @classmethod
    def from_exported(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        trusted: bool = False,
        **fields: Any,
    ) -> Self:
        """Make an entry from a program of ``torch.export.save``.

        Modules keep their names, so their outputs can be read; windows have the size that
        the program was exported with.

        Parameters
        ----------
        path : path-like
            A ``.pt2`` file.
        name : str, optional
            Default: the file's name.
        trusted : bool, default=False
            Must be True: torch evaluates text of such a file and unpickles parts of it,
            which can run code.
        **fields
            Other fields, such as ``preprocessing``.

        Returns
        -------
        BankEntry
            The program is read by `load`.

        Raises
        ------
        BankError
            Without ``trusted=True``, or if the file is no such program.
        """
        return cls(**{**exported_fields(path, name=name, trusted=trusted), **fields})
