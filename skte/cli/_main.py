"""Parsing, messages and exit codes of the ``skte`` command."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TextIO

from skte import __version__
from skte._memory import memory_limit
from skte._text import CleanFormatter, clean_text, complain
from skte.cli import _bank, _cache, _completion, _demo, _evaluate, _fetch, _inspect, _rank
from skte.cli._bank_options import for_shell
from skte.cli._command_tree import parsers
from skte.exceptions import SkteError

__all__ = ["main"]

_WIDTH = 80  # of descriptions; argparse leaves them alone for the sake of the table below
_EPILOG = """\
exit codes:
  0    done, nothing to report
  1    done, but something needs attention: a model failed or was not
       understood, or a problem was found
  2    not done: wrong usage or unusable input
  130  interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``skte`` command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        The exit code: 0 done, 1 done but something needs attention, 2 not done, 130
        interrupted.

    Raises
    ------
    SystemExit
        By argparse, with code 2 for wrong usage and 0 after ``--help``.
    """
    args = build_parser().parse_args(argv)
    with _messages(args):
        try:
            with memory_limit(args.max_memory):
                code: int = args.run(args)
        except KeyboardInterrupt:
            complain("", "interrupted")
            return 130
        except (Exception, SystemExit) as error:  # a model's code may call sys.exit()
            if args.debug:
                raise
            complain("error", _spoken(error))
            return 2
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that quotes wrong arguments as clean text."""

    def error(self, message: str) -> NoReturn:
        super().error(clean_text(message))


def build_parser() -> argparse.ArgumentParser:
    """Build the whole command line; the documentation reads it, too."""
    parser = _Parser(
        prog="skte",
        description="Rank pre-trained segmentation networks for a new dataset.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skte {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    talk = common.add_mutually_exclusive_group()
    talk.add_argument("--quiet", "-q", action="store_true", help="no progress, no warnings")
    talk.add_argument("--verbose", "-v", action="store_true", help="a line for every model")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument(
        "--max-memory",
        metavar="SIZE",
        help="memory that reading one file may take, 8GB for instance (default: in proportion "
        "to its size)",
    )
    common.add_argument(
        "--allow-root",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder that links and paths may lead to; may be repeated",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (_rank, _evaluate, _inspect, _fetch, _bank, _cache, _completion, _demo):
        command.add_parser(commands, common)
    for inner in parsers(parser):
        inner.epilog = _EPILOG
        if inner.description and "\n" not in inner.description:
            inner.description = textwrap.fill(inner.description, _WIDTH)
        inner.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _spoken(error: BaseException) -> str:
    """Our own messages whole; any other error on one line, with its kind."""
    if isinstance(error, SkteError):
        return for_shell(str(error))
    if isinstance(error, OSError):
        return for_shell(clean_text(error))
    return f"{type(error).__name__}: {clean_text(error)} (--debug shows where)"


@contextmanager
def _messages(args: argparse.Namespace) -> Iterator[None]:
    """Warnings and log lines go to stderr, one clean line each."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        complain("warning", clean_text(message))

    log = logging.getLogger("skte")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CleanFormatter())
    level = log.level
    with warnings.catch_warnings():
        warnings.showwarning = show
        if args.quiet:
            warnings.simplefilter("ignore")
        if args.verbose:
            log.addHandler(handler)
            log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
