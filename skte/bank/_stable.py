"""Descriptions of values that are alike in every process, or the reason why there is none."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchio as tio
from torch import nn

from skte._digests import file_digest, tensor_digest, version_of

__all__ = ["UnstableError", "describe", "describe_module", "describe_source"]

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
    """Describe a value by what JSON holds, so that equal descriptions mean equal values.

    Parameters
    ----------
    value : object
        Numbers, text, containers, arrays, tensors, files, named functions and classes,
        transforms, networks.

    Returns
    -------
    object
        Of lists, text, numbers and None.

    Raises
    ------
    UnstableError
        If there is no such description: of lambdas, closures and other objects.
    OSError
        If a file it names cannot be read.
    """
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
    """Describe a network: its modules, their settings, and a digest of every tensor.

    Parameters
    ----------
    module : nn.Module
        It is left as it is. Whether it trains does not count.

    Returns
    -------
    object
        As from `describe`.

    Raises
    ------
    UnstableError
        If it has hooks, or settings or classes that cannot be described.
    """
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
    """Name a function or class and digest the file that it stands in.

    Parameters
    ----------
    thing : function or class
        It is known by its name and its file: an edit makes it another. One of skte's own
        that has a version is known by that alone.

    Returns
    -------
    list of str
        Module, qualified name, digest; or the version.

    Raises
    ------
    UnstableError
        If it has no name by which another process could find it, or no file.
    """
    version = version_of(thing)
    if version is not None:
        return [version]
    name = f"{thing.__module__}:{thing.__qualname__}"
    if "<" in thing.__qualname__:
        raise UnstableError(
            f"{name} has no name that holds in another process: define it at the top of a module"
        )
    file = _source_file(thing)
    if file is None:
        raise UnstableError(f"{name} stands in no file: move it from the notebook to a module")
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
        raise UnstableError(f"module {name!r} has hooks, whose effect cannot be told")
    code = part.code if isinstance(part, torch.fx.GraphModule) else None
    own = {} if _is_known(type(part)) else _own(part)
    return [_classes(type(part)), code, _mapping(dict(sorted(own.items())))]


def _own(part: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(part).items() if key not in _COMMON}


def _function(value: types.FunctionType) -> Any:
    return ["function", *describe_source(value)]


def _builtin(value: types.BuiltinFunctionType) -> Any:
    owner = value.__self__
    if owner is None or isinstance(owner, (type, types.ModuleType)):
        return ["builtin", str(value.__module__), value.__qualname__]
    raise UnstableError(f"{value!r} belongs to an object that cannot be described")


def _method(value: types.MethodType) -> Any:
    return ["method", describe(value.__self__), value.__func__.__qualname__]


def _partial(value: functools.partial[Any]) -> Any:
    return ["partial", describe(value.func), describe(value.args), _mapping(value.keywords)]


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
    (functools.partial, _partial),
    (types.FunctionType, _function),
    (types.BuiltinFunctionType, _builtin),
    (types.MethodType, _method),
)
