"""``skte inspect``: what a bank's models and a dataset's cases look like to skte."""

from __future__ import annotations

import argparse
from typing import Any

from skte._table import format_wrapped_table
from skte._text import complain, say, say_json
from skte.cli._bank_options import add_trusted_option, open_bank, tell_problems
from skte.cli._data_options import add_data_options, load_data
from skte.cli._inspect_bank import describe_entry, show_entry
from skte.datasets import DatasetReport, inspect_dataset
from skte.exceptions import DatasetError, SkteError

__all__ = ["add_parser"]


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte inspect`` to the command line."""
    parser = commands.add_parser(
        "inspect", parents=[common], help="show a bank's layers, or a dataset's cases and problems"
    )
    parser.set_defaults(run=_run)
    parser.add_argument("path", nargs="?", metavar="DATA", help="folder or CSV of cases")
    parser.add_argument("--data", metavar="DATA", help="the same, beside --bank")
    add_data_options(parser)
    parser.add_argument("--bank", metavar="PATH", help="manifest of the models, or their folder")
    add_trusted_option(parser)
    parser.add_argument("--entry", metavar="NAME", help="this model only")
    parser.add_argument("--all", action="store_true", help="show every case and nested module")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _run(args: argparse.Namespace) -> int:
    if args.path and args.data:
        raise SkteError("skte inspect takes one dataset: give DATA or --data, not both.")
    path = args.path or args.data
    if not (args.bank or path):
        raise SkteError("skte inspect needs a dataset, --bank, or both.")
    if args.trusted and not args.bank:
        raise SkteError("--trusted names a model of a bank: give --bank as well.")
    if args.entry and not args.bank:
        raise SkteError("--entry names a model of a bank: give --bank as well.")
    found: dict[str, Any] = {}
    report = None
    subjects: list[Any] = []
    if path:
        try:
            subjects = load_data(path, args)
        except DatasetError as error:
            if not error.problems:
                raise
            return _not_loaded(path, error, as_json=args.json)
        report = inspect_dataset(subjects)
        found["data"] = report.to_dict()
        if not args.json:
            text = report.to_text(every=args.all)
            say(text)
            if text != report.to_text(every=True):
                say("\n--all shows every case")
    wrong = _inspect_bank(args, found, report, subjects) if args.bank else []
    if args.json:
        say_json(found)
    if report is not None and report.problems:
        wrong.insert(0, f"{path}: {len(report.problems)} problems; the table lists them")
    return tell_problems(wrong)


def _inspect_bank(
    args: argparse.Namespace,
    found: dict[str, Any],
    report: DatasetReport | None,
    subjects: list[Any],
) -> list[str]:
    """Describe the models; return what is wrong with them."""
    bank, problems = open_bank(args.bank, args)
    entries = [bank[args.entry]] if args.entry else list(bank)
    # A broken dataset says nothing about the models.
    usable = [] if report is None or report.problems else subjects
    found |= {"models": [], "not_understood": bank.not_understood}
    for entry in entries:
        described, wrong = describe_entry(entry, usable, show_all=args.all)
        problems += wrong
        found["models"].append(described)
        if not args.json:
            show_entry(described)
    return problems


def _not_loaded(path: str, error: DatasetError, *, as_json: bool) -> int:
    """Show the problems that keep a dataset from loading."""
    if as_json:
        problems = [problem._asdict() for problem in error.problems]
        say_json({"data": {"problems": problems}})
    else:
        rows = [(p.case_id or "(all)", p.what, p.remedy) for p in error.problems]
        say(format_wrapped_table(["case", "problem", "what to do"], rows))
    complain("error", f"{path} cannot be loaded: {len(error.problems)} problems")
    return 2
