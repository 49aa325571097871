"""Where downloads are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_home"]


def cache_home() -> Path:
    """Return the folder of downloads: ``SKTE_HOME``, or the platform's place for caches."""
    if chosen := os.environ.get("SKTE_HOME"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "skte"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "skte"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skte"
