"""The ``skte`` command: rank, inspect, demo."""

from skte.cli._main import main

__all__ = ["main"]
