"""The ``skte`` command: rank, evaluate, inspect, fetch, cache, demo."""

from skte.cli._main import main

__all__ = ["main"]
