"""``skte fetch``: download a public dataset."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from skte._text import say
from skte.datasets import MSD_TASKS, fetch_msd
from skte.exceptions import SkteError

__all__ = ["add_parser"]

_STEP = 0.01  # of the whole, between two changes of the progress line


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte fetch`` to the command line."""
    parser = commands.add_parser(
        "fetch",
        parents=[common],
        help="download a task of the Medical Segmentation Decathlon",
        description="Download a dataset, unless it is there, and print its folder. A download "
        "that was interrupted is resumed.",
    )
    parser.set_defaults(run=_run)
    parser.add_argument("name", nargs="?", metavar="NAME", help="Task04_Hippocampus, for instance")
    parser.add_argument("--list", action="store_true", help="print the available names")
    parser.add_argument(
        "--folder", metavar="DIR", help="where it goes (default: the cache, see SKTE_HOME)"
    )
    parser.add_argument("--base-url", metavar="URL", help="a mirror that has NAME.tar")
    parser.add_argument(
        "--checksum", metavar="SUM", help="md5:... or sha256:... of the archive, for a mirror"
    )


def _run(args: argparse.Namespace) -> int:
    if args.list:
        say("\n".join(MSD_TASKS))
        return 0
    if not args.name:
        raise SkteError("skte fetch needs a NAME; skte fetch --list prints the available ones.")
    options = {"base_url": args.base_url} if args.base_url else {}
    shown = sys.stderr.isatty() and not args.quiet
    try:
        folder = fetch_msd(
            args.name,
            folder=args.folder,
            checksum=args.checksum,
            progress=_Line(args.name) if shown else None,
            **options,
        )
    finally:
        if shown:
            say(file=sys.stderr)
    say(folder)
    return 0


class _Line:
    """One line on stderr that counts up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._shown = -1.0

    def __call__(self, done: int, total: int | None) -> None:
        part = done / total if total else done / 1e9  # of an unknown size a line every 10 MB
        if self._shown <= part < self._shown + _STEP and done != total:
            return
        self._shown = part
        percent = f" {part:4.0%}" if total else ""
        text = f"{self.name}: {done / 1e6:.1f} MB{percent}"
        say(text, begin="\r", end="", file=sys.stderr, flush=True)
