"""A folder full of modules with well-known names, which no process that skte starts may import."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reliability.test_current_folder import BEFORE_SKTE, NAMES, SCRIPT, make_place
from tests.reliability.test_current_folder import run as run_there

__all__ = ["run"]

_BANK = ("--bank", "bank.json", "--trust-package", "beside")
_RANK = ("rank", *_BANK, "--data", "data", "--json")
_COMMANDS = {
    "skte rank, several jobs": (*_RANK, "--n-jobs", "2"),
    "skte rank, with a timeout": (*_RANK, "--timeout", "1h"),
    "skte inspect": ("inspect", "data"),
    "skte bank check": ("bank", "check", "bank.json", "--trust-package", "beside"),
    "skte demo": ("demo", "--quick", "--quiet", "--out", "demo"),
}


def run(smoke: bool, seed: int) -> dict[str, Any]:
    """Start skte in every way, beside the modules; each module is one attack."""
    tries: dict[str, Callable[[Path], Any]] = {
        what: lambda place, words=words: run_there(place, "-P", "-m", "skte", *words)
        for what, words in _COMMANDS.items()
    }
    tries["python -m skte"] = _as_module
    for how in ("loky", "race", "dask"):
        tries[f"a script of the user: {how}"] = lambda place, how=how: _script(place, how)
    rows = []
    for what, attempt in list(tries.items())[slice(2, 3) if smoke else slice(None)]:
        n_modules = len(NAMES) - (len(BEFORE_SKTE) if attempt is _as_module else 0)
        problem = _tried(attempt)
        held = 0 if problem else n_modules
        rows.append(
            {
                "attack": what,
                "tried": n_modules,
                "held": held,
                "problems": [problem] * bool(problem),
            }
        )
    return {"door": "modules in the current folder", "rows": rows}


def _tried(attempt: Callable[[Path], Any]) -> str:
    """Return what was imported, or what failed; empty where nothing was."""
    with tempfile.TemporaryDirectory(prefix="skte-processes-") as folder:
        try:
            attempt(make_place(Path(folder)))
        except (AssertionError, OSError) as error:
            return str(error)[:500]
    return ""


def _as_module(place: Path) -> None:
    for name in BEFORE_SKTE:  # Python imports these before skte begins to load
        (place / "here" / f"{name}.py").unlink()
    run_there(place, "-m", "skte", *_RANK, "--n-jobs", "2")


def _script(place: Path, how: str) -> None:
    script = place / "home" / "script.py"
    script.write_text(SCRIPT)
    run_there(place, "-W", "ignore", script, how)
