"""Parsing, messages and exit codes of the ``skte`` command."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from skte import __version__
from skte._memory import memory_limit
from skte._text import CleanFormatter, clean_text, complain, did_you_mean, say, say_json
from skte.cli import _bank, _evaluate, _inspect, _rank
from skte.cli._options import add_command, age, factory_folders, for_shell, seed, size
from skte.exceptions import SkteError

if TYPE_CHECKING:
    from skte.extraction import FeatureCache


_WIDTH = 80  # of descriptions; argparse leaves them alone for the sake of the table below
_EPILOG = """\
exit codes:
  0    done, nothing to report
  1    done, but something needs attention: a model failed or was not
       understood, or a problem was found
  2    not done: wrong usage or unusable input
  130  interrupted
  141  stopped, because what read the output was closed
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
        interrupted, 141 where the output was closed, as by ``| head``. Argparse exits by
        itself, with 2 for wrong usage and 0 after ``--help``.
    """
    try:
        try:
            return _main(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()  # here, because at the exit of Python it cannot be caught
    except BrokenPipeError:
        with suppress(OSError):  # what is left has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _main(argv: Sequence[str]) -> int:
    """Parse, run, and turn what goes wrong into a message and an exit code."""
    parser = build_parser()
    if not argv:
        parser.print_help()
        return 0
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        args.parser.error(f"unknown option or argument {unknown[0]!r}")
    args.argv = argv
    with _messages(args):
        try:
            with memory_limit(args.max_memory), factory_folders(args):
                code: int = args.run(args)
        except KeyboardInterrupt as stopped:
            complain("", f"interrupted: {stopped}" if stopped.args else "interrupted")
            return 130
        except BrokenPipeError:
            raise
        except (Exception, SystemExit) as error:  # a model's code may call sys.exit()
            if args.debug:
                raise
            complain("error", _spoken(error))
            return 2
    return code


class _Parser(argparse.ArgumentParser):
    """A parser that says in a line what is wrong, and what may be meant."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Remember what was given, for the message where it does not parse."""
        self._given = args or ()
        return super().parse_known_args(args, namespace)

    def _near(self, word: str) -> str:
        """Return what an option that is not known may mean; nothing for other words."""
        word = word.partition("=")[0]
        known = [name for action in self._actions for name in action.option_strings]
        is_known = any(name.startswith(word) for name in known)  # argparse completes them
        is_option = word[:1] == "-" and len(word) > 2
        return did_you_mean(word, known, listed=False) if is_option and not is_known else ""

    def error(self, message: str) -> NoReturn:
        text = clean_text(message)
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)$", text)
        if wrong:
            near = did_you_mean(wrong[1].rpartition(",")[2], re.findall(r"[\w-]+", wrong[2]))
            text = text[: wrong.start()] + f"{wrong[1]!r} is unknown; {near}"
        elif text.startswith("unknown option"):
            near = self._near(text.split("'")[1])
            text += f": {near}" if near else ""
        elif text.startswith("the following arguments are required"):  # one may be misspelt
            near = next(filter(None, map(self._near, self._given)), "")
            text += f"; {near}" if near else ""
        complain("error", f"{text}\n{self.prog} --help lists what it takes, with an example")
        self.exit(2)


def build_parser() -> argparse.ArgumentParser:
    """Build the whole command line; the documentation reads it, too."""
    parser = _Parser(
        prog="skte",
        description="Rank pre-trained segmentation networks for a new dataset.",
        epilog="example:\n  skte rank --bank bank.yaml --data Task04_Hippocampus\n\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"skte {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    talk = common.add_mutually_exclusive_group()
    talk.add_argument("--quiet", "-q", action="store_true", help="no progress, no warnings")
    talk.add_argument(
        "--verbose", "-v", action="store_true", help="a line for every model, and what each one saw"
    )
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
        help="another folder that links and paths may lead to; may be repeated",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add_parser in (
        _rank.add_parser, _evaluate.add_next_parser, _evaluate.add_evaluate_parser,
        _inspect.add_parser, _bank.add_parser, _add_cache_parser,
        _add_completion_parser, _add_demo_parser,
    ):  # fmt: skip
        add_parser(commands, common)
    for inner in _parsers(parser):
        inner.epilog = f"{inner.epilog or ''}{_EPILOG}"
        inner.set_defaults(parser=inner)
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
    text = "print a script that completes commands in a shell"
    parser = add_command(
        commands, common, _complete, "completion", text, "completion bash", _COMPLETION
    )
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
        if action.dest == "estimator":  # which takes others, too
            action.choices = _rank.estimator_names()
    say(shtab.complete(parser, args.shell))
    return 0


def _add_demo_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "make phantoms, train a small bank, rank it, check the ranking"
    parser = add_command(commands, common, _demo, "demo", text, "demo --quick")
    add = parser.add_argument
    add("--out", default="skte-demo", metavar="DIR", help="folder for results (default: skte-demo)")
    add("--seed", type=seed, default=0, metavar="N", help="seed of images, networks and voxels")
    add("--quick", action="store_true", help="hardly any training: shows the steps, proves nothing")


def _demo(args: argparse.Namespace) -> int:
    from skte.demo import run_demo

    run_demo(args.out, random_state=args.seed, quick=args.quick, verbose=not args.quiet)
    return 0


def _add_cache_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    epilog = "example:\n  skte cache info cache\n\n"
    parser = commands.add_parser(
        "cache", help="manage a folder of extracted features", epilog=epilog
    )
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, run, text in (
        ("info", _cache_info, "count files and bytes"),
        ("verify", _cache_verify, "read every file and name the damaged ones"),
        ("prune", _cache_prune, "remove what was not used for longest"),
        ("clear", _cache_clear, "remove all features, and nothing else"),
    ):
        example = f"cache {name} cache{' --max-size 2GB' if name == 'prune' else ''}"
        action = add_command(actions, common, run, name, text, example)
        action.add_argument("folder", metavar="DIR", help="the cache's folder")
        action.add_argument("--json", action="store_true", help="print JSON instead of text")
        if name == "prune":
            action.add_argument("--max-size", type=size, help="bytes it may keep: 2GB, 500MiB ...")
            action.add_argument("--max-age", type=age, help="time since the last use: 30d, 12h ...")


def _cache_info(args: argparse.Namespace) -> int:
    found = _open_cache(args.folder).describe()
    if args.json:
        say_json(found, indent=2)
    else:
        for name, value in found.items():
            say(f"{name.removeprefix('n_'):<10} {value}")
    return 0


def _cache_verify(args: argparse.Namespace) -> int:
    cache = _open_cache(args.folder)
    damaged = [str(path) for path in cache.verify()]
    found = cache.describe()
    n_files = found["n_entries"] + found["n_records"]
    if args.json:
        say_json({"n_files": n_files, "damaged": damaged}, indent=2)
    else:
        say(f"{n_files} files, {len(damaged)} of them damaged")
    for path in damaged:
        complain("problem", f"{path} is damaged; the next run replaces it")
    return 1 if damaged else 0


def _cache_prune(args: argparse.Namespace) -> int:
    if args.max_size is None and args.max_age is None:
        raise SkteError("skte cache prune needs --max-size, --max-age, or both.")
    return _remove(args, lambda cache: cache.prune(args.max_size, args.max_age))


def _cache_clear(args: argparse.Namespace) -> int:
    return _remove(args, lambda cache: cache.clear())


def _remove(args: argparse.Namespace, remove: Callable[[FeatureCache], Any]) -> int:
    cache = _open_cache(args.folder)
    removed = remove(cache)
    left = cache.describe()["n_bytes"]
    if args.json:
        say_json({**removed._asdict(), "n_bytes_left": left}, indent=2)
    else:
        say(f"removed {removed.n_files} files, {removed.n_bytes} bytes; {left} bytes are left")
    if removed.n_failed:
        what = f"{removed.n_failed} files in {cache.root} could not be removed"
        complain("problem", f"{what}: check the permissions of its folders")
    return 1 if removed.n_failed else 0


def _open_cache(folder: str) -> FeatureCache:
    from skte.extraction import FeatureCache

    if not Path(folder).exists():  # a run would create it; here it is a typing error
        raise SkteError(f"The cache folder {folder} does not exist.")
    return FeatureCache(folder)


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
