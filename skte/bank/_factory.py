"""From a factory's name to a network."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import importlib.util
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from skte._text import clean_text
from skte.bank._limit import MemoryLimit, OverLimitError
from skte.bank._usable import weightless
from skte.bank._watch import Watch
from skte.exceptions import BankError

__all__ = [
    "FACTORY_NAME",
    "LIBRARIES",
    "LiveModule",
    "build_network",
    "factory_name_problem",
    "package_problem",
    "resolve_factory",
]

FACTORY_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_LONGEST = 300  # characters of a name
_BUILDING = threading.Lock()
#: Where classes of networks may be named without trust. Importing them runs no more than code
#: that was installed as a network library.
LIBRARIES = (
    "dynamic_network_architectures",
    "monai.networks",
    "segmentation_models_pytorch",
    "skte.demo",
    "timm.models",
    "torch.nn",
    "torchvision.models",
)
# Functions that may be named as well.
_FUNCTIONS = frozenset({"skte.demo:small_unet"})
# None of these builds networks, but some read or run what a file names: no manifest needs them.
_NO_BUILDERS = frozenset(
    {
        "IPython", "PIL", "cloudpickle", "dask", "dill", "distributed", "fsspec",
        "huggingface_hub", "hypothesis", "joblib", "matplotlib", "nibabel", "numpy", "pandas",
        "pip", "pkg_resources", "pytest", "requests", "safetensors", "scipy", "setuptools",
        "skimage", "skte", "sklearn", "sympy", "torchio", "yaml",
    }
)  # fmt: skip


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


def package_problem(package: Any) -> str | None:
    """Say why a package cannot be trusted for its factories; None if it can."""
    if not isinstance(package, str) or not _PACKAGE.fullmatch(package):
        return f"{clean_text(repr(package), 100)} is not the name of a package or module"
    top = package.partition(".")[0]
    if top in sys.stdlib_module_names or top in _NO_BUILDERS:
        return f"{package!r} cannot be trusted for factories: {_of_no_builder(top)}"
    return None


def factory_name_problem(name: str, trusted: Collection[str] = ()) -> str | None:
    """Say why a factory may not be named; nothing is imported.

    Parameters
    ----------
    name : str
        ``"package.module:function"``.
    trusted : collection of str
        Packages and modules that the user trusts, those within them included.

    Returns
    -------
    str or None
        One clause with the remedy; None if its module may be imported.
    """
    if len(name) > _LONGEST or not FACTORY_NAME.fullmatch(name):
        return (
            f"factory {clean_text(repr(name), 100)} must read 'package.module:function', for "
            "example 'skte.demo:small_unet'"
        )
    path, _, attributes = name.partition(":")
    if "__" in attributes:
        return f"factory {name!r} is refused: it names an attribute of Python's own machinery"
    if _is_in(path, trusted):
        return None
    if _is_in(path, LIBRARIES):
        if "." in attributes or any(part.startswith("_") for part in name.split(".")):
            return _untrusted(name, path, "only public classes of it may be named")
        return None
    top = path.partition(".")[0]
    if top in sys.stdlib_module_names or top in _NO_BUILDERS:
        return f"factory {name!r} is refused: {_of_no_builder(top)}; {_own_or_library(path)}"
    why = f"{path!r} is not a network library that skte knows"
    return _untrusted(name, top if top not in _TOPS else path, f"{why}{_did_you_mean(path)}")


def resolve_factory(name: str, trusted: Collection[str] = ()) -> Callable[..., Any]:
    """Import a factory by name. Nothing but the import runs.

    Parameters
    ----------
    name : str
        ``"package.module:function"``; the function may be a class or a class's method.
    trusted : collection of str
        Packages and modules whose functions may be named.

    Returns
    -------
    callable
        What the name stands for.

    Raises
    ------
    BankError
        If the name is ill-formed, cannot be imported, is not callable, or is not allowed.
        Allowed are classes of networks from `LIBRARIES`, and whatever is *defined* in a
        trusted package: that one can be reached through it is not enough.
    """
    return _resolve(name, trusted)[0]


def _resolve(name: str, trusted: Collection[str]) -> tuple[Callable[..., Any], bool]:
    """Return a factory, and whether its code is trusted."""
    problem = factory_name_problem(name, trusted)
    if problem:
        raise BankError(f"{problem}.")
    path, _, attributes = name.partition(":")
    if not _is_in(path, trusted):
        _check_origin(path, name)
    target: Any = _import(path, name)
    for attribute in attributes.split("."):
        if not hasattr(target, attribute):
            public = [key for key in dir(target) if not key.startswith("_")]
            raise BankError(
                f"factory {name!r}: {_spoken(target)} has no {attribute!r}"
                f"{_hint(attribute, public)}."
            )
        target = getattr(target, attribute)
    if not callable(target) or isinstance(target, nn.Module):
        raise BankError(
            f"factory {name!r} is a {type(target).__name__}, not a function or class that "
            "returns a network."
        )
    home = _home(target)
    problem = _home_problem(name, target, home, trusted)
    if problem:
        raise BankError(f"{problem}.")
    factory: Callable[..., Any] = target
    return factory, _is_in(home, trusted)


def build_network(
    factory: str | Callable[..., Any],
    arguments: Mapping[str, Any],
    seed: str,
    max_bytes: int | None = None,
    trusted: Collection[str] = (),
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
    trusted : collection of str
        Packages whose functions `factory` may name. What is named in any other may not
        open files, start processes or use the network while it builds.

    Returns
    -------
    nn.Module
        On the CPU, in float32, in eval mode.

    Raises
    ------
    BankError
        If the factory fails or returns something else than a module.
    """
    call, is_trusted = _resolve(factory, trusted) if isinstance(factory, str) else (factory, True)
    shown = factory if isinstance(factory, str) else getattr(factory, "__qualname__", factory)
    limit = contextlib.nullcontext() if max_bytes is None else MemoryLimit(max_bytes)
    watch = Watch()
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(seed.encode()))
        try:
            with limit, contextlib.nullcontext() if is_trusted else watch:
                network = call(**arguments)
        except OverLimitError as error:
            raise BankError(f"factory {shown} was stopped: {error}.") from error
        except (Exception, SystemExit) as error:  # sys.exit() would end the run, silently
            if watch.stopped:
                raise BankError(f"factory {shown} was stopped: {watch.stopped}.") from error
            given = clean_text(repr(dict(arguments)), 500)
            raise BankError(
                f"factory {shown} failed with arguments {given}: {type(error).__name__}: {error}."
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
            remedy = f"there is no module {missing!r}{_hint(missing, _modules(missing))}"
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


def _hint(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _did_you_mean(path: str) -> str:
    return _hint(path, LIBRARIES)


def _spoken(target: Any) -> str:
    if isinstance(target, ModuleType):
        return f"module {target.__name__!r}"
    return repr(getattr(target, "__qualname__", target))


_TOPS = frozenset(library.partition(".")[0] for library in LIBRARIES if "." in library)


def _is_in(path: str, packages: Collection[str]) -> bool:
    """Whether a module is one of these packages or lies in one."""
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def _check_origin(path: str, name: str) -> None:
    """Refuse a file of the current folder that calls itself like a network library."""
    top = path.partition(".")[0]
    if top in sys.modules:
        return
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return
    places = [spec.origin] if spec and spec.origin else []
    places += list(spec.submodule_search_locations or ()) if spec else []
    here = os.path.realpath(os.curdir)
    for place in places:
        real = os.path.realpath(place)
        parents = (os.path.dirname(real), os.path.dirname(os.path.dirname(real)))
        if here in parents[: 2 if os.path.basename(real) == "__init__.py" else 1]:
            raise BankError(
                f"factory {name!r} is refused: {top!r} would be imported from the current "
                f"folder, {here}, and not from what is installed; change to another folder, or "
                f"trust it with {_options(top)}."
            )


def _home(target: Any) -> str:
    """Return the module that a callable was defined in, empty where that cannot be told."""
    while isinstance(target, functools.partial):
        target = target.func
    return str(getattr(target, "__module__", None) or "")


def _home_problem(name: str, target: Any, home: str, trusted: Collection[str]) -> str | None:
    """Say why a callable is not called, by the module that it was defined in."""
    if _is_in(home, trusted):
        return None
    while isinstance(target, functools.partial):
        target = target.func
    is_network = isinstance(target, type) and issubclass(target, nn.Module)
    path = name.partition(":")[0]
    if is_network and (_is_in(home, LIBRARIES) or _is_in(path, trusted)):
        return None
    if name in _FUNCTIONS:
        return None
    top = home.partition(".")[0]
    if not home:
        return f"factory {name!r} is refused: where it was defined cannot be told"
    if top in sys.stdlib_module_names or top in _NO_BUILDERS:
        return f"factory {name!r} is refused: {_of_no_builder(top)}; {_own_or_library(path)}"
    where = "" if home == path else f" from {home!r}"
    what = "class" if isinstance(target, type) else "function"
    why = f"it is a {what}{where}, and without trust only classes derived from nn.Module are called"
    return _untrusted(name, home, why)


def _untrusted(name: str, package: str, why: str) -> str:
    if package_problem(package):  # of skte itself nothing else is of use
        return f"factory {name!r} is refused: {why}"
    return (
        f"factory {name!r} is refused: {why}; where you trust its code, allow it with "
        f"{_options(package)}"
    )


def _options(package: str) -> str:
    return (
        f"--trust-package {package} or trusted_packages=[{package!r}]; for a bank of your own, "
        f"'skte bank init BANK --trust-package {package}' keeps that"
    )


def _of_no_builder(top: str) -> str:
    where = "Python's standard library" if top in sys.stdlib_module_names else top
    return f"it is part of {where}, which builds no networks"


def _own_or_library(path: str) -> str:
    return f"name a function of your own or of a network library{_did_you_mean(path)}"
