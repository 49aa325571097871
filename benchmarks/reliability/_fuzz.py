"""Random inputs at every door, each in bounded time and memory and watched by an audit hook."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import shlex
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.reliability import checkpoints
from tests.reliability.targets import TARGETS, Target

__all__ = ["fuzz", "try_one"]

# A tiny file must not take more than this beyond what skte itself takes, nor longer.
_MEMORY = 4 * 2**30
_SECONDS = 60
_FREE = ("/dev/null", "/proc/self/clear_refs")  # the latter only resets a count of memory
# Of Python's audit events, those that no input may cause.
_NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.startfile",
          "os.fork", "os.forkpty", "pty.spawn", "socket.connect", "socket.bind",
          "socket.getaddrinfo", "ctypes.dlopen", "webbrowser.open", "os.kill",
          "os.symlink", "os.link")  # fmt: skip
_WRITES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
)


def fuzz(name: str, n: int, seed: int, n_jobs: int) -> dict[str, Any]:
    """Try `n` inputs at one door.

    Returns
    -------
    dict
        Counts by outcome, slowest seconds, most memory, and every failure with the command
        that repeats it.
    """
    parts = [range(worker, n, n_jobs) for worker in range(n_jobs)]
    watched = [_Watched(name, seed, list(part)) for part in parts]
    while any(one.busy for one in watched):
        for one in watched:
            one.look()
        time.sleep(0.02)
    counts = sum((one.counts for one in watched), Counter())
    return {
        "what": _target(name).what,
        "seed": seed,
        "n_tried": n,
        "outcomes": dict(counts.most_common()),
        "slowest_seconds": round(max(one.slowest for one in watched), 1),
        "memory_mib": round(max(one.memory for one in watched)),
        "problems": [problem for one in watched for problem in one.problems],
    }


class _Watched:
    """A process that tries inputs, and another one from the next on if it dies or hangs."""

    def __init__(self, name: str, seed: int, numbers: list[int]) -> None:
        self.name, self.seed, self.left = name, seed, numbers
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.slowest = self.memory = 0.0
        self.busy = True
        self._start()

    def look(self) -> None:
        """Take in what there is; start again where the process is gone."""
        if not self.busy:
            return
        try:
            while self.receiver.poll():
                self._take(self.receiver.recv())
        except EOFError:
            self.process.join()
            if self.left:
                self._lose(f"the process died ({self.process.exitcode})")
            else:
                self.busy = False
            return
        if time.monotonic() - self.since > 2 * _SECONDS:
            self.process.kill()
            self.process.join()
            self._lose("hung")

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(sender, self.name, self.seed, self.left))
        self.process.start()
        sender.close()
        self.since = time.monotonic()

    def _take(self, message: tuple[int, str, float, float]) -> None:
        number, outcome, seconds, memory = message
        self.since = time.monotonic()
        self.left = self.left[self.left.index(number) + 1 :]
        self.slowest, self.memory = max(self.slowest, seconds), max(self.memory, memory)
        self._count(number, outcome)

    def _lose(self, how: str) -> None:
        number, *self.left = self.left
        self._count(number, f"failure: {how}")
        self.busy = bool(self.left)
        if self.busy:
            self._start()

    def _count(self, number: int, outcome: str) -> None:
        self.counts[outcome.partition(":")[0]] += 1
        if outcome.startswith("failure"):
            again = f"--seed {self.seed} --again {shlex.quote(self.name)} {number}"
            self.problems.append(f"{outcome[9:]} ({again})")


def try_one(name: str, seed: int, number: int) -> None:
    """Try one input again, here, with its traceback."""
    target = _target(name)
    with tempfile.TemporaryDirectory() as folder:
        sound = target.prepare(Path(folder))
        print(target.attempt(_rng(name, seed, number), Path(folder), sound))


def _rng(name: str, seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, [*TARGETS, *checkpoints.ATTACKS].index(name), number])


def _target(name: str) -> Target:
    if name in TARGETS:
        return TARGETS[name]
    attack = checkpoints.ATTACKS[name]
    return Target(lambda _: attack, lambda rng, d, a: checkpoints.attempt(a, rng, d), name)


def _work(sender: Any, name: str, seed: int, numbers: list[int]) -> None:
    logging.disable()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    warnings.simplefilter("ignore")
    target = _target(name)
    with tempfile.TemporaryDirectory(prefix="skte-fuzz-") as place:
        folder = Path(place)
        sound = target.prepare(folder)
        # Once without limits: libraries are imported at the first use.
        for i in range(20):
            _outcome(target, np.random.default_rng(i), folder, sound, [])
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY,) * 2)
        signal.signal(signal.SIGALRM, _too_long)
        seen: list[str] = []
        _watch(folder, seen)
        begun_with = _peak()
        for number in numbers:
            begun = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, _SECONDS)
            outcome = _outcome(target, _rng(name, seed, number), folder, sound, seen)
            signal.setitimer(signal.ITIMER_REAL, 0)
            sender.send((number, outcome, time.monotonic() - begun, _peak() - begun_with))
        seen.clear()
        sender.close()
        _watching.clear()


def _outcome(target: Any, rng: Any, folder: Path, sound: Any, seen: list[str]) -> str:
    seen.clear()
    try:
        found: str = target.attempt(rng, folder, sound)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return f"failure: {type(error).__name__} at {where}: {str(error)[:200]}"
    return f"failure: it did {seen[0]}" if seen else found


_watching: list[bool] = []


def _watch(folder: Path, seen: list[str]) -> None:
    """Note what no input may cause: programs, connections, writing elsewhere."""
    inside = str(folder)
    _watching.append(True)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not _watching:
            return
        if event in _NEVER:
            seen.append(f"{event} {str(arguments)[:100]}")
        elif event == "open" and isinstance(arguments[0], (str, bytes, Path)):
            path, flags = os.path.abspath(os.fsdecode(arguments[0])), arguments[2] or 0
            writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writing and not path.startswith((inside, *_FREE)):
                seen.append(f"open {path} for writing")
        elif event in _WRITES and not os.path.abspath(str(arguments[0])).startswith(inside):
            seen.append(f"{event} {arguments[0]}")

    sys.addaudithook(hook)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"took longer than {_SECONDS} seconds")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
