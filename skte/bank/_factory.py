"""From a factory's name to a network."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import re
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from skte.bank._limit import MemoryLimit, OverLimitError
from skte.bank._usable import weightless
from skte.exceptions import BankError

__all__ = ["FACTORY_NAME", "LiveModule", "build_network", "factory_name_problem", "resolve_factory"]

FACTORY_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_BUILDING = threading.Lock()
# None of these builds networks, but some read or run what a file names: a manifest from
# elsewhere could do harm through them.
_NO_BUILDERS = frozenset(
    {
        "IPython", "PIL", "dask", "fsspec", "huggingface_hub", "hypothesis", "joblib", "matplotlib",
        "nibabel", "numpy", "pandas", "pip", "pytest", "requests", "safetensors", "scipy",
        "setuptools", "skimage", "sklearn", "sympy", "torchio", "yaml",
    }
)  # fmt: skip
# Of these, networks and what makes networks.
_PARTLY = {"monai": "monai.networks", "torch": "torch.nn"}


@dataclass(frozen=True, eq=False)
class LiveModule:
    """Stands as the factory of an entry that was made from a network at hand."""

    module: nn.Module

    def __call__(self) -> nn.Module:
        return self.module

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LiveModule) and self.module is other.module

    def __hash__(self) -> int:
        return hash(id(self.module))

    def __repr__(self) -> str:
        return f"<{type(self.module).__name__} at hand>"


def factory_name_problem(name: str) -> str | None:
    """Say what is wrong with the form of a factory's name, without importing it."""
    if not FACTORY_NAME.fullmatch(name):
        return (
            f"factory {name!r} must read 'package.module:function', for example "
            "'skte.demo:small_unet'"
        )
    package = name.partition(":")[0].partition(".")[0]
    if package in sys.stdlib_module_names or package in _NO_BUILDERS:
        return _not_a_factory(name, package)
    return None


def resolve_factory(name: str) -> Callable[..., Any]:
    """Import a factory by name. Nothing but the import runs.

    Parameters
    ----------
    name : str
        ``"package.module:function"``; the function may be a class or a class's method.

    Returns
    -------
    callable
        What the name stands for.

    Raises
    ------
    BankError
        If the name is ill-formed, cannot be imported, or is nothing to call. Names from
        Python's standard library and from libraries that build no networks are refused:
        a manifest from elsewhere could do harm through them. So are functions of torch
        and MONAI that are not about networks, such as ``torch.load``.
    """
    problem = factory_name_problem(name)
    if problem:
        raise BankError(f"{problem}.")
    path, _, attributes = name.partition(":")
    target: Any = _import(path, name)
    for attribute in attributes.split("."):
        if not hasattr(target, attribute):
            public = [key for key in dir(target) if not key.startswith("_")]
            raise BankError(
                f"factory {name!r}: {_spoken(target)} has no {attribute!r}"
                f"{_did_you_mean(attribute, public)}."
            )
        target = getattr(target, attribute)
    if not callable(target) or isinstance(target, nn.Module):
        raise BankError(
            f"factory {name!r} is a {type(target).__name__}, not a function or class that "
            "returns a network."
        )
    origin = target.func if isinstance(target, functools.partial) else target
    home = str(getattr(origin, "__module__", None) or "")
    if _builds_no_network(origin, home):
        raise BankError(f"{_not_a_factory(name, home.partition('.')[0])}.")
    factory: Callable[..., Any] = target
    return factory


def build_network(
    factory: str | Callable[..., Any],
    arguments: Mapping[str, Any],
    seed: str,
    max_bytes: int | None = None,
) -> nn.Module:
    """Call a factory. The same `seed` gives the same initial weights.

    Parameters
    ----------
    factory : str or callable
        A callable, or its name.
    arguments : mapping
        Keyword arguments.
    seed : str
        Seeds torch's generator while the factory runs, so that a network without
        weights is the same in every process. The caller's generator is untouched.
    max_bytes : int, optional
        Most memory that new tensors may take, so that a size in a file cannot fill it.

    Returns
    -------
    nn.Module
        On the CPU, in float32, in eval mode.

    Raises
    ------
    BankError
        If the factory fails or returns something else than a module.
    """
    call = resolve_factory(factory) if isinstance(factory, str) else factory
    shown = factory if isinstance(factory, str) else getattr(factory, "__qualname__", factory)
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(seed.encode()))
        try:
            with contextlib.nullcontext() if max_bytes is None else MemoryLimit(max_bytes):
                network = call(**arguments)
        except OverLimitError as error:
            raise BankError(f"factory {shown} was stopped: {error}.") from error
        except (Exception, SystemExit) as error:  # sys.exit() would end the run, silently
            raise BankError(
                f"factory {shown} failed with arguments {dict(arguments)!r}: "
                f"{type(error).__name__}: {error}."
            ) from error
    if not isinstance(network, nn.Module):
        raise BankError(f"factory {shown} returned a {type(network).__name__}, not an nn.Module.")
    reason = weightless(network)
    if reason:
        raise BankError(f"factory {shown} returned {reason}.")
    return network.cpu().float().eval()


def _import(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        if path != missing and not path.startswith(f"{missing}."):
            remedy = f"module {missing!r}, which it imports, is not installed"
        else:
            remedy = f"there is no module {missing!r}{_did_you_mean(missing, _modules(missing))}"
        raise BankError(
            f"factory {name!r}: {remedy}. Install it, or put its folder on PYTHONPATH."
        ) from error
    except (Exception, SystemExit) as error:  # a script without a main guard
        raise BankError(
            f"factory {name!r}: importing {path!r} failed: {type(error).__name__}: {error}."
        ) from error


def _modules(missing: str) -> list[str]:
    """Names a mistyped module could have meant: siblings, or packages already loaded."""
    parent, _, _ = missing.rpartition(".")
    if not parent:
        return sorted({key.partition(".")[0] for key in sys.modules if key[0] != "_"})
    import pkgutil

    paths = getattr(sys.modules.get(parent), "__path__", [])
    return [f"{parent}.{found.name}" for found in pkgutil.iter_modules(paths)]


def _did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _spoken(target: Any) -> str:
    if isinstance(target, ModuleType):
        return f"module {target.__name__!r}"
    return repr(getattr(target, "__qualname__", target))


def _builds_no_network(origin: Any, home: str) -> bool:
    """Whether a callable, by the module it comes from, is no maker of networks."""
    package = home.partition(".")[0]
    if isinstance(origin, type) and issubclass(origin, nn.Module):
        return False
    if package in _PARTLY:
        return not f"{home}.".startswith(f"{_PARTLY[package]}.")
    return package in sys.stdlib_module_names or package in _NO_BUILDERS


def _not_a_factory(name: str, package: str) -> str:
    where = "Python's standard library" if package in sys.stdlib_module_names else package
    what = "other things than networks" if package in _PARTLY else "no networks"
    return (
        f"factory {name!r} is refused: it is part of {where}, which builds {what}; name a "
        "function of your own or of a network library"
    )
