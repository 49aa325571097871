"""A tiny bank and dataset on disk, and real `skte rank` runs over them in forked processes.

Forked: skte is imported once, so that hundreds of runs take minutes. What runs is the
command's own code, from its arguments to its exit code.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from skte.cli import main as skte
from skte.datasets import make_phantoms
from skte.demo import small_unet, write_msd

# What may differ between equal runs: seconds, and what the cache had already.
_OF_THE_RUN = re.compile(r"seconds_.*|n_windows|n_cached")


class Place:
    """A folder with a dataset, a bank, and room for what runs write.

    Parameters
    ----------
    root : Path
        The folder; made if need be.
    n_cases, n_models
        Sizes.
    """

    def __init__(self, root: Path, n_cases: int = 4, n_models: int = 3) -> None:
        self.root, self.n_cases, self.n_models = root, n_cases, n_models
        self.data, self.bank = root / "data", root / "bank.json"
        if not self.bank.exists():
            root.mkdir(parents=True, exist_ok=True)
            write_msd(self.data, make_phantoms(n_cases, size=(20, 20, 16)), "tiny")
            self.write_bank()

    def write_bank(self, more: Sequence[dict[str, Any]] = ()) -> None:
        """Write the manifest; `more` models stand first."""
        models = []
        for seed in range(self.n_models):
            torch.manual_seed(seed)
            torch.save(small_unet(widths=(4, 8)).state_dict(), self.root / f"{seed}.pt")
            unet = {"factory": "skte.demo:small_unet", "arguments": {"widths": [4, 8]}}
            models.append({"name": f"model {seed}", **unet, "weights": f"{seed}.pt"})
        models = [{"weights": "none", **one} for one in (*more, *models)]
        self.bank.write_text(json.dumps({"models": models}))

    @property
    def n_entries(self) -> int:
        """Features that a whole run leaves in a cache."""
        return self.n_cases * self.n_models

    def command(self, out: Path, *more: str, cache: Path | None = None) -> list[str]:
        """Arguments of ``skte`` for a run with everything that writes."""
        return [
            *("rank", "--bank", str(self.bank), "--data", str(self.data)),
            *("--estimator", "ccfv", "--estimator", "logme"),
            *("--cache", str(cache or out / "cache")),
            *("--out", str(out / "ranking.csv"), "--report", str(out / "report.html")),
            *("--device", "cpu", *more),
        ]

    def run(self, out: Path, *more: str, cache: Path | None = None, **options: Any) -> int:
        """Run to the end in a process of its own; return its exit code."""
        out.mkdir(parents=True, exist_ok=True)
        return wait(fork(self.command(out, *more, cache=cache), out / "log", **options))


def import_as_runs_do(place: Place) -> None:
    """Import here what a run imports on its way, so that forked ones need not."""
    out = fresh(place.root / "imports")
    wait(fork(place.command(out), out / "log", told=out / "modules"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in (out / "modules").read_text().split("\n"):
            if name.startswith(("matplotlib", "skte", "torch", "torchio", "nibabel", "sklearn")):
                with suppress(Exception):
                    importlib.import_module(name)


def fork(
    command: Sequence[str],
    log: Path,
    before: Callable[[], object] = lambda: None,
    told: Path | None = None,
) -> int:
    """Start ``skte`` with arguments in a forked process.

    `before` is called in it first; in the end it writes what it imported to `told`.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        before()
        code = skte([*command])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if told is not None:
            told.write_text("\n".join(sys.modules))
        os._exit(code)


def wait(pid: int, seconds: float = 120.0) -> int:
    """Exit code of a forked process, negative for a signal; killed if it takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise TimeoutError(f"a run took more than {seconds} s")


def outcome(out: Path, cache: Path | None = None) -> dict[str, Any]:
    """All that a run left, apart from times and from what it found in the cache."""
    return {
        "cache": digests(cache or out / "cache"),
        "table": table(out / "ranking.csv"),
        "report": report(out / "report.html"),
        "others": others(out),
    }


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table(path: Path) -> list[dict[str, str]] | None:
    """Rows of a ranking."""
    if not path.exists():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not _OF_THE_RUN.fullmatch(k)} for row in rows]


def without_warnings(rows: list[dict[str, str]] | None) -> list[dict[str, str]]:
    """Rows as they are where nothing was worth a warning, that nothing is cached for instance."""
    return [{key: row[key] for key in row if key != "warnings"} for row in rows or []]


def report(path: Path) -> str | None:
    """Digest of a page without what differs from run to run: cost, date and command."""
    if not path.exists():
        return None
    text = re.sub(r'(?s)<section id="cost".*?</section>', "", path.read_text("utf-8"))
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", text)
    text = re.sub(r"(?s)<dt>command</dt>\s*<dd>.*?</dd>", "", text)
    return hashlib.sha256(text.encode()).hexdigest()


def others(out: Path) -> list[str]:
    """Names beside the results and the cache: temporary files, if there are any."""
    known = {"ranking.csv", "report.html", "log", "cache"}
    return sorted(path.name for path in out.iterdir() if path.name not in known)


def fresh(folder: Path) -> Path:
    """Return an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
