"""Settings of the whole process, which several threads may need at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["SharedSetting"]


class SharedSetting:
    """The first to enter makes the setting; the last to leave takes it back.

    Parameters
    ----------
    make : callable
        Makes the setting, and returns what takes it back.
    """

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
