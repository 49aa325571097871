"""The command line as data: what each command takes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Command", "Option", "parsers", "walk"]

#: Metavars of what is a file or a folder.
_PATHS = ("PATH", "FILE", "FILE.json", "DIR", "DATA", "BANK", "SOURCE")


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes
    ----------
    flags : tuple of str
        As they are typed: ``("--quiet", "-q")``.
    text : str
        Its help.
    takes_value : bool
        Whether a word must follow.
    choices : tuple of str
        The words that may follow; empty if there is no list of them.
    is_path : bool
        Whether the word is a file or folder.
    """

    flags: tuple[str, ...]
    text: str
    takes_value: bool
    choices: tuple[str, ...]
    is_path: bool


@dataclass(frozen=True)
class Command:
    """A command: the words that name it, and what may follow.

    Attributes
    ----------
    words : tuple of str
        ``("skte", "bank", "add")``.
    text : str
        Its help.
    options : tuple of Option
        In the order of the help.
    children : dict of str to str
        Help of commands within it, by name.
    choices : tuple of str
        Words that its arguments may be.
    takes_path : bool
        Whether one of its arguments is a file or folder.
    """

    words: tuple[str, ...]
    text: str
    options: tuple[Option, ...]
    children: dict[str, str]
    choices: tuple[str, ...]
    takes_path: bool


def walk(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = (), text: str = ""
) -> Iterator[Command]:
    """Yield a parser's command and, after it, all those within.

    Parameters
    ----------
    parser : ArgumentParser
        The whole command line.
    words, text
        Of the command that `parser` parses; by default its ``prog`` and description.

    Yields
    ------
    Command
        Outer before inner.
    """
    words = words or (parser.prog,)
    options, choices, takes_path = [], [], False
    inner: dict[str, argparse.ArgumentParser] = {}
    helps: dict[str, str] = {}
    for action in parser._actions:  # argparse has no public way to its arguments
        if isinstance(action, argparse._SubParsersAction):
            inner = dict(action.choices)
            helps = {a.dest: a.help or "" for a in action._choices_actions}
        elif action.option_strings:
            options.append(_option(action))
        else:
            choices += [str(choice) for choice in action.choices or ()]
            takes_path = takes_path or action.metavar in _PATHS
    yield Command(words, text, tuple(options), helps, tuple(choices), takes_path)
    for name, child in inner.items():
        yield from walk(child, (*words, name), helps.get(name, ""))


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and all those within.

    Parameters
    ----------
    parser : ArgumentParser
        The whole command line.

    Yields
    ------
    ArgumentParser
        Outer before inner.
    """
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def _option(action: argparse.Action) -> Option:
    return Option(
        tuple(action.option_strings),
        (action.help or "").replace("%%", "%"),
        action.nargs != 0,
        tuple(str(choice) for choice in action.choices or ()),
        action.metavar in _PATHS,
    )
