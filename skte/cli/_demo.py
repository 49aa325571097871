"""``skte demo``: the whole way on synthetic images."""

from __future__ import annotations

import argparse
from typing import Any

from skte.cli._numbers import seed
from skte.demo import run_demo

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte demo`` to the command line."""
    parser = commands.add_parser(
        "demo",
        parents=[common],
        help="make phantoms, train a small bank, rank it, check the ranking",
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "--out", default="skte-demo", metavar="DIR", help="where results go (default: skte-demo)"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of images, networks and voxels"
    )
    parser.add_argument(
        "--quick", action="store_true", help="hardly any training: shows the steps, proves nothing"
    )


def _run(args: argparse.Namespace) -> int:
    run_demo(args.out, random_state=args.seed, quick=args.quick, verbose=not args.quiet)
    return 0
