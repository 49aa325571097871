"""What a foreign network does to the process that it runs in is undone.

A network is a program: it may change the default type of tensors, leave the current folder,
replace functions of torch or raise ``KeyboardInterrupt``. `isolated` stands around each place
where one is built or run, so that all of this costs the network itself and no other. What
is kept, and how, stands in `skte._process_state`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from skte._process_state import keep_process_state, keep_thread_state, n_restored
from skte._safe_path import safe_starts
from skte._shared import SharedSetting
from skte.exceptions import SkteError

__all__ = ["Isolation", "isolated"]

_of_thread = threading.local()
_process_state = SharedSetting(keep_process_state)


@dataclass
class Isolation:
    """What is known of a model's code once it has run."""

    has_meddled: bool = False  # it left a setting or a function of the process changed
    has_left_threads: bool = False  # what they do later cannot be undone


@contextmanager
def isolated(name: str) -> Iterator[Isolation]:
    """Run the code of a model; afterwards the process is as it was.

    Within another `isolated`, nothing happens: what a factory sets up, the forward pass may
    need. Threads share most of what is kept, and it is restored when the last one leaves.

    Parameters
    ----------
    name : str
        The model, for messages.

    Raises
    ------
    SkteError
        If the code raises what would end the process, such as ``SystemExit``. A
        ``KeyboardInterrupt`` stays one if the user pressed Ctrl-C.
    """
    isolation = Isolation()
    if getattr(_of_thread, "is_isolated", False):
        yield isolation
        return
    _of_thread.is_isolated = True
    process, before, threads = os.getpid(), n_restored(), set(sys._current_frames())
    try:
        with ExitStack() as stack:
            stack.enter_context(safe_starts.held())
            stack.enter_context(_process_state.held())
            stack.callback(keep_thread_state())
            user = stack.enter_context(_watched_interrupt())
            with _named_exits(name, user):
                yield isolation
    finally:
        if os.getpid() != process:  # the code has forked: one of the two goes on
            os._exit(1)
        isolation.has_meddled = n_restored() != before
        isolation.has_left_threads = not threads.issuperset(sys._current_frames())
        _of_thread.is_isolated = False


@dataclass
class _User:
    """Whether the user pressed Ctrl-C, and whether that ends the run."""

    has_interrupted: bool = False
    ends_run: bool = False


@contextmanager
def _watched_interrupt() -> Iterator[_User]:
    """Tell the user's Ctrl-C from a ``KeyboardInterrupt`` that code raises by itself.

    Signals reach main threads only. A worker gets the terminal's Ctrl-C, too, but what it
    means is for the process that started the worker to decide.
    """
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
    except BaseException as error:
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
