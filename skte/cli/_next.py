"""``skte next``: how to start fine-tuning from a model of a ranking."""

from __future__ import annotations

import argparse
from typing import Any

from skte._text import say
from skte.cli._evaluate import read_ranking
from skte.cli._options import add_trusted_option, count, open_bank
from skte.exceptions import SkteError

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte next`` to the command line."""
    parser = commands.add_parser(
        "next",
        parents=[common],
        help="print how to start fine-tuning from a model",
        description="Print the commands of nnU-Net or of MONAI bundles, or the lines of Python, "
        "that start fine-tuning from the first model of a ranking, or from another one.",
        epilog="example:\n  skte next ranking.json --bank bank.yaml --classes 3\n\n",
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "ranking", nargs="?", metavar="FILE", help="what skte rank --out wrote: its first model"
    )
    parser.add_argument(
        "--bank", required=True, metavar="PATH", help="manifest of the models, or their folder"
    )
    add_trusted_option(parser)
    parser.add_argument("--model", metavar="NAME", help="another model than the first")
    parser.add_argument(
        "--classes", type=count, metavar="N", help="classes of your data, background included"
    )


def _run(args: argparse.Namespace) -> int:
    from skte.report import fine_tuning

    if not (args.ranking or args.model):
        raise SkteError("skte next needs the file that skte rank --out wrote, or --model NAME.")
    name = args.model or _first(args.ranking)
    bank, _ = open_bank(args.bank, args)
    trust = f", trusted_packages={args.trust_package!r}" if args.trust_package else ""
    source = f"load_bank({args.bank!r}{trust})[{name!r}]"
    say(fine_tuning(bank[name], source, args.classes))
    return 0


def _first(path: str) -> str:
    """Name the model that a file of results ranks first."""
    rows = read_ranking(path)
    ranked = [(int(row["rank"]), name) for name, row in rows.items() if row.get("rank")]
    if not ranked:
        raise SkteError(f"{path} has no ranks: give what skte rank --out wrote, or --model NAME.")
    return min(ranked)[1]
