"""Settings of the whole process: where it imports from, and settings that threads share.

No process of skte imports modules from the folder it happens to be started in. This module
is the first that `skte` imports. Until its first function has run, it may import nothing
that Python has not loaded already, not even ``__future__``.
"""

import os
import sys

__all__ = ["SharedSetting", "safe_starts"]


def _leave_current_folder() -> None:
    """Remove the current folder, which ``python -m skte`` searches first, from the path."""
    # Programs of the user that import skte keep their path.
    arguments = getattr(sys, "argv", [])
    # While Python locates what ``-m`` names, and only then, the first argument is "-m".
    if arguments[:1] != ["-m"] or len(sys.orig_argv) < len(arguments) or sys.flags.safe_path:
        return
    named = sys.orig_argv[-len(arguments)]
    if named.partition(".")[0] != "skte" and not (named[:1] == "-" and named.endswith("mskte")):
        return
    here = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == os.path.abspath(here):
        sys.path.append(here)  # skte itself lies there, uninstalled, and its workers import it


_leave_current_folder()

import threading  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402

_VARIABLE = "PYTHONSAFEPATH"


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
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"

    def undo() -> None:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before

    return undo


#: While it is held, Python processes that this one starts do not search the current folder.
safe_starts = SharedSetting(_start_safely)
