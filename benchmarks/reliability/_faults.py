"""Full disks, read-only and shared caches, clocks, changed files, and models that fail."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import torch

from benchmarks.reliability._kills import half_done, undisturbed
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
from skte.demo import small_unet

__all__ = [
    "changed_clock",
    "changed_file",
    "failing_models",
    "file_size_limit",
    "full_disk",
    "read_only_cache",
    "shared_cache",
]

_MODELS = "tests.reliability.models"


def file_size_limit(place: Place, limits: list[int]) -> dict[str, Any]:
    """Let no file grow beyond so many bytes: writes fail in the middle."""

    undisturbed(place)

    def limited(most: int) -> list[str]:
        out = fresh(place.root / "limited")

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        # The log may not be a file, or it would be cut off as well.
        log = _logged(place.root / "log pipe")
        with log as path:
            code = wait(fork(place.command(out), path, before=limit))
        return _after_trouble(place, out, code, place.root / "log pipe.txt")

    return _tried(limits, limited)


def full_disk(place: Place, sizes: list[int]) -> dict[str, Any]:
    """Give a run a disk of so many bytes, and the next run one with room."""

    undisturbed(place)

    def filled(size: int) -> list[str]:
        out = fresh(place.root / "small disk")
        done = run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", out], capture_output=True
        )
        if done.returncode:
            raise PermissionError("no disk can be mounted here")
        try:
            log = place.root / "small disk.log"
            code = wait(fork(place.command(out), log))
            kept = fresh(place.root / "kept")
            shutil.copytree(out, kept, dirs_exist_ok=True)
        finally:
            run(["umount", out], check=True)
        return _after_trouble(place, kept, code, log)

    return _unless_refused(sizes, filled)


def read_only_cache(place: Place) -> dict[str, Any]:
    """Use a cache that may be read but not written: empty, half full and full."""
    expected = undisturbed(place)

    def read_only(share: float) -> list[str]:
        cache, out = fresh(place.root / "read-only"), fresh(place.root / "beside")
        shutil.copytree(place.root / "undisturbed" / "cache", cache, dirs_exist_ok=True)
        entries = sorted(cache.rglob("*.skf"))
        for path in entries[round(share * len(entries)) :]:
            path.unlink()
        before = digests(cache)
        with _read_only(cache):
            code = place.run(out, cache=cache)
        found = outcome(out, cache)
        problems = [] if code == 0 else [f"ended with {code}: {(out / 'log').read_text()[-500:]}"]
        if without_warnings(found["table"]) != without_warnings(expected["table"]):
            problems.append("the table differs")
        problems += [f"left behind: {name}" for name in found["others"]]
        if digests(cache) != before:
            problems.append("the cache was changed")
        if share < 1 and "could not be written" not in (out / "log").read_text():
            problems.append("no warning said that nothing is cached")
        return problems

    return _unless_refused([0.0, 0.5, 1.0], read_only)


def shared_cache(place: Place, n: int, seed: int) -> dict[str, Any]:
    """Let three runs share a cache; in every second round one of them is killed."""
    expected, rng = undisturbed(place), np.random.default_rng(seed)

    def shared(i: int) -> list[str]:
        cache = fresh(place.root / "shared")
        outs = [fresh(place.root / f"sharing {j}") for j in range(3)]
        pids = []
        for out in outs:
            pids.append(fork(place.command(out, cache=cache), out / "log"))
            time.sleep(float(rng.uniform(0, 0.3)))
        if i % 2:
            os.kill(pids[0], signal.SIGKILL)
        codes = [wait(pid) for pid in pids]
        living = list(zip(outs, codes, strict=True))[i % 2 :]
        problems = [f"a run ended with {code}" for _, code in living if code != 0]
        for out, _ in living:
            found = outcome(out)
            found["cache"] = {k: v for k, v in digests(cache).items() if not k.endswith(".tmp")}
            problems += [f"{key} differs" for key in found if found[key] != expected[key]]
        return problems

    return _tried(range(n), shared)


def changed_clock(place: Place) -> dict[str, Any]:
    """Put the clock years ahead or back between runs, and during one."""
    expected = undisturbed(place)
    year = 365.0 * 86_400

    def shifted(shift: float, during: bool) -> list[str]:
        out = fresh(place.root / "clock")
        place.run(out)
        for path in [*out.rglob("*.skf")][::2]:
            path.unlink()
        for path in out.rglob("*"):
            os.utime(path, (time.time() + shift,) * 2)
        real = time.time
        calls = iter(range(10**9))

        def other() -> float:  # jumps at every second call
            return real() + shift * (next(calls) % 2)

        code = place.run(out, before=lambda: during and setattr(time, "time", other))
        found = outcome(out)
        problems = [] if code == 0 else [f"ended with {code}"]
        return problems + [f"{key} differs" for key in found if found[key] != expected[key]]

    tried = [(s * year, during) for s in (-40.0, -1.0, 1.0, 40.0) for during in (False, True)]
    return _tried(tried, lambda one: shifted(*one))


def changed_file(place: Place) -> dict[str, Any]:
    """Change an image, a label or weights: between runs and while a model runs."""

    def changed(what: str, during: bool) -> list[str]:
        own = Place(fresh(place.root / f"changing {what} {during}"), n_cases=3, n_models=2)
        out, new = fresh(own.root / "out"), own.root / "new"
        if what == "weights":
            old = own.root / "0.pt"
            torch.save(small_unet(widths=(4, 8)).state_dict(), new)
        else:
            old, other = sorted((own.data / f"{what}sTr").iterdir())[:2]
            shutil.copy2(other, new)
        problems = []
        if during:
            arguments = {"new": str(new), "old": str(old), "after": 2}
            meddling = {
                "name": "meddling",
                "factory": f"{_MODELS}:Meddling",
                "arguments": arguments,
            }
            own.write_bank([meddling])
            code, log = own.run(out), (out / "log").read_text()
            if code != 2 or "was written to while it was in use" not in log:
                problems.append(f"not noticed: {code}, {log[-300:]}")
            own.write_bank()
        else:
            own.run(out)
            os.replace(new, old)
        if own.run(out) != 0:
            problems.append((out / "log").read_text()[-300:])
        expected = undisturbed(own)
        for key in ("table", "report"):
            if outcome(out)[key] != expected[key]:
                problems.append(f"{key} is not that of the new content")
        return problems

    tried = [(what, during) for what in ("image", "label") for during in (False, True)]
    return _tried([*tried, ("weights", False)], lambda one: changed(*one))


def failing_models(place: Place) -> dict[str, Any]:
    """Rank with a model that hangs, dies or takes all memory among good ones."""
    good = undisturbed(place)["table"]
    kinds = {
        "hangs": ("Hanging", ("--timeout", "10"), "longer than timeout=10"),
        "dies": ("Dying", ("--n-jobs", "2"), "process died (EXIT(7))"),
        "dies, with a timeout": ("Dying", ("--timeout", "60"), "process died (EXIT(7))"),
        "killed by the system": ("Killed", ("--n-jobs", "2"), "process died (SIGKILL(-9))"),
        "out of memory": ("Greedy", ("--batch-size", "8"), "memory ran out"),
    }

    def failing(kind: str) -> list[str]:
        factory, options, reason = kinds[kind]
        arguments = {"most": 0, "after": 2} if factory == "Greedy" else {}
        own = Place(place.root / "failing", place.n_cases, place.n_models)
        bad = {"name": "bad", "factory": f"{_MODELS}:{factory}", "arguments": arguments}
        own.write_bank([bad])
        out = fresh(own.root / "out")
        code = own.run(out, *options)
        rows = {row["name"]: row for row in table(out / "ranking.csv") or []}
        problems = [] if code == 1 else [f"ended with {code}"]
        if reason not in rows.get("bad", {}).get("error", ""):
            problems.append(f"no reason: {rows.get('bad')}")
        if [rows.get(row["name"]) for row in good or []] != good:
            problems.append("the other models' rows differ")
        own.write_bank()
        if own.run(out) != 0 or table(out / "ranking.csv") != good or others(out):
            problems.append("the next run differs")
        return problems

    return _tried(list(kinds), failing)


def _after_trouble(place: Place, out: Path, code: int, log: Path) -> list[str]:
    """What a run in trouble may not do, and what the next one must."""
    text = log.read_text(errors="replace")
    problems = [] if code in (0, 1, 2) else [f"ended with {code}"]
    if "Traceback" in text:
        problems.append(f"a traceback: {text[-300:]}")
    if code == 2 and "skte: error: " not in text:
        problems.append(f"no reason: {text[-300:]}")
    problems += [f"left behind: {name}" for name in others(out)]
    problems += [f"left behind: {path.name}" for path in (out / "cache").rglob("*.tmp")]
    expected = outcome(place.root / "undisturbed")
    problems += half_done(out, expected)
    if place.run(out) != 0:
        problems.append(f"the next run failed: {(out / 'log').read_text()[-300:]}")
    found, expected = outcome(out), outcome(place.root / "undisturbed")
    return problems + [
        f"the next run's {key} differs" for key in found if found[key] != expected[key]
    ]


@contextmanager
def _logged(pipe: Path) -> Iterator[Path]:
    """Name a pipe whose text ends up in a file of that name with .txt."""
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    reader = os.fork()
    if not reader:
        try:
            with pipe.open("rb") as source, Path(f"{pipe}.txt").open("wb") as target:
                shutil.copyfileobj(source, target)
        finally:
            os._exit(0)
    try:
        yield pipe
    finally:
        os.waitpid(reader, 0)
        pipe.unlink()


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Let nobody write to a folder; root could in spite of permissions."""
    if os.getuid() == 0:
        commands = [["mount", "--bind", folder, folder], ["mount", "-o", "remount,ro,bind", folder]]
        undo = [["umount", folder]]
    else:
        commands, undo = [["chmod", "-R", "a-w", folder]], [["chmod", "-R", "u+w", folder]]
    for command in commands:
        if run(command, capture_output=True).returncode:
            raise PermissionError("no folder can be made read-only here")
    try:
        yield
    finally:
        for command in undo:
            run(command, check=True)


def _tried(cases: Any, check: Callable[[Any], list[str]]) -> dict[str, Any]:
    found = [(case, check(case)) for case in cases]
    return {
        "n_tried": len(found),
        "n_equal": sum(not problems for _, problems in found),
        "problems": [f"{case}: {text}" for case, problems in found for text in problems],
    }


def _unless_refused(cases: Any, check: Callable[[Any], list[str]]) -> dict[str, Any]:
    try:
        return _tried(cases, check)
    except PermissionError as error:
        return {"n_tried": 0, "n_equal": 0, "problems": [], "skipped": str(error)}
