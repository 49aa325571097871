"""The recipe of one model of a bank."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import torchio as tio
from torch import nn

from skte._isolation import isolated
from skte._memory import free_memory
from skte.bank._checks import field_problems
from skte.bank._encoder import encoder_roots
from skte.bank._equality import equal
from skte.bank._factory import LiveModule, build_network
from skte.bank._folder_readers import FolderReaders
from skte.bank._preprocessing import build_chain, normalize_steps
from skte.bank._usable import unusable
from skte.bank._weights import load_weights
from skte.exceptions import BankError

__all__ = ["BankEntry"]

_MOST_WITHOUT_WEIGHTS = 2**32  # bytes of a network; there is no file to compare with


@dataclass(frozen=True, repr=False)
class BankEntry(FolderReaders):
    """How to build one pre-trained network and how to feed it: a recipe.

    An entry holds no network (unless made by `from_module`), so it is cheap to copy,
    pickle and send to workers.

    Parameters
    ----------
    name : str
        Name of the model in the bank.
    factory : callable or str
        Returns the network: a callable, or its name ``"package.module:function"``. A name
        is text, wherever it comes from: without `trusted_packages` it may be that of a
        class of networks from a library that skte knows (MONAI, torch.nn, timm, ...), or
        ``"skte.demo:small_unet"``.
    arguments : mapping, optional
        Keyword arguments of the factory.
    weights : path-like, optional
        A file written by ``torch.save(network.state_dict(), ...)``, loaded strictly
        and without running what stands in it, or a ``.safetensors`` file. None: whatever the
        factory returns; its random initial weights then depend on `name` alone.
    state_key : str, optional
        Where in the file the state dict lies, such as ``"network_weights"`` or
        ``"model.state_dict"``.
    prefix : str, default=""
        Stripped from the keys of the state dict; keys without it are left out.
    layers : "auto", "encoder" or sequence of str, default="auto"
        Modules whose outputs are read, coarse to fine; "auto" finds the decoder stages,
        "encoder" those of the encoder. With "encoder" no source head is read, and
        weights of a well-known network's decoder may be missing in the file.
    window_size : int or sequence of int, optional
        Edges of the sliding window in voxels of the preprocessed image.
    spatial_dims : {2, 3}, optional
        Dimensions of the images it takes. Default: told from its convolutions.
    in_channels : int, optional
        Channels of the images it takes. Default: told from its first convolution.
    preprocessing : sequence, default=()
        Applied to each image, in order. A step is the name of a torchio transform
        (``"ToCanonical"``), a name with parameters (``("Resample", {"target": 1})`` or
        ``{"name": "Resample", "target": 1}``), a ``tio.Transform``, or a function of
        the image tensor (C, x, y, z) that keeps the spatial shape. Random
        augmentations are refused, and so is what moves voxels without telling the
        affine (``Flip``). Labels are never resampled.
    source_head : bool, default=True
        Whether the network's output are the classes it was trained on (for LEEP).
    activation : {"softmax", "sigmoid"} or None, default="softmax"
        Turns the output into probabilities; None: it is probabilities already.
    trusted : bool, default=False
        Whether reading the weights may run code that stands in their file. Only for
        files whose origin you trust as you would trust a program; manifests cannot set
        it.
    trusted_packages : sequence of str, default=()
        Packages or modules whose functions `factory` may name, because you would run
        them; manifests cannot set it.
    provenance : mapping, optional
        Where the model comes from: free text for reports.

    Raises
    ------
    BankError
        If fields have wrong types or values; the message lists them all.

    See Also
    --------
    ModelBank : Several entries with distinct names.

    Notes
    -----
    Entries are equal when all fields are; networks at hand and live transforms are
    compared by identity.

    Examples
    --------
    >>> from skte import BankEntry
    >>> entry = BankEntry(
    ...     "phantom-unet", "skte.demo:small_unet", arguments={"widths": (4, 8)},
    ...     preprocessing=["ToCanonical", ("Resample", {"target": 1.0})],
    ... )
    >>> entry
    BankEntry('phantom-unet', 'skte.demo:small_unet')
    >>> entry.load().head.out_channels
    2
    """

    name: str
    factory: Callable[..., nn.Module] | str
    _: KW_ONLY
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: str | os.PathLike[str] | None = None
    state_key: str | None = None
    prefix: str = ""
    layers: Literal["auto", "encoder"] | Sequence[str] = "auto"
    window_size: int | Sequence[int] | None = None
    spatial_dims: int | None = None
    in_channels: int | None = None
    preprocessing: Sequence[Any] = ()
    source_head: bool = True
    activation: str | None = "softmax"
    trusted: bool = False
    trusted_packages: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        problems = field_problems(values)
        if problems:
            raise BankError(f"Entry {self.name!r}: {'; '.join(problems)}.")
        # Own copies, so that what the caller changes later changes no recipe.
        self._set("arguments", dict(self.arguments))
        self._set("provenance", dict(self.provenance))
        self._set("preprocessing", normalize_steps(self.preprocessing))
        self._set("weights", None if self.weights is None else Path(self.weights).absolute())
        self._set("trusted_packages", tuple(self.trusted_packages))
        for name in ("layers", "window_size"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                self._set(name, tuple(value))
        if self.layers == "encoder":
            self._set("source_head", False)  # it stands behind a decoder that was not trained

    @classmethod
    def from_module(cls, name: str, module: nn.Module, **fields: Any) -> Self:
        """Make an entry from a network at hand.

        Parameters
        ----------
        name : str
            Name of the model in the bank.
        module : nn.Module
            The network. It is used as it is and never changed.
        **fields
            Other fields, such as ``layers`` or ``preprocessing``.

        Returns
        -------
        BankEntry
            Its `load` returns this very module.

        Raises
        ------
        BankError
            If `module` is no network, or fields are wrong.

        Examples
        --------
        >>> from torch import nn
        >>> from skte import BankEntry
        >>> network = nn.Conv3d(1, 2, 1)
        >>> BankEntry.from_module("tiny", network).load() is network
        True
        """
        if not isinstance(module, nn.Module):
            raise BankError(
                f"Entry {name!r}: expected an nn.Module, got {type(module).__name__}. Use "
                "BankEntry(name, factory, ...) for a factory."
            )
        reason = unusable(module)
        if reason:
            raise BankError(f"Entry {name!r}: {reason}.")
        return cls(name, LiveModule(module), **fields)

    def load(self) -> nn.Module:
        """Build the network and load its weights.

        Returns
        -------
        nn.Module
            In eval mode, in float32, on the CPU; a new one on every call. For an entry
            made by `from_module` that very network, as it is.

        Raises
        ------
        BankError
            If factory or weights fail; the message names the entry.
        """
        if isinstance(self.factory, LiveModule):
            return self.factory.module
        with isolated(self.name):
            try:
                network = self._build()
            except BankError as error:
                raise BankError(f"Entry {self.name!r}: {error}{self._trainer_hint()}") from error
        reason = unusable(network)
        if reason:
            raise BankError(f"Entry {self.name!r}: {reason}.")
        return network

    def _build(self) -> nn.Module:
        network = build_network(
            self.factory, self.arguments, self.name, self._max_bytes(), self.trusted_packages
        )
        if self.weights is not None:
            load_weights(
                network,
                Path(self.weights),
                state_key=self.state_key,
                prefix=self.prefix,
                needed=encoder_roots(network) if self.layers == "encoder" else (),
                trusted=self.trusted,
            )
        return network

    def transform(self) -> tio.Compose | None:
        """Build the preprocessing.

        Returns
        -------
        tio.Compose or None
            None where there is no preprocessing.
        """
        return build_chain(self.preprocessing)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BankEntry):
            return NotImplemented
        return all(equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __hash__(self) -> int:
        return hash(self.name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A recipe never changes, and clone() must not copy the network of a live one.
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.factory!r})"

    def _max_bytes(self) -> int | None:
        """Memory that a factory named by a file may take: some times that of the weights."""
        if self.trusted or not isinstance(self.factory, str):
            return None
        path = None if self.weights is None else Path(self.weights)
        if path is None or not path.is_file():
            return min(_MOST_WITHOUT_WEIGHTS, free_memory() // 4)
        return 4 * path.stat().st_size + 2**28

    def _trainer_hint(self) -> str:
        trainer = self.provenance.get("trainer", "nnUNetTrainer")
        if trainer == "nnUNetTrainer":
            return ""
        return f" It comes from {trainer}, which may build another network than its plans say."

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
