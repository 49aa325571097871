"""What an entry's features depend on, as one digest."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torch import nn

from skte._digests import file_digest, tensor_digest, version_of
from skte.bank._entry import BankEntry
from skte.bank._factory import LiveModule, resolve_factory
from skte.bank._weights import weight_file, zip_place
from skte.exceptions import BankError

# Described in their own ways, or not at all; every other field counts as it is.
_SPECIAL = (
    "name", "provenance", "factory", "arguments", "weights", "preprocessing", "trusted_packages",
)  # fmt: skip


def entry_digest(entry: BankEntry) -> str | None:
    """Digest all that decides an entry's features: two entries with one digest are alike.

    That is the factory (its name, its code as far as it stands in the module or package
    that is named, the version of its distribution; of skte's own code a version that changes
    when its results do), its arguments, the *content* of the weights file, the preprocessing
    and all other settings, but not provenance. The name counts where there are no weights,
    because it then seeds them. Of a network at hand classes, settings and all tensors count.

    Parameters
    ----------
    entry : BankEntry
        The recipe. Nothing is built or loaded, and no code but skte's own is imported.

    Returns
    -------
    str or None
        64 hexadecimal digits, the same in every process; None where the entry holds what
        looks different in every process: see `digest_problem`.

    Raises
    ------
    BankError
        If the weights file cannot be read.

    Examples
    --------
    >>> from skte import BankEntry
    >>> from skte.bank import entry_digest
    >>> first, again = (BankEntry("a", "skte.demo:small_unet") for _ in range(2))
    >>> entry_digest(first) == entry_digest(again)
    True
    """
    try:
        text = json.dumps(_describe(entry), separators=(",", ":"))
    except (UnstableError, RecursionError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def digest_problem(entry: BankEntry) -> str | None:
    """Return why an entry has no digest.

    Parameters
    ----------
    entry : BankEntry
        The recipe.

    Returns
    -------
    str or None
        One clause, with the remedy where there is one; None where it has a digest.

    Examples
    --------
    >>> from skte import BankEntry
    >>> from skte.bank import digest_problem
    >>> digest_problem(BankEntry("a", "skte.demo:small_unet", preprocessing=[lambda x: x]))
    'preprocessing: ...<lambda> has no name that is valid in another process: ...'
    """
    try:
        _describe(entry)
    except UnstableError as error:
        return str(error)
    except RecursionError:
        return "something in it holds itself"
    return None


def _describe(entry: BankEntry) -> dict[str, Any]:
    plain = [item.name for item in fields(entry) if item.name not in _SPECIAL]
    description = {name: describe(getattr(entry, name)) for name in plain}
    parts: dict[str, Callable[[], Any]] = {
        "preprocessing": lambda: [describe(step) for step in entry.preprocessing],
        "arguments": lambda: describe(dict(sorted(entry.arguments.items()))),
        "factory": lambda: _describe_factory(entry.factory),
        "weights": lambda: _describe_weights(entry),
    }
    for name, describe_part in parts.items():
        try:
            description[name] = describe_part()
        except UnstableError as error:
            raise UnstableError(f"{name}: {error}") from error
        except OSError as error:
            raise BankError(
                f"Entry {entry.name!r}: {name}: {error.filename} cannot be read "
                f"({error.strerror or error}). Check the path, or copy the file again."
            ) from error
    return description


def _describe_weights(entry: BankEntry) -> Any:
    if isinstance(entry.factory, LiveModule):
        return None  # they belong to the network at hand
    if entry.weights is None:
        return ["initialised by", entry.name]
    path = Path(entry.weights)
    place = zip_place(path)
    return ["file", file_digest(weight_file(path)), *(place or ())[1:]]


def _describe_factory(factory: Any) -> Any:
    if isinstance(factory, LiveModule):
        return describe_module(factory.module)
    if not isinstance(factory, str):
        return describe(factory)
    path = factory.partition(":")[0]
    own = _own_version(factory)
    if own is not None:
        return ["name", own]
    return ["name", factory, _version(path), _code_digests(path)]


def _own_version(factory: str) -> str | None:
    """Return the version of one of skte's own factories; None for other code."""
    if factory.partition(".")[0] != "skte":
        return None
    try:
        return version_of(resolve_factory(factory))
    except BankError:  # loading says what is wrong
        return None


def _version(path: str) -> str | None:
    try:
        return importlib.metadata.version(path.partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return None


def _code_digests(path: str) -> list[str]:
    """Digest the files of a module or package without importing it."""
    spec = _find(path)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return []
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return [file_digest(origin)]
    # A package's own file mostly just imports from those beside it.
    files = sorted(origin.parent.rglob("*.py"))
    return [f"{file.relative_to(origin.parent).as_posix()} {file_digest(file)}" for file in files]


def _find(path: str) -> ModuleSpec | None:
    name, *rest = path.split(".")
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    places = _places(spec)
    for part in rest:  # importlib.util would import the packages above
        name = f"{name}.{part}"
        try:
            spec = PathFinder.find_spec(name, places)
            places = _places(spec)
        except KeyError:  # no __init__: it asks for the package above, which is not imported
            spec, places = None, [str(Path(place, part)) for place in places]
    return spec


def _places(spec: ModuleSpec | None) -> list[str]:
    """Folders of what is in a package; none for a module."""
    return list(spec.submodule_search_locations or ()) if spec is not None else []


# What every module has; what else it holds is its own.
_COMMON = frozenset(vars(nn.Module()))
# Whose code is not looked at, and whose networks show their settings in their text form.
_TRUSTED = frozenset({"einops", "numpy", "torch", "torchio"})
# How a transform was called does not change what it does.
_INCIDENTAL = frozenset({"args_names", "copy", "parse_input"})
_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)


class UnstableError(Exception):
    """A value has no description that holds in another process; the message says why."""


def describe(value: Any) -> Any:
    """Describe a value by what JSON holds, so that equal descriptions mean equal values."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    for kinds, describe_kind in _KINDS:
        if isinstance(value, kinds):
            return describe_kind(value)
    if dataclasses.is_dataclass(value):
        parts = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return ["dataclass", _classes(type(value)), _mapping(parts)]
    raise UnstableError(
        f"{_short(value)} is a {type(value).__name__}, which looks different in every process"
    )


def describe_module(module: nn.Module) -> Any:
    """Describe a network: its modules, their settings, and a digest of every tensor."""
    shown = repr(module)
    if _ADDRESS.search(shown):
        raise UnstableError("the network's text form holds addresses in memory")
    tensors = dict(module.state_dict())
    # The state dict leaves out buffers that are not persistent.
    tensors |= dict(module.named_parameters(remove_duplicate=False))
    tensors |= dict(module.named_buffers(remove_duplicate=False))
    parts = [[name, _describe_part(part, name)] for name, part in module.named_modules()]
    return ["module", shown, parts, [[name, describe(value)] for name, value in tensors.items()]]


def describe_source(thing: Any) -> list[str]:
    """Name a function or class and digest the file that it stands in."""
    version = version_of(thing)
    if version is not None:
        return [version]
    name = f"{thing.__module__}:{thing.__qualname__}"
    if "<" in thing.__qualname__:
        raise UnstableError(
            f"{name} has no name that is valid in another process: define it at the top of a module"
        )
    file = _source_file(thing)
    if file is None:
        raise UnstableError(
            f"{name} is not defined in a file: move it from the notebook to a module"
        )
    return [name, file_digest(file)]


def _source_file(thing: Any) -> Path | None:
    # A function knows its file even where its module is another process's script.
    candidates = [thing, *vars(thing).values()] if isinstance(thing, type) else [thing]
    codes = (getattr(item, "__code__", None) for item in candidates)
    paths = [code.co_filename for code in codes if code is not None and code.co_filename[0] != "<"]
    paths.append(getattr(sys.modules.get(thing.__module__), "__file__", None) or "")
    return next((Path(path) for path in paths if Path(path).is_file()), None)


def _classes(kind: type) -> list[Any]:
    """Describe a class and those it inherits from."""
    return [_class(cls) for cls in kind.__mro__ if cls is not object]


def _class(kind: type) -> Any:
    if _is_known(kind):
        return f"{kind.__module__}:{kind.__qualname__}"
    return describe_source(kind)


def _is_known(kind: type) -> bool:
    package = kind.__module__.partition(".")[0]
    return package in _TRUSTED or package in sys.stdlib_module_names


def _describe_part(part: nn.Module, name: str) -> Any:
    if part._forward_hooks or part._forward_pre_hooks:
        raise UnstableError(f"module {name!r} has hooks, whose effect is unknown")
    code = part.code if isinstance(part, torch.fx.GraphModule) else None
    own = {} if _is_known(type(part)) else _own(part)
    return [_classes(type(part)), code, _mapping(dict(sorted(own.items())))]


def _own(part: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(part).items() if key not in _COMMON}


def _builtin(value: types.BuiltinFunctionType) -> Any:
    owner = value.__self__
    if owner is None or isinstance(owner, (type, types.ModuleType)):
        return ["builtin", str(value.__module__), value.__qualname__]
    raise UnstableError(f"{value!r} belongs to an object that cannot be described")


def _transform(value: Any) -> Any:
    """Class and settings of a torchio transform; a file that a setting names counts."""
    settings = {}
    for name, setting in sorted(vars(value).items()):
        if isinstance(setting, types.MethodType) and setting.__self__ is value:
            setting = setting.__func__.__qualname__
        elif isinstance(setting, str) and Path(setting).is_file():
            setting = Path(setting)
        if name not in _INCIDENTAL:
            settings[name] = setting
    return ["transform", _classes(type(value)), _mapping(settings)]


def _mapping(value: Mapping[Any, Any]) -> Any:
    return ["mapping", [[describe(key), describe(item)] for key, item in value.items()]]


def _items(value: Any) -> Iterator[Any]:
    return (describe(item) for item in value)


def _array(value: Any) -> Any:
    if value.dtype.hasobject:
        raise UnstableError("an array of objects looks different in every process")
    return ["array", value.dtype.str, list(value.shape), value.tobytes().hex()]


def _tensor(value: torch.Tensor) -> Any:
    try:
        return ["tensor", type(value).__name__, tensor_digest(value)]
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        raise UnstableError(f"a tensor holds no plain values ({error})") from error


def _path(value: Path) -> Any:
    return ["file", file_digest(value)] if value.is_file() else ["path", str(value)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_TORCH_WORDS = (torch.dtype, torch.device, torch.memory_format, torch.layout)

_KINDS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (np.generic, _array),
    (np.ndarray, _array),
    (torch.Tensor, _tensor),
    (nn.Module, describe_module),
    (tio.Transform, _transform),
    (enum.Enum, lambda value: ["enum", _class(type(value)), value.name]),
    ((bytes, bytearray), lambda value: ["bytes", bytes(value).hex()]),
    ((complex, range, slice, type(...)), lambda value: ["literal", repr(value)]),
    (_TORCH_WORDS, lambda value: ["torch", str(value)]),
    (Path, _path),
    (Mapping, _mapping),
    (list, lambda value: ["list", *_items(value)]),
    (tuple, lambda value: ["tuple", *_items(value)]),
    ((set, frozenset), lambda value: ["set", *sorted(_items(value), key=repr)]),
    (type, lambda value: ["class", _class(value)]),
    (
        functools.partial,
        lambda value: ["partial", *map(describe, (value.func, value.args, value.keywords))],
    ),
    (types.FunctionType, lambda value: ["function", *describe_source(value)]),
    (types.BuiltinFunctionType, _builtin),
    (
        types.MethodType,
        lambda value: ["method", describe(value.__self__), value.__func__.__qualname__],
    ),
)
