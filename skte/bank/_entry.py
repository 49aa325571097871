"""The recipe of one model of a bank."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torchio as tio
from torch import nn

from skte._isolation import isolated
from skte._memory import free_memory
from skte._registry import LAYER_SETS
from skte._text import clean_text, name_problem
from skte.bank._exported import exported_fields
from skte.bank._factory import (
    LiveModule,
    build_network,
    factory_name_problem,
    package_problem,
    reinitialised,
    same_weights,
    unusable,
)
from skte.bank._monai_bundle import bundle_fields
from skte.bank._nnssl import nnssl_fields
from skte.bank._nnunet import nnunet_fields
from skte.bank._preprocessing import build_chain, normalize_steps, step_problems
from skte.bank._weights import load_weights, rename_problem, weight_file
from skte.exceptions import BankError


class FolderReaders:
    """Ways to make a `BankEntry` that read all of its fields from files; `load` reads weights."""

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

        The network, its patch size and all of its preprocessing follow ``plans.json``, older
        forms of it included. It needs the package ``dynamic-network-architectures``.

        Parameters
        ----------
        folder : path-like
            ``trainer__plans__configuration``, with ``plans.json``, ``dataset.json`` and folds;
            or a zip that nnU-Net exported, followed by the folder in it if it holds several.
        name : str, optional
            Default: dataset, configuration and fold.
        fold : int or "all", optional
            Default: the one that `folder` is, or the lowest there is.
        configuration : str, optional
            Default: the one that the folder's name, or the checkpoint, says.
        checkpoint : str, optional
            Default: ``checkpoint_final.pth``, or else ``checkpoint_best.pth``.
        trusted : bool, default=False
            Whether reading may run code: any class that the plans name, any pickle.
        extra_roots : sequence of path-like
            Folders beside this one that its links may lead to.
        **fields
            Other fields, such as ``layers``, in place of those read.

        Raises
        ------
        BankError
            If a file is missing, something is not done as nnU-Net does it, or would run code;
            the message says what and how to go on.
        """
        read = nnunet_fields(
            folder, name=name, fold=fold, configuration=configuration, checkpoint=checkpoint,
            trusted=trusted, extra_roots=extra_roots,
        )  # fmt: skip
        return cls(**{**read, **fields})

    @classmethod
    def from_nnssl(
        cls,
        folder: str | os.PathLike[str],
        *,
        name: str | None = None,
        checkpoint: str | None = None,
        trusted: bool = False,
        extra_roots: Sequence[str | os.PathLike[str]] = (),
        **fields: Any,
    ) -> Self:
        """Make an entry from an encoder that nnssl pre-trained, such as those of OpenMind.

        Architecture, spacing, normalisation and patch follow ``adaptation_plan.json``. The
        encoder alone is loaded (``layers="encoder"``): the decoder stays random and is not read.
        It needs the package ``dynamic-network-architectures``, and Primus ``timm`` and ``einops``.

        Parameters
        ----------
        folder : path-like
            With ``adaptation_plan.json`` and a checkpoint, there or in a fold.
        name, checkpoint, trusted, extra_roots, **fields
            As for `from_nnunet`, and so are errors; the default name is that of the folder.
        """
        read = nnssl_fields(
            folder, name=name, checkpoint=checkpoint, trusted=trusted, extra_roots=extra_roots
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

        The network must be a class of ``monai.networks.nets`` with arguments that are values,
        references or expressions of these (``$len(@size) + 1``). Preprocessing is MONAI's own,
        step by step. Of steps that cannot be taken, those of intensities alone are left out with
        a warning; others are an error. The window is the inferer's.

        Parameters
        ----------
        folder : path-like
            With ``configs/inference.json`` (or ``.yaml``) and ``models/model.pt``.
        weights : path-like, optional
            Default: ``models/model.pt``, or the one file of weights beside it.
        name, trusted, extra_roots, **fields
            As for `from_nnunet`, and so are errors; the default name is that of the folder. With
            trust any expression is run, and the bundle's own scripts are found.
        """
        read = bundle_fields(
            folder, name=name, weights=weights, trusted=trusted, extra_roots=extra_roots,
            preprocessing=fields.get("preprocessing"),
        )  # fmt: skip
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

        Modules keep their names, so their outputs can be read; windows have the size that the
        program was exported with.

        Parameters
        ----------
        path : path-like
            A ``.pt2`` file.
        trusted : bool, default=False
            Must be True: torch evaluates text of such a file and unpickles parts of it, which
            can run code.
        name, **fields
            As for `from_nnunet`; the default name is that of the file.
        """
        return cls(**{**exported_fields(path, name=name, trusted=trusted), **fields})


# Fields on how a file of weights is read, as they are without one.
_UNSET: dict[str, Any] = {"state_key": None, "prefix": "", "rename": {}}
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
        and without running what stands in it, or a ``.safetensors`` file.
        It may be a part of a zip archive (``models.zip/fold_0/checkpoint.pth``). None:
        whatever the factory returns; its random initial weights then depend on `name` alone. A
        manifest says ``none`` where that is meant.
    state_key : str, optional
        Where in the file the state dict lies, such as ``"network_weights"`` or
        ``"model.state_dict"``.
    prefix : str, default=""
        Stripped from the keys of the state dict; keys without it are left out.
    rename : mapping of str to str, optional
        Parts of keys and what to put in their place, in order, after `prefix`; plain text, of
        which a ``^`` at the beginning stands for that of a key: ``{"^encoder.": "swinViT.",
        ".fc1.": ".linear1."}``; ``{"^": "net."}`` adds a prefix.
    layers : "auto", "encoder" or sequence of str, default="auto"
        Modules whose outputs are read, coarse to fine; "auto" finds the decoder stages,
        "encoder" those of the encoder. With "encoder" no source head is read. Of a
        well-known network the file then need hold no more than the encoder, with its name in
        the network or without, and what else it holds is left out if it does not fit.
    window_size : int or sequence of int, optional
        Edges of the sliding window in voxels of the preprocessed image.
    spatial_dims : {2, 3}, optional
        Dimensions of the images it takes. Default: inferred from its convolutions.
    in_channels : int, optional
        Channels of the images it takes. Default: inferred from its first convolution.
    preprocessing : sequence, default=()
        Applied to each image, in order. A step is the name of a torchio transform
        (``"ToCanonical"``), a name with parameters (``("Resample", {"target": 1})`` or
        ``{"name": "Resample", "target": 1}``), a ``tio.Transform``, or a function of
        the image tensor (C, x, y, z) that keeps the spatial shape. Random
        augmentations are refused, and so is what moves voxels without telling the
        affine (``Flip``). Labels are never resampled.
    output : str or int, optional
        Which of several outputs is the main one, as for `skte.bank.main_output`: a key, an
        attribute or a position, or several joined by dots (``"aux.0"``). Default: the finest.
    source_head : bool, default=True
        Whether the network's output are the classes it was trained on (for LEEP).
    activation : {"softmax", "sigmoid"} or None, default="softmax"
        Turns the output into probabilities; None: it is probabilities already.
    trusted : bool, default=False
        Whether reading the weights may run code in their file. Only for
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
    rename: Mapping[str, str] = field(default_factory=dict)
    layers: Literal["auto", "encoder"] | Sequence[str] = "auto"
    window_size: int | Sequence[int] | None = None
    spatial_dims: int | None = None
    in_channels: int | None = None
    preprocessing: Sequence[Any] = ()
    output: str | int | None = None
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
        self._set("rename", dict(self.rename))
        self._set("preprocessing", normalize_steps(self.preprocessing))
        self._set("weights", None if self.weights is None else Path(self.weights).absolute())
        self._set("trusted_packages", tuple(self.trusted_packages))
        for name in ("layers", "window_size"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and not isinstance(value, str):
                self._set(name, tuple(value))
        if self.layers == "encoder":
            self._set("source_head", False)  # it follows a decoder that was not trained

    @classmethod
    def from_module(cls, name: str, module: nn.Module, **fields: Any) -> Self:
        """Make an entry from a network at hand.

        Parameters
        ----------
        name : str
            Name of the model in the bank.
        module : nn.Module
            The network. `load` returns this very module; it is never changed.
        **fields
            Other fields, such as ``layers`` or ``preprocessing``.

        Returns
        -------
        BankEntry
            Sent to other processes it takes the network along.

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
                rename=self.rename,
                encoder_only=self.layers == "encoder",
                trusted=self.trusted,
            )
        return network

    def untrained(self) -> Self:
        """Make an entry of the same architecture with fresh random weights.

        Two architectures are the same where the names and shapes of all parameters are.
        Their class and a digest of these are the entry's name, and its seed: every bank
        gets the same weights.

        Returns
        -------
        BankEntry
            With all other settings as they are.

        Raises
        ------
        BankError
            If the factory gives trained weights by itself, or a module of a network at hand has
            parameters, but no ``reset_parameters()``.

        Examples
        --------
        >>> from skte import BankEntry
        >>> BankEntry("mine", "skte.demo:small_unet").untrained().name
        'untrained SmallUNet ba73a8'
        """
        live = isinstance(self.factory, LiveModule)
        recipe = self if live else replace(self, weights=None, **_UNSET)
        network = recipe.load()
        shapes = [(name, tuple(tensor.shape)) for name, tensor in network.named_parameters()]
        digest = hashlib.sha256(repr(shapes).encode()).hexdigest()[:6]
        name = f"untrained {type(network).__name__} {digest}"
        if live:
            with isolated(self.name):
                try:
                    again = reinitialised(network, name)
                except BankError as error:
                    raise BankError(f"Entry {self.name!r}: {error}") from error
            twin = replace(self, name=name, factory=LiveModule(again))
        else:
            twin = replace(recipe, name=name)
            again = twin.load()
        kept = same_weights(network, again)
        if kept:
            how = (
                "reset_parameters() changes nothing" if live else "its factory sets its own weights"
            )
            raise BankError(f"Entry {self.name!r}: {how}: see {kept}.")
        return twin

    @property
    def is_untrained(self) -> bool:
        """Whether the recipe says that its network has random weights."""
        # A callable may load weights of its own.
        return self.weights is None and isinstance(self.factory, str)

    @property
    def step_names(self) -> list[str]:
        """Names of the steps of the preprocessing, in order."""
        named = (step[0] if isinstance(step, tuple) else step for step in self.preprocessing)
        return [
            step if isinstance(step, str) else str(getattr(step, "kind", type(step).__name__))
            for step in named
        ]

    def transform(self) -> tio.Compose | None:
        """Build the preprocessing; None where there is none."""
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
        file = None if self.weights is None else weight_file(Path(self.weights))
        if file is None or not file.is_file():
            return min(_MOST_WITHOUT_WEIGHTS, free_memory() // 4)
        return 4 * file.stat().st_size + 2**28

    def _trainer_hint(self) -> str:
        trainer = self.provenance.get("trainer", "nnUNetTrainer")
        if trainer == "nnUNetTrainer":
            return ""
        return f" It comes from {trainer}, which may build another network than its plans say."

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def equal(a: Any, b: Any) -> bool:
    """Whether two values are the same; arrays within them are compared as wholes."""
    if a is b:
        return True
    if isinstance(a, (np.ndarray, torch.Tensor)) or isinstance(b, (np.ndarray, torch.Tensor)):
        same_kind = type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape
        return same_kind and bool((a == b).all())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


#: No volume has a longer edge in voxels, and a slip of the pen would fill the memory.
LARGEST_EDGE = 65_536


def field_problems(values: Mapping[str, Any]) -> list[str]:
    """List everything wrong with the fields of an entry; empty if nothing is."""
    problems = []
    for name, value in values.items():
        problem = _CHECKS[name](value)
        if problem:
            problems.append(problem if name in problem else f"{name} {problem}")
    packages = values.get("trusted_packages", ())
    if isinstance(values.get("factory"), str) and _packages(packages) is None:
        problem = factory_name_problem(values["factory"], packages)
        problems += [problem] if problem else []
    steps = values.get("preprocessing", ())
    if _CHECKS["preprocessing"](steps) is None:
        problems += step_problems(normalize_steps(steps))
    if isinstance(values.get("factory"), LiveModule):
        given = [f for f in ("arguments", "weights", *_UNSET) if values.get(f)]
        if given:
            problems.append(f"{', '.join(given)} cannot be set for a network that is at hand")
    elif not values.get("weights") and any(values.get(f) for f in _UNSET):
        problems.append(f"{', '.join(_UNSET)} say how to read a file of weights: set weights")
    return problems


def _name(value: Any) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return f"must be text that is not empty, got {value!r}"
    problem = name_problem(value)
    if problem:
        return f"name {problem}, got {clean_text(repr(value), 100)}; rename the model"
    return None


def _factory(value: Any) -> str | None:
    if isinstance(value, nn.Module):
        return "is a network; use BankEntry.from_module(name, network) for one at hand"
    if not isinstance(value, str) and not callable(value):
        return f"must be a callable or 'package.module:function', got {value!r}"
    return None


def _packages(value: Any) -> str | None:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"must be a list of names of packages, got {value!r:.200}"
    return next((problem for item in value if (problem := package_problem(item))), None)


def _state_key(value: Any) -> str | None:
    if isinstance(value, str) and (len(value) > 1000 or value.count(".") > 50):
        return "must have at most 1000 characters and 50 dots"
    return None if value is None or isinstance(value, str) else f"must be text, got {value!r}"


def _layers(value: Any) -> str | None:
    if isinstance(value, str):
        if value in ("auto", "encoder"):
            return None
        if value in LAYER_SETS:
            return (
                f'must be "auto", "encoder" or a list of module names: {value} is chosen for all '
                f"models alike, with --layers {value} or "
                f'SegmentationFeatureExtractor(layers="{value}")'
            )
        return f'must be "auto", "encoder" or a list; write [{value!r}]'
    if (
        not isinstance(value, Sequence)
        or not value
        or not all(isinstance(item, str) and item for item in value)
    ):
        return f'must be "auto", "encoder" or a list of module names, got {value!r}'
    if len(set(value)) < len(value):
        return f"names a layer twice: {list(value)}"
    return None


def _window(value: Any) -> str | None:
    edges = [value] if isinstance(value, int) else value
    if edges is None:
        return None
    if (
        isinstance(edges, str)
        or not isinstance(edges, Sequence)
        or not (isinstance(value, int) or len(edges) in (2, 3))
        or not all(_is_count(edge) for edge in edges)
    ):
        return f"must be one, two or three positive integers (voxels), got {value!r}"
    if max(edges) > LARGEST_EDGE:
        return f"must be edges in voxels, at most {LARGEST_EDGE}, got {value!r}"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _maps_names(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _must(is_met: Callable[[Any], bool], condition: str) -> Callable[[Any], str | None]:
    return lambda value: None if is_met(value) else f"must {condition}, got {value!r}"


_NAMES_TO_VALUES = _must(_maps_names, "map names to values")
_TRUTH = _must(lambda v: isinstance(v, bool), "be true or false")
_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "name": _name,
    "factory": _factory,
    "arguments": _NAMES_TO_VALUES,
    "weights": _must(
        lambda v: v is None or (isinstance(v, (str, os.PathLike)) and bool(str(v))),
        "be the path of a file",
    ),
    "state_key": _state_key,
    "prefix": _must(lambda v: isinstance(v, str), "be text"),
    "rename": rename_problem,
    "layers": _layers,
    "window_size": _window,
    "spatial_dims": _must(
        lambda v: v is None or (_is_count(v) and v in (2, 3)), "be 2, 3 or left out"
    ),
    "in_channels": _must(lambda v: v is None or _is_count(v), "be a positive integer or left out"),
    # A string or one mapping in place of a list is the usual slip.
    "preprocessing": _must(
        lambda v: isinstance(v, Sequence) and not isinstance(v, (str, Mapping)),
        "be a list of steps",
    ),
    "output": _must(
        lambda v: v is None or (isinstance(v, (str, int)) and not isinstance(v, bool) and v != ""),
        "be a key or position of the network's output, or left out",
    ),
    "source_head": _TRUTH,
    "activation": _must(
        lambda v: v in ("softmax", "sigmoid", None), "be 'softmax', 'sigmoid' or null"
    ),
    "trusted": _TRUTH,
    "trusted_packages": _packages,
    "provenance": _NAMES_TO_VALUES,
}
