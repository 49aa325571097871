"""Runs killed (SIGKILL) at random moments and at every operation on a file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability._place import (
    Place,
    digests,
    fork,
    fresh,
    others,
    outcome,
    table,
    wait,
    without_warnings,
)

__all__ = [
    "file_operations",
    "half_done",
    "kill_at_operations",
    "kill_at_random",
    "undisturbed",
]

_OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "fcntl.flock")
# A run started anew imports for longer than this; here it is forked, and starts at once.
_RESTART_SECONDS = 5.0


def kill_at_random(place: Place, n: int, seed: int, n_jobs: int) -> dict[str, Any]:
    """Kill `n` runs, each at a random moment from its start to just after its end."""
    expected = undisturbed(place)
    shares = np.random.default_rng(seed).uniform(0.0, 1.1, size=n)
    pace = _Pace(place)
    found = _each(
        lambda i: _round(place, expected, f"random {i}", moment=shares[i] * pace.seconds()),
        n,
        n_jobs,
    )
    return {"seed": seed, **summary(found)}


class _Pace:
    """What a whole run takes, measured again now and then: machines have other work, too."""

    def __init__(self, place: Place, every: int = 20) -> None:
        self.place, self.every = place, every
        self._asked, self._known = 0, 0.0

    def seconds(self) -> float:
        """Wall time of a run, as it is now."""
        if self._asked % self.every == 0:
            out = fresh(self.place.root / f"pace {os.getpid()}")
            begun = time.monotonic()
            assert self.place.run(out) == 0
            self._known = time.monotonic() - begun
        self._asked += 1
        return self._known


def kill_at_operations(place: Place, step: int, n_jobs: int) -> dict[str, Any]:
    """Kill one run before every `step`-th operation on a file that a run makes."""
    expected = undisturbed(place)
    total = file_operations(place)
    points = range(1, total + 1, step)
    found = _each(
        lambda i: _round(place, expected, f"operation {points[i]}", operation=points[i]),
        len(points),
        n_jobs,
    )
    return {"n_operations": total, **summary(found)}


def undisturbed(place: Place) -> dict[str, Any]:
    """What a run leaves that nothing disturbs."""
    out = fresh(place.root / "undisturbed")
    code = place.run(out)
    assert code == 0, (out / "log").read_text()
    found = outcome(out)
    assert len(found["cache"]) >= place.n_entries
    assert not found["others"]
    return found


def file_operations(place: Place) -> int:
    """Count the operations on files of one run."""
    out, told = fresh(place.root / "counted"), place.root / "count"
    code = place.run(out, before=lambda: _watch(out, None, told))
    assert code == 0
    return len(told.read_text().split())


def _round(
    place: Place,
    expected: dict[str, Any],
    name: str,
    *,
    moment: float | None = None,
    operation: int | None = None,
) -> dict[str, Any]:
    """One kill and the run after it."""
    out = fresh(place.root / f"round {os.getpid()}")
    pid = fork(
        place.command(out),
        out / "log",
        before=lambda: operation and _watch(out, operation, None),
    )
    if moment is not None:
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)  # also if it has ended: its number is kept until waited for
    code = wait(pid)
    stage = _stage(place, out) if code < 0 else "after its end"
    problems = half_done(out, expected)
    leftovers = _leftovers(out)
    for path in leftovers:
        os.utime(path, (time.time() - _RESTART_SECONDS,) * 2)
    code = place.run(out)
    if code != 0:
        problems.append(f"the next run ended with {code}: {(out / 'log').read_text()[-500:]}")
    found = outcome(out)
    problems += [f"the next run's {key} differs" for key in found if found[key] != expected[key]]
    problems += [f"left behind: {path.name}" for path in _leftovers(out)]
    return {"round": name, "stage": stage, "n_leftovers": len(leftovers), "problems": problems}


def _stage(place: Place, out: Path) -> str:
    """How far a killed run had come."""
    n_entries = len(list((out / "cache").rglob("*.skf"))) if (out / "cache").exists() else 0
    if (out / "report.html").exists():
        return "after the report"
    if (out / "ranking.csv").exists():
        return "writing the report"
    if n_entries == place.n_entries:
        return "scoring and writing the table"
    return "extracting and caching" if n_entries else "before the first features"


def half_done(out: Path, expected: dict[str, Any]) -> list[str]:
    """What a reader could have met half of."""
    found = digests(out / "cache") if (out / "cache").exists() else {}
    problems = [
        f"half a file in the cache: {name}"
        for name, digest in found.items()
        if not name.endswith(".tmp") and digest != expected["cache"].get(name)
    ]
    found_table = table(out / "ranking.csv")
    whole = without_warnings(expected["table"])
    if found_table is not None and without_warnings(found_table) != whole:
        problems.append("half a table")
    report = out / "report.html"
    if report.exists() and not report.read_text("utf-8").endswith("</html>\n"):
        problems.append("half a report")
    return problems


def _leftovers(out: Path) -> list[Path]:
    return [*(out / "cache").rglob("*.tmp"), *(out / name for name in others(out))]


def _watch(out: Path, last: int | None, told: Path | None) -> None:
    """Count operations on files below a folder; die before the one that is `last`."""
    root, n, busy = str(out), 0, False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal n, busy
        if event not in _OPERATIONS or busy:
            return
        if event != "fcntl.flock" and not str(arguments[0]).startswith(root):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        n += 1
        if told is not None:
            busy = True
            with told.open("a") as file:
                file.write(f"{n}\n")
            busy = False
        if n == last:
            os.kill(os.getpid(), signal.SIGKILL)

    if told is not None:
        told.unlink(missing_ok=True)
    sys.addaudithook(hook)


def _each(work: Callable[[int], Any], n: int, n_jobs: int) -> list[Any]:
    """Do the work for each number, several at a time; forked, as closures cannot be sent."""
    context = multiprocessing.get_context("fork")
    parts = [range(worker, n, n_jobs) for worker in range(n_jobs)]
    pipes, processes = [], []
    for part in parts:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(sender, work, part))
        process.start()
        sender.close()
        pipes.append(receiver)
        processes.append(process)
    found = [one for pipe in pipes for one in pipe.recv()]
    for process in processes:
        process.join()
    return found


def _send(sender: Any, work: Callable[[int], Any], part: range) -> None:
    sender.send([work(i) for i in part])


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by stage, and every problem."""
    return {
        "n_tried": len(rounds),
        "killed": dict(Counter(one["stage"] for one in rounds).most_common()),
        "n_with_leftovers": sum(one["n_leftovers"] > 0 for one in rounds),
        "n_equal": sum(not one["problems"] for one in rounds),
        "problems": [f"{one['round']}: {text}" for one in rounds for text in one["problems"]],
    }
