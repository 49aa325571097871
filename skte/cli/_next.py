"""``skte next``: how to start fine-tuning from a model of a ranking."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skte._text import say
from skte.cli._evaluate import read_ranking
from skte.cli._options import add_trusted_option, count, open_bank
from skte.exceptions import SkteError

if TYPE_CHECKING:
    from skte.bank import BankEntry


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte next`` to the command line."""
    parser = commands.add_parser(
        "next",
        parents=[common],
        help="print how to start fine-tuning from a model",
        description="Print the commands of nnU-Net or of MONAI bundles, or the lines of Python, "
        "that start fine-tuning from the first choice of a ranking, or from another model.",
        epilog="example:\n  skte next ranking.json --bank bank.yaml --classes 3\n\n",
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "ranking", nargs="?", metavar="FILE", help="what skte rank --out wrote: its first choice"
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
    rows = read_ranking(args.ranking) if args.ranking else {}
    name = args.model or _first(rows, args.ranking)
    bank, _ = open_bank(args.bank, args)
    lines = fine_tuning(bank[name], _source(bank[name], args), args.classes)
    doubts = dict.fromkeys(str(row["no_answer"]) for row in rows.values() if row.get("no_answer"))
    say("\n".join([*(f"# {doubt}" for doubt in doubts), lines]))
    return 0


def _first(rows: Mapping[str, Mapping[str, Any]], path: str) -> str:
    """Name the first model of the short list of a file of results, or else of its ranks."""
    for column in ("choice", "rank"):
        places = [(float(row[column]), name) for name, row in rows.items() if row.get(column)]
        if places:
            return min(places)[1]
    raise SkteError(f"{path} has no ranks: give what skte rank --out wrote, or --model NAME.")


def _source(entry: BankEntry, args: argparse.Namespace) -> str:
    """Lines of Python that read an entry from any folder, as this command has read it."""
    path, roots = Path(args.bank).absolute(), [str(Path(one).absolute()) for one in args.allow_root]
    limits: dict[str, Any] = {"trusted_packages": args.trust_package, "extra_roots": roots}
    read = "load_bank"
    if path.is_dir() and args.trusted:
        read, limits["trusted"] = "ModelBank.from_folder", args.trusted
    given = "".join(f", {option}={value!r}" for option, value in limits.items() if value)
    found = f"{read}({str(path)!r}{given})[{entry.name!r}]"
    lines = [f"from skte.bank import {read.partition('.')[0]}"]
    if entry.trusted and read == "load_bank":
        lines, found = (
            ["from dataclasses import replace", *lines],
            f"replace({found}, trusted=True)",
        )
    folders = [str(Path(one).absolute()) for one in args.factory_path]
    if folders:
        lines = ["import sys", *lines, *(f"sys.path.append({one!r})" for one in folders)]
    return "\n".join([*lines, found])
