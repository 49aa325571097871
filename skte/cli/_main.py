"""Parsing, messages and exit codes of the ``skte`` command."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

from skte import __version__
from skte._memory import memory_limit
from skte._text import CleanFormatter, clean_text, complain, say
from skte.cli import _bank, _cache, _evaluate, _fetch, _inspect, _rank
from skte.cli._options import for_shell, seed
from skte.demo import run_demo
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
_COMPLETION = """\
Print a script that completes commands, options and their values. To install it:

  bash   skte completion bash > ~/.local/share/bash-completion/completions/skte
  zsh    skte completion zsh > "${fpath[1]}/_skte"
  fish   skte completion fish > ~/.config/fish/completions/skte.fish
"""
_SHELLS = ("bash", "zsh", "fish", "tcsh")
#: Metavars of arguments that are files or folders.
_PATHS = ("PATH", "FILE", "FILE.json", "DIR", "DATA", "BANK", "SOURCE")


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
        help="memory that reading one file or a network's first pass may take, 8GB for instance "
        "(default: in proportion to the file, or half of what is free)",
    )
    common.add_argument(
        "--allow-root",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder that links and paths may lead to; may be repeated",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (_rank, _evaluate, _inspect, _fetch, _bank, _cache):
        command.add_parser(commands, common)
    _add_completion_parser(commands, common)
    _add_demo_parser(commands, common)
    for inner in _parsers(parser):
        inner.epilog = _EPILOG
        if inner.description and "\n" not in inner.description:
            inner.description = textwrap.fill(inner.description, _WIDTH)
        inner.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and all those of its commands."""
    yield parser
    for action in parser._actions:  # argparse has no public way to them
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _parsers(child)


def _add_completion_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "completion",
        parents=[common],
        help="print a script that completes commands in a shell",
        description=_COMPLETION,
    )
    parser.set_defaults(run=_complete)
    parser.add_argument("shell", choices=_SHELLS)


def _complete(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise SkteError("skte completion needs shtab: pip install 'skte[cli]'.") from error
    parser = build_parser()
    for action in (action for inner in _parsers(parser) for action in inner._actions):
        if action.metavar in _PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own attribute
    say(shtab.complete(parser, args.shell))
    return 0


def _add_demo_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "demo",
        parents=[common],
        help="make phantoms, train a small bank, rank it, check the ranking",
    )
    parser.set_defaults(run=_demo)
    parser.add_argument(
        "--out", default="skte-demo", metavar="DIR", help="folder for results (default: skte-demo)"
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of images, networks and voxels"
    )
    parser.add_argument(
        "--quick", action="store_true", help="hardly any training: shows the steps, proves nothing"
    )


def _demo(args: argparse.Namespace) -> int:
    run_demo(args.out, random_state=args.seed, quick=args.quick, verbose=not args.quiet)
    return 0


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
