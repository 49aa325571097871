"""What a foreign network does to the process that it runs in is undone.

A network is a program: it may change the default type of tensors, leave the current folder,
replace functions of torch or raise ``KeyboardInterrupt``. `isolated` surrounds each place
where a network is built or run, so that all of this affects that network and no other.

Each keeper notes one kind of state and returns what restores it. Another kind is a line in a
table, or a function and its name in one of the tuples `_SHARED` and `_OF_THREAD`.
"""

from __future__ import annotations

import builtins
import copy
import faulthandler
import gc
import io
import json
import locale
import logging
import math
import multiprocessing
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import sklearn
import torch
from torch import nn

from skte.exceptions import SkteError

_SAFE_PATH = "PYTHONSAFEPATH"
_of_thread = threading.local()


class SharedSetting:
    """The first to enter makes the setting; the last to leave undoes it."""

    def __init__(self, make: Callable[[], Callable[[], None]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self.n_users = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the setting; it may be entered any number of times at once."""
        with self._lock:
            if self.n_users == 0:
                self._undo = self._make()
            self.n_users += 1
        try:
            yield
        finally:
            with self._lock:
                self.n_users -= 1
                if self.n_users == 0:
                    self._undo()


def _start_safely() -> Callable[[], None]:
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"

    def undo() -> None:
        if before is None:
            os.environ.pop(_SAFE_PATH, None)
        else:
            os.environ[_SAFE_PATH] = before

    return undo


#: While it is held, Python processes that this one starts do not search the current folder.
safe_starts = SharedSetting(_start_safely)


@dataclass
class Isolation:
    """What is known of a model's code once it has run."""

    has_meddled: bool = False  # it left a setting or a function of the process changed
    has_left_threads: bool = False  # what they do later cannot be undone


@contextmanager
def isolated(name: str) -> Iterator[Isolation]:
    """Run the code of the model `name` and restore the process; exits become `SkteError`."""
    # Nested, it does nothing: the forward pass may need what a factory set up. Threads share
    # most of what is kept, and it is restored when the last one leaves.
    isolation = Isolation()
    if getattr(_of_thread, "is_isolated", False):
        yield isolation
        return
    _of_thread.is_isolated = True
    process, before, threads = os.getpid(), _restored.total(), set(sys._current_frames())
    try:
        with ExitStack() as stack:
            stack.enter_context(safe_starts.held())
            stack.enter_context(_process_state.held())
            stack.callback(_keep(_OF_THREAD))
            user = _of_thread.user = stack.enter_context(_watched_interrupt())
            with _named_exits(name, user):
                yield isolation
    finally:
        if os.getpid() != process:  # the code has forked: one of the two goes on
            os._exit(1)
        isolation.has_meddled = _restored.total() != before
        isolation.has_left_threads = not threads.issuperset(sys._current_frames())
        _of_thread.is_isolated = False


def check_interrupt() -> None:
    """Raise the user's Ctrl-C again where a model's code swallowed it: call between its passes."""
    user = getattr(_of_thread, "user", None)
    if user is not None and user.has_interrupted and user.ends_run:
        raise KeyboardInterrupt


@dataclass
class _User:
    """Whether the user pressed Ctrl-C, and whether that ends the run."""

    has_interrupted: bool = False
    ends_run: bool = False


@contextmanager
def _watched_interrupt() -> Iterator[_User]:
    """Distinguish the user's Ctrl-C from a ``KeyboardInterrupt`` that code raises by itself."""
    # Signals reach main threads only. A worker gets the terminal's Ctrl-C, too, but the process
    # that started the worker decides what it means.
    user = _User()
    usual = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or multiprocessing.current_process().name != "MainProcess":
        yield user
        return
    if not callable(usual):  # ignored, or not set by Python
        yield user
        return
    user.ends_run = usual is signal.default_int_handler

    def note(number: int, frame: Any) -> None:
        user.has_interrupted = True
        usual(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield user
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def _named_exits(name: str, user: _User) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if user.has_interrupted and user.ends_run:  # the code made something else of it
            raise KeyboardInterrupt from error
        raise
    except BaseException as error:  # SystemExit, or a KeyboardInterrupt of the code's own
        if user.has_interrupted:
            raise
        what = type(error).__name__
        with suppress(Exception):
            what = f"{what}: {error}".rstrip(": ")
        raise SkteError(
            f"Entry {name!r}: the model raised {what}, which would have ended the run."
        ) from error
    if user.has_interrupted and user.ends_run:  # the code swallowed it
        raise KeyboardInterrupt


# The state that is kept

Undo = Callable[[], None]
Pair = tuple[Callable[[], Any], Callable[[Any], Any]]

_GONE = object()
# Signals by which the user ends a run: one that waits is not forgotten.
_USERS = {getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)}
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
_restored: Counter[str] = Counter()  # kinds of state that were found changed
# Guards that end a mode of torch when they are collected, hence never.
_guards: list[Any] = []


def _keep(keepers: tuple[Callable[[], Undo], ...]) -> Undo:
    undos = [keeper() for keeper in keepers]

    def undo() -> None:
        for one in undos:
            for _ in range(3):  # an alarm that the model left may interrupt one
                try:
                    one()
                except Exception:  # what cannot be restored stops nothing else
                    continue
                break

    return undo


# Settings that can be read and written


def _attributes(owner: Any, *names: str) -> list[Pair]:
    def pair(name: str) -> Pair:
        return (lambda: getattr(owner, name)), (lambda value: setattr(owner, name, value))

    return [pair(name) for name in names if hasattr(owner, name)]


def _backends() -> Iterator[Pair]:
    backends: Any = torch.backends
    yield from _attributes(backends.cudnn, "enabled", "benchmark", "deterministic")
    if hasattr(backends.cudnn, "conv"):  # torch >= 2.9; reading the old names fails then
        for owner in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
            yield from _attributes(owner, "fp32_precision")
        for owner in (backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul):
            yield from _attributes(owner, "fp32_precision")
    else:
        yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        yield from _attributes(backends.cudnn, "allow_tf32")
        yield from _attributes(backends.cuda.matmul, "allow_tf32")
    for kind in ("fp16", "bf16"):
        yield from _attributes(backends.cuda.matmul, f"allow_{kind}_reduced_precision_reduction")
    for kind in ("flash", "mem_efficient", "math", "cudnn"):
        yield (
            getattr(backends.cuda, f"{kind}_sdp_enabled"),
            getattr(backends.cuda, f"enable_{kind}_sdp"),
        )
    yield from _attributes(backends.mkldnn, "enabled", "deterministic")
    yield from _attributes(backends.opt_einsum, "enabled", "strategy")
    yield from _attributes(backends.quantized, "engine")


def _set_safe_globals(known: list[Any]) -> None:
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(known)


def _set_deterministic(state: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(state[0], warn_only=state[1])


def _torch_settings() -> Iterator[Pair]:
    yield torch.get_default_dtype, torch.set_default_dtype
    yield torch.get_num_threads, torch.set_num_threads
    yield (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        _set_deterministic,
    )
    yield from _attributes(torch.utils.deterministic, "fill_uninitialized_memory")
    yield (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda state: torch.autograd.set_detect_anomaly(*state),
    )
    # A type that it makes safe would be built from the files of other models.
    yield torch.serialization.get_safe_globals, _set_safe_globals
    yield from _backends()


def _folder() -> str:
    with suppress(OSError):
        return os.getcwd()
    return ""  # it was removed


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _limits() -> Iterator[Pair]:
    with suppress(ImportError):  # Windows has none
        import resource

        for name in [name for name in dir(resource) if name.startswith("RLIMIT_")]:
            which = getattr(resource, name)
            yield partial(resource.getrlimit, which), partial(resource.setrlimit, which)


def _python_settings() -> Iterator[Pair]:
    yield _folder, os.chdir
    yield _umask, os.umask
    yield from _limits()
    yield np.get_printoptions, lambda options: np.set_printoptions(**options)
    yield sys.getrecursionlimit, sys.setrecursionlimit
    yield sys.getswitchinterval, sys.setswitchinterval
    yield sys.get_int_max_str_digits, sys.set_int_max_str_digits
    yield gc.isenabled, lambda on: gc.enable() if on else gc.disable()
    yield gc.get_threshold, lambda sizes: gc.set_threshold(*sizes)
    yield gc.get_debug, gc.set_debug
    yield socket.getdefaulttimeout, socket.setdefaulttimeout
    yield lambda: locale.setlocale(locale.LC_ALL), lambda one: locale.setlocale(locale.LC_ALL, one)
    yield (
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda method: multiprocessing.set_start_method(method, force=True),
    )
    yield from _attributes(sys, "argv", "path", "meta_path", "path_hooks", "dont_write_bytecode")
    yield from _attributes(sys, *_STREAMS, *(f"__{name}__" for name in _STREAMS))
    yield from _attributes(sys, "excepthook", "unraisablehook", "displayhook", "breakpointhook")
    yield from _attributes(threading, "excepthook")
    yield from _attributes(warnings, "showwarning", "formatwarning", "_showwarnmsg_impl")
    yield from _attributes(os, "environ")


def _thread_settings() -> Iterator[Pair]:
    yield torch.is_grad_enabled, torch._C._set_grad_enabled
    for kind in ("cpu", "cuda"):
        yield partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)
        yield partial(torch.get_autocast_dtype, kind), partial(torch.set_autocast_dtype, kind)
    yield torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled
    yield np.geterr, lambda how: np.seterr(**how)
    yield np.geterrcall, np.seterrcall
    yield sklearn.get_config, lambda config: sklearn.set_config(**config)
    yield sys.gettrace, sys.settrace
    yield sys.getprofile, sys.setprofile
    yield _flushes_denormals, torch.set_flush_denormal


def _flushes_denormals() -> bool:
    return float(np.float32(1e-39) * np.float32(1.0)) == 0.0


def _settings(pairs: Callable[[], Iterator[Pair]]) -> Callable[[], Undo]:
    """Keeper of settings; those that are as they were are not written."""
    known = list(pairs())

    def keep() -> Undo:
        before = []
        for read, write in known:
            with suppress(Exception):  # a setting that this build of torch does not have
                before.append((read, write, read()))

        def undo() -> None:
            for read, write, value in before:
                with suppress(Exception):
                    if read() != value:
                        _restored["setting"] += 1
                        write(value)

        return undo

    return keep


# What changes in place


def _keep_contents() -> Undo:
    hooks = {k: v for k, v in vars(nn.modules.module).items() if k.startswith("_global")}
    lists: list[list[Any]] = [sys.path, sys.meta_path, sys.path_hooks, sys.argv, gc.callbacks]
    kept_lists = [(one, list(one)) for one in lists]
    dicts: list[MutableMapping[Any, Any]] = [
        os.environ,
        *(hook for hook in hooks.values() if isinstance(hook, dict)),
    ]
    kept_dicts = [(one, dict(one)) for one in dicts]
    zone = time.tzname

    def undo() -> None:
        for key, value in hooks.items():
            setattr(nn.modules.module, key, value)
        for one, items in kept_lists:
            if one != items:
                one[:] = items
        for mapping, items_of in kept_dicts:
            if dict(mapping) != items_of:
                for key in mapping.keys() - items_of.keys():
                    del mapping[key]
                mapping.update(items_of)
        if time.tzname != zone:
            time.tzset()

    return undo


def _keep_random() -> Undo:
    legacy: Any = np.random  # its one generator for all, which models may use
    cuda: Any = torch.cuda
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (random.setstate, random.getstate()),
        (legacy.set_bit_generator, legacy.get_bit_generator()),
        (legacy.set_state, legacy.get_state()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if cuda.is_initialized():
        states.append((cuda.set_rng_state_all, cuda.get_rng_state_all()))

    def undo() -> None:
        for write, state in states:
            write(state)

    return undo


def _keep_warnings() -> Undo:
    filters, content = warnings.filters, list(warnings.filters)

    def undo() -> None:
        if warnings.filters is not filters or filters != content:
            warnings.filters = filters
            warnings.filters[:] = content  # type: ignore[index]  # a list, whatever typeshed says
            with warnings.catch_warnings():  # makes Python see that they changed
                pass

    return undo


def _keep_logging() -> Undo:
    manager = logging.root.manager
    loggers = [one for one in manager.loggerDict.values() if isinstance(one, logging.Logger)]
    attributes = ("disabled", "propagate", "handlers", "filters")
    before = [
        (one, one.level, {name: copy.copy(getattr(one, name)) for name in attributes})
        for one in [logging.root, *loggers]
    ]
    disabled = manager.disable

    def undo() -> None:
        for one, level, values in before:
            if one.level != level:
                one.setLevel(level)
            for name, value in values.items():
                if getattr(one, name) != value:
                    setattr(one, name, value)
        if manager.disable != disabled:
            logging.disable(disabled)

    return undo


def _keep_streams() -> Undo:
    """Note standard streams, and the files behind them, which may be closed or replaced."""
    copies = {}
    for number in _STREAMS.values():
        with suppress(OSError):
            copies[number] = os.dup(number)
    streams = {name: getattr(sys, name) for name in _STREAMS}
    was_open = {name for name, one in streams.items() if one and not one.closed}

    def undo() -> None:
        for number, kept in copies.items():
            with suppress(OSError):
                if not _is_open(number) or not os.path.sameopenfile(number, kept):
                    os.dup2(kept, number)
            with suppress(OSError):
                os.close(kept)
        for name in was_open:
            if streams[name].closed:
                setattr(sys, name, _reopened(name, streams[name]))

    return undo


def _reopened(name: str, closed: Any) -> io.TextIOWrapper:
    file = io.FileIO(_STREAMS[name], "r" if name == "stdin" else "w", closefd=False)
    buffer = io.BufferedReader(file) if name == "stdin" else io.BufferedWriter(file)
    return io.TextIOWrapper(buffer, getattr(closed, "encoding", None), line_buffering=True)


def _is_open(number: int) -> bool:
    with suppress(OSError):
        os.fstat(number)
        return True
    return False


def _keep_signals() -> Undo:
    if threading.current_thread() is not threading.main_thread():
        return lambda: None  # no other thread may set a handler, nor could the model
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, []) if hasattr(os, "fork") else None
    waiting = signal.sigpending() if mask is not None else set()
    names = [name for name in dir(signal) if name.startswith("ITIMER_") and mask is not None]
    clocks = [getattr(signal, name) for name in names]
    silent = [clock for clock in clocks if signal.getitimer(clock) == (0.0, 0.0)]

    def undo() -> None:
        for clock in silent:  # an alarm would reach the next model
            signal.setitimer(clock, 0.0)
        if mask is not None:  # what waits behind the model's mask would end the process
            for number in signal.sigpending() - waiting - _USERS:
                signal.signal(number, signal.SIG_IGN)  # forgets it
        if multiprocessing.current_process().name != "MainProcess":
            faulthandler.cancel_dump_traceback_later()
        for number, handler in handlers.items():
            with suppress(OSError, ValueError, TypeError):
                if signal.getsignal(number) is not handler and handler is not None:
                    signal.signal(number, handler)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return undo


# Functions that were replaced


_Content = dict[str, Any]
# Modules, and what those that are kept and their classes held when they were last looked at.
_noted: list[tuple[_Content, list[tuple[Any, _Content]]]] = [({}, [])]


def _keep_namespaces() -> Undo:
    """Note functions and classes of what models are made of and of what reads and scores them."""
    modules, before = _noted[0]
    # Comparing takes a tenth of the time of copying, and hardly anything ever changes.
    if sys.modules != modules or any(_changed(before)):
        modules, before = dict(sys.modules), [(one, dict(vars(one))) for one in _owners()]
        _noted[0] = modules, before

    def undo() -> None:
        if sys.modules != modules:
            for name, module in modules.items():
                if sys.modules.get(name) is not module:
                    sys.modules[name] = module
        for owner, content in _changed(before):
            now = vars(owner)
            for key, value in content.items():
                if now.get(key, _GONE) is not value and _is_code(value):
                    _restored["function"] += 1
                    setattr(owner, key, value)
            if isinstance(owner, type) and len(now) != len(content):
                for key in [k for k, v in now.items() if k not in content and _is_code(v)]:
                    delattr(owner, key)  # it hides the method of a parent

    return undo


def _changed(before: list[tuple[Any, _Content]]) -> Iterator[tuple[Any, _Content]]:
    for owner, content in before:
        try:
            same = vars(owner) == content
        except Exception:  # an array that a model put there has no truth
            same = False
        if not same:
            yield owner, content


def _owners() -> Iterator[Any]:
    yield from (builtins, copy, io, json, math, os, os.path, pickle, random, time)
    yield from (np, np.linalg, np.random, torch, torch.linalg, torch.Tensor, torch.serialization)
    yield from (nn, nn.functional, nn.init, *filter(_is_class, vars(nn).values()))
    for name, module in list(sys.modules.items()):
        if module is not None and name.startswith(("skte.", "torchio.transforms.")):
            yield module
            yield from (one for one in list(vars(module).values()) if _is_class(one, name))


def _is_class(value: Any, module: str = "") -> bool:
    return isinstance(value, type) and module in ("", value.__module__)


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, (classmethod, property))


# Modes of torch


def _keep_modes() -> Undo:
    """Note inference mode, the default device and other modes that were entered and not left."""
    inference = torch.is_inference_mode_enabled()
    device = torch.get_default_device()
    stacks = [
        (torch._C._len_torch_function_stack, torch._C._pop_torch_function_stack),
        (torch._C._len_torch_dispatch_stack, torch._C._pop_torch_dispatch_stack),
    ]
    depths = [length() for length, _ in stacks]

    def undo() -> None:
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        for (length, pop), depth in zip(stacks, depths, strict=True):
            while length() > depth:
                pop()
        if torch.is_inference_mode_enabled() != inference:
            guard = torch.inference_mode(inference)
            guard.__enter__()
            _guards.append(guard)

    return undo


# Files first, so that what others write is not lost; code before what is restored with it.
_SHARED = (
    _keep_namespaces,
    _keep_signals,
    _settings(_python_settings),
    _keep_contents,
    _keep_streams,
    _settings(_torch_settings),
    _keep_random,
    _keep_warnings,
    _keep_logging,
)
_OF_THREAD = (_keep_modes, _settings(_thread_settings))
_process_state = SharedSetting(lambda: _keep(_SHARED))
