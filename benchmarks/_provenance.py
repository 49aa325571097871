"""What a result file says about where its numbers came from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["data_folder", "provenance", "write_json"]

_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "torchio", "joblib")
_ROOT = Path(__file__).resolve().parents[1]


def provenance(**settings: Any) -> dict[str, Any]:
    """Date, commit, versions and machine, beside the settings of the run."""
    return {
        "date": date.today().isoformat(),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "skte", "benchmarks/*.py")),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "machine": platform.machine(),
        "command": f"python -m {_module()}",
        **settings,
    }


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a result file; an interrupted run leaves the old one whole."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(target)


def data_folder(argument: str | None) -> Path:
    """Folder of the real images: an argument, SKTE_DATA, or ../shared/data."""
    folder = Path(argument or os.environ.get("SKTE_DATA") or _ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder; pass --data, or set SKTE_DATA.")
    return folder


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return "?" if spec is None else spec.name.removesuffix(".__main__")


def _git(*arguments: str) -> str:
    run = subprocess.run(
        ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return run.stdout.strip()
