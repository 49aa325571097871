"""The ``skte`` command: rank, inspect, cache, demo."""

from skte.cli._main import main

__all__ = ["main"]
