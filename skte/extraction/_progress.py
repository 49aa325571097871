"""How far an extraction has come, for whoever watches in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["tell_progress", "watch_progress"]

Watcher = Callable[[str, int, int], None]
_watcher: ContextVar[Watcher | None] = ContextVar("skte_progress", default=None)


@contextmanager
def watch_progress(watcher: Watcher) -> Iterator[None]:
    """Have a function called for every case that is done.

    Parameters
    ----------
    watcher : callable
        ``watcher(model, n_done, n_cases)``. Cases of models in other processes are told of when
        the model is done.

    Examples
    --------
    >>> from torch import nn
    >>> from skte import BankEntry, SegmentationFeatureExtractor
    >>> from skte.datasets import make_phantoms
    >>> from skte.extraction import watch_progress
    >>> network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    >>> extractor = SegmentationFeatureExtractor(BankEntry.from_module("tiny", network))
    >>> with watch_progress(lambda *done: print(*done)):
    ...     features = extractor.fit_transform(make_phantoms(2, size=(12, 12, 12)))
    tiny 1 2
    tiny 2 2
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell_progress(model: str, n_done: int, n_cases: int) -> None:
    """Tell whoever watches that a case is done.

    Parameters
    ----------
    model : str
        Name of the model.
    n_done, n_cases : int
        Cases that are done, of all.
    """
    watcher = _watcher.get()
    if watcher is not None:
        watcher(model, n_done, n_cases)
