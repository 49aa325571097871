"""The ``skte`` command: rank, evaluate, inspect, bank, cache, completion, demo."""

from skte.cli._main import main

__all__ = ["main"]
