"""How far an extraction has come, for whoever watches in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[str, int, int], None]
_watcher: ContextVar[Watcher | None] = ContextVar("skte_progress", default=None)


@contextmanager
def watch_progress(watcher: Watcher) -> Iterator[None]:
    """Have a function called for every case that is done."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell_progress(model: str, n_done: int, n_cases: int) -> None:
    """Tell whoever watches that a case is done."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(model, n_done, n_cases)
