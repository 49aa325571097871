"""What code that nobody trusts may not do while it builds a network."""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["Watch"]

# Python's audit events for what a class of a network has no need of.
_STARTS = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
        "os.startfile/2", "os.system", "pty.spawn", "subprocess.Popen", "webbrowser.open",
    }
)  # fmt: skip
_CHANGES = frozenset(
    {
        "os.chmod", "os.chown", "os.kill", "os.link", "os.mkdir", "os.putenv", "os.remove",
        "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.unsetenv", "os.utime",
        "shutil.copyfile", "shutil.copytree", "shutil.move", "shutil.rmtree", "signal.pthread_kill",
        "tempfile.mkdtemp", "tempfile.mkstemp",
    }
)  # fmt: skip
_NETWORK = frozenset(
    {
        "ftplib.connect", "http.client.connect", "socket.bind", "socket.connect",
        "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request",
    }
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_here = threading.local()
_installing = threading.Lock()
_installed = False


class Watch:
    """Stops, in this thread, files, processes and connections; reading libraries goes on.

    Classes of network libraries take paths, addresses and names of pretrained weights as
    arguments, and a manifest may give any. An import that they do late still works.

    Attributes
    ----------
    stopped : str
        What was stopped first; empty if nothing was.
    """

    def __init__(self) -> None:
        self.stopped = ""
        self._places: tuple[str, ...] = ()
        self._outermost: FrameType | None = None

    def __enter__(self) -> Self:
        global _installed
        with _installing:
            if not _installed:
                sys.addaudithook(_hook)
                _installed = True
        self._outermost = sys._getframe(1)  # a program of the user's own is a module, too
        self._places = _library_folders()
        self._before = getattr(_here, "watch", None)
        _here.watch = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _here.watch = self._before

    def look(self, event: str, args: tuple[Any, ...]) -> None:
        """Raise where an event is one to stop."""
        what = self._what(event, args)
        # What a library does at its import it does whatever the arguments are, and half an
        # import would leave it broken.
        if not what or (event not in _NETWORK and self._is_importing()):
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
        if event == "ctypes.dlopen":
            text = str(args[0] or "")
            return (
                f"load {text[:200]!r}"
                if os.sep in text and not _is_below(text, self._places)
                else ""
            )
        if event in _STARTS:
            return "start a program"
        if event in _CHANGES:
            return f"change files or settings ({event})"
        return f"use the network ({event})" if event in _NETWORK else ""


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
