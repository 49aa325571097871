"""From a factory's name to a network."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import os
import re
import sys
import threading
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any, Self

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from skte._memory import format_bytes
from skte._registry import origin_problem
from skte._text import clean_text, did_you_mean
from skte.exceptions import BankError

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


@dataclass(frozen=True)
class LiveModule:
    """Stands as the factory of an entry that was made from a network at hand."""

    module: nn.Module

    def __call__(self) -> nn.Module:
        return self.module

    def __repr__(self) -> str:
        return f"<{type(self.module).__name__} at hand>"


def package_problem(package: Any) -> str | None:
    """Say why a package cannot be trusted for its factories; None if it can."""
    if not isinstance(package, str) or not _PACKAGE.fullmatch(package):
        return f"{clean_text(repr(package), 100)} is not the name of a package or module"
    why = _no_builder(package)
    return f"{package!r} cannot be trusted for factories: {why}" if why else None


def factory_name_problem(name: str, trusted: Collection[str] = ()) -> str | None:
    """Say why a factory may not be named; nothing is imported."""
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
    if why := _no_builder(path):
        return f"factory {name!r} is refused: {why}"
    why = f"{path!r} is not a network library that skte knows"
    return _untrusted(name, top if top not in _TOPS else path, f"{why}{_hint(path, LIBRARIES)}")


def resolve_factory(name: str, trusted: Collection[str] = ()) -> Callable[..., Any]:
    """Import a factory by name. Nothing but the import runs."""
    return _resolve(name, trusted)[0]


def _resolve(name: str, trusted: Collection[str]) -> tuple[Callable[..., Any], bool]:
    """Return a factory, and whether its code is trusted."""
    problem = factory_name_problem(name, trusted)
    if problem:
        raise BankError(f"{problem}.")
    path, _, attributes = name.partition(":")
    top = path.partition(".")[0]
    problem = "" if _is_in(path, trusted) else origin_problem(top)
    if problem:
        raise BankError(
            f"factory {name!r} is refused: {problem}, or trust it with {_options(top)}."
        )
    target: Any = _import(path, name)
    for attribute in attributes.split("."):
        if not hasattr(target, attribute):
            public = [key for key in dir(target) if not key.startswith("_")]
            raise BankError(
                f"factory {name!r}: {path!r} has no {attribute!r}{_hint(attribute, public)}."
            )
        target = getattr(target, attribute)
    if not callable(target) or isinstance(target, nn.Module):
        raise BankError(
            f"factory {name!r} is a {type(target).__name__}, not a function or class that "
            "returns a network."
        )
    inner = target
    while isinstance(inner, functools.partial):
        inner = inner.func
    home = str(getattr(inner, "__module__", None) or "")  # where it was defined
    problem = _home_problem(name, inner, home, trusted)
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
    """Call a factory. The same `seed` gives the same initial weights."""
    call, is_trusted = _resolve(factory, trusted) if isinstance(factory, str) else (factory, True)
    shown = factory if isinstance(factory, str) else getattr(factory, "__qualname__", factory)
    limit = contextlib.nullcontext() if max_bytes is None else MemoryLimit(max_bytes)
    watch = Watch()
    with _seeded(seed):
        try:
            with limit, contextlib.nullcontext() if is_trusted else watch:
                network = call(**arguments)
        except OverLimitError as error:
            raise BankError(
                f"factory {shown} was stopped: its arguments ask for tensors of {error}, far more "
                "than its file of weights holds; check sizes and numbers of channels among them."
            ) from error
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


@contextlib.contextmanager
def _seeded(seed: str) -> Iterator[None]:
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(zlib.crc32(seed.encode()))
        yield


def _import(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        if path != missing and not path.startswith(f"{missing}."):
            remedy = f"module {missing!r}, which it imports, is not installed"
        else:
            remedy = f"there is no module {missing!r}"
        raise BankError(
            f"factory {name!r}: {remedy}. Install it, or put its folder on PYTHONPATH."
        ) from error
    except (Exception, SystemExit) as error:  # a script without a main guard
        raise BankError(
            f"factory {name!r}: importing {path!r} failed: {type(error).__name__}: {error}."
        ) from error


def _hint(word: str, known: Collection[str]) -> str:
    hint = did_you_mean(word, known, listed=False)
    return f" ({hint})" if hint else ""


_TOPS = frozenset(library.partition(".")[0] for library in LIBRARIES if "." in library)


def _is_in(path: str, packages: Collection[str]) -> bool:
    """Whether a module is one of these packages or lies in one."""
    return any(path == package or path.startswith(f"{package}.") for package in packages)


def _home_problem(name: str, target: Any, home: str, trusted: Collection[str]) -> str | None:
    """Return why a callable is not called, by the module that it was defined in."""
    if _is_in(home, trusted):
        return None
    is_network = isinstance(target, type) and issubclass(target, nn.Module)
    path = name.partition(":")[0]
    if is_network and (_is_in(home, LIBRARIES) or _is_in(path, trusted)):
        return None
    if name in _FUNCTIONS:
        return None
    if not home:
        return f"factory {name!r} is refused: it is unknown where it was defined"
    if why := _no_builder(home):
        return f"factory {name!r} is refused: {why}"
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


def _no_builder(path: str) -> str:
    """Say that no networks are built where a module lies; empty where they may be."""
    top = path.partition(".")[0]
    where = "Python's standard library" if top in sys.stdlib_module_names else top
    if where == top and top not in _NO_BUILDERS:
        return ""
    return (
        f"it is part of {where}, which builds no networks; name a function of your own or of a "
        f"network library{_hint(path, LIBRARIES)}"
    )


class OverLimitError(Exception):
    """Tensors would have taken more memory than is allowed."""


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that keeps torch's compiler out without importing it, which takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Self:
        is_needed = "torch._dynamo" in sys.modules  # or no network is compiled
        self._eager = (
            torch.compiler.set_stance("force_eager") if is_needed else contextlib.nullcontext()
        )
        self._eager.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._eager.__exit__(*error)


class MemoryLimit(DispatchMode):
    """Refuses, before any memory is taken, tensors beyond a number of bytes at one time."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._held: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        needed = _new_bytes(func, args, kwargs)
        if self.n_bytes + needed > self.max_bytes:
            self._held = [(storage, n) for storage, n in self._held if not storage.expired()]  # type: ignore[no-untyped-call]
            self.n_bytes = sum(n for _, n in self._held)
            if self.n_bytes + needed > self.max_bytes:
                raise OverLimitError(format_bytes(self.n_bytes + needed))
        result = func(*args, **kwargs)
        if needed:
            for storage in _storages(result).values():
                self._held.append((StorageWeakRef(storage), storage.nbytes()))  # type: ignore[no-untyped-call]
            self.n_bytes += needed
        return result


# Their result is a new tensor with as many values as their first argument. The meta device runs
# many of them in Python and imports torch's compiler, which takes seconds.
_AS_MANY = frozenset(
    f"aten::{name}" for name in (
        "batch_norm", "cat", "clone", "elu", "gelu", "group_norm", "instance_norm", "layer_norm",
        "leaky_relu", "prelu", "relu", "sigmoid", "silu",
    )
)  # fmt: skip


def _new_bytes(func: Any, args: Any, kwargs: Mapping[str, Any]) -> int:
    """Bytes that results of an operation take, as the meta device has them; 0 where unknown."""
    if func._schema.is_mutable:
        return 0
    if args and func._schema.name in _AS_MANY:
        given: list[torch.Tensor] = tree_leaves(args[0])
        return sum(t.numel() for t in given) * max((t.element_size() for t in given), default=0)
    options = {"device": "meta"} if any(a.name == "device" for a in func._schema.arguments) else {}
    try:
        args, kwargs = tree_map_only(torch.Tensor, _on_meta, (args, kwargs))
        before, after = _storages((args, kwargs)), _storages(func(*args, **{**kwargs, **options}))
    except Exception:  # the values decide the size, or it fails on real tensors as well
        return 0
    return sum(storage.nbytes() for key, storage in after.items() if key not in before)


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _storages(values: Any) -> dict[int, torch.UntypedStorage]:
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
    return {(storage := tensor.untyped_storage())._cdata: storage for tensor in tensors}


# Kinds of Python's audit events that building a network does not need: programs, files and
# settings, connections. Opening a file has rules of its own.
_CONNECTIONS = frozenset({"ftplib", "http", "socket", "urllib", "webbrowser"})
_AREAS = _CONNECTIONS | {"os", "pty", "shutil", "signal", "subprocess", "tempfile"}
_HARMLESS = frozenset({"os.fwalk", "os.listdir", "os.scandir", "os.walk", "socket.gethostname"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_here = threading.local()


@functools.cache
def _install() -> None:
    sys.addaudithook(_hook)


class Watch:
    """Stops, in this thread, files, processes and connections; reading libraries goes on.

    Classes of network libraries take paths, addresses and names of pretrained weights as
    arguments, and a manifest may give any. An import that they do late still works.
    """

    def __init__(self) -> None:
        self.stopped = ""
        self._places: tuple[str, ...] = ()
        self._outermost: FrameType | None = None

    def __enter__(self) -> Self:
        _install()
        self._outermost = sys._getframe(1)  # a program of the user's own is a module, too
        self._places = _library_folders()
        self._before = getattr(_here, "watch", None)
        _here.watch = self
        return self

    def __exit__(self, *error: object) -> None:
        _here.watch = self._before

    def look(self, event: str, args: tuple[Any, ...]) -> None:
        """Raise where an event is one to stop."""
        what = self._what(event, args)
        # What a library does at its import it does whatever the arguments are, and half an
        # import would leave it broken.
        if not what or (_area(event) not in _CONNECTIONS and self._is_importing()):
            return
        self.stopped = self.stopped or (
            f"while it built the network it tried to {what}, which only trusted code may do; "
            "switch that off among its arguments (pretrained: false, for instance), and give "
            "weights as the entry's own"
        )
        raise PermissionError(self.stopped)  # an OSError, as for a folder that is read-only

    def _is_importing(self) -> bool:
        frame = sys._getframe(3)  # of what raised the event
        while frame is not None and frame is not self._outermost:
            code = frame.f_code
            if code.co_name == "<module>" and _is_below(code.co_filename, self._places):
                return True
            frame = frame.f_back  # type: ignore[assignment]
        return False

    def _what(self, event: str, args: tuple[Any, ...]) -> str:
        if event == "open":
            path, _, flags = args
            if not isinstance(path, (str, bytes)):  # a descriptor that is open already
                return ""
            text = os.fsdecode(path)
            if isinstance(flags, int) and flags & _WRITING:
                return f"write {text[:200]!r}"
            return "" if _is_below(text, self._places) else f"read {text[:200]!r}"
        if event == "ctypes.dlopen" and os.sep in (text := str(args[0] or "")):
            return "" if _is_below(text, self._places) else f"load {text[:200]!r}"
        return f"call {event}" if _area(event) in _AREAS and event not in _HARMLESS else ""


def _area(event: str) -> str:
    return event.partition(".")[0]


def _hook(event: str, args: tuple[Any, ...]) -> None:
    watch = getattr(_here, "watch", None)
    if watch is not None:
        _here.watch = None  # looking raises events, too
        try:
            watch.look(event, args)
        finally:
            _here.watch = watch


def _library_folders() -> tuple[str, ...]:
    """Folders that modules are imported from, without the current one."""
    here = os.path.realpath(os.curdir)
    found = {sys.prefix, sys.base_prefix, sys.exec_prefix, *(p for p in sys.path if p)}
    return tuple({real for place in found if (real := os.path.realpath(place)) != here})


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    real = os.path.realpath(path)
    return any(real == folder or real.startswith(folder + os.sep) for folder in folders)


def unusable(module: nn.Module) -> str | None:
    """Say why a network cannot be looked at, and what to give instead; None if it can."""
    # By name: importing torch.jit's class for isinstance warns on recent versions.
    if any(cls.__name__ == "ScriptModule" for cls in type(module).__mro__):
        return (
            "a TorchScript module, whose layers cannot be hooked, so no features can be read; "
            "give the original nn.Module"
        )
    if any(is_lazy(tensor) for tensor in [*module.parameters(), *module.buffers()]):
        return (
            "lazy modules that no input has given a shape yet, so they hold no weights; run the "
            "network once on an example, or load weights"
        )
    return weightless(module)


def reinitialised(module: nn.Module, seed: str) -> nn.Module:
    """Return a copy of a network, every module of which has drawn its parameters anew."""
    problem = "it cannot be re-initialised"
    try:
        network = copy.deepcopy(module).cpu()
        with _seeded(seed):
            for name, part in network.named_modules():
                if next(part.parameters(recurse=False), None) is not None:
                    kind = type(part).__name__
                    shown = f"module {name!r} ({kind})" if name else kind
                    if not hasattr(part, "reset_parameters"):
                        raise BankError(f"{shown} has no reset_parameters().")
                    problem = f"reset_parameters() of {shown} failed"
                    part.reset_parameters()
                    problem = "it cannot be re-initialised"
    except BankError:
        raise
    except Exception as error:
        raise BankError(f"{problem}: {type(error).__name__}: {error}.") from error
    return network


def same_weights(first: nn.Module, second: nn.Module) -> str:
    """Name a matrix or kernel that two networks share without being constant; empty if none."""
    others = dict(second.named_parameters())
    for name, tensor in first.named_parameters():
        is_kernel = tensor.ndim > 1 and bool((tensor != tensor.flatten()[0]).any())
        if is_kernel and torch.equal(tensor.cpu(), others[name].cpu()):
            return f"parameter {name!r}"
    return ""


def weightless(module: nn.Module) -> str | None:
    """Return why a network holds no weights: it was built on the meta device."""
    if any(tensor.is_meta for tensor in [*module.parameters(), *module.buffers()]):
        return "a network on the meta device, which holds no weights; build it on the CPU"
    return None
