"""``skte completion``: a script that completes skte's commands in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from skte._text import say
from skte.cli._command_tree import Command, Option, walk

__all__ = ["add_parser"]

_DESCRIPTION = """\
Print a script that completes commands, options and their values. To have it always:

  bash   skte completion bash > ~/.local/share/bash-completion/completions/skte
  zsh    skte completion zsh > "${fpath[1]}/_skte"
  fish   skte completion fish > ~/.config/fish/completions/skte.fish
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add ``skte completion`` to the command line."""
    parser = commands.add_parser(
        "completion",
        parents=[common],
        help="print a script that completes commands in a shell",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("shell", choices=list(_SCRIPTS))


def _run(args: argparse.Namespace) -> int:
    from skte.cli._main import build_parser  # which has this module's parser in it

    say(_SCRIPTS[args.shell](list(walk(build_parser()))), end="")
    return 0


def _bash(commands: Sequence[Command]) -> str:
    return _fill(_BASH, commands)


def _zsh(commands: Sequence[Command]) -> str:
    return _fill(_ZSH, commands)


def _fill(template: str, commands: Sequence[Command]) -> str:
    """Put the tables into a script; what is quoted holds names alone, no help."""
    for name, lines in (
        ("PATHS", _path_cases(commands)),
        ("VALUES", _value_cases(commands)),
        ("WORDS", _word_cases(commands)),
    ):
        template = template.replace(f"@{name}@", "\n".join(f"        {line}" for line in lines))
    return template


def _path_cases(commands: Iterable[Command]) -> list[str]:
    inner = [command for command in commands if len(command.words) > 1]
    return [f'"{" ".join(command.words)}") at="{" ".join(command.words)}" ;;' for command in inner]


def _value_cases(commands: Iterable[Command]) -> list[str]:
    lines = []
    for command in commands:
        for option in command.options:
            if option.takes_value:
                names = "|".join(f'"{" ".join(command.words)} {flag}"' for flag in option.flags)
                kind, words = _kind(option), " ".join(option.choices)
                lines.append(f'{names}) kind={kind}; offered="{words}" ;;')
    return lines


def _kind(option: Option) -> str:
    return "path" if option.is_path else "words"


def _word_cases(commands: Iterable[Command]) -> list[str]:
    lines = []
    for command in commands:
        flags = " ".join(flag for option in command.options for flag in option.flags)
        words = " ".join([*command.children, *command.choices])
        kind = "path" if command.takes_path else "words"
        name = " ".join(command.words)
        lines.append(f'"{name}") flags="{flags}"; kind={kind}; offered="{words}" ;;')
    return lines


def _fish(commands: Sequence[Command]) -> str:
    lines = [_FISH.replace("@PATHS@", "\n".join(_fish_paths(commands)))]
    for command in commands:
        head = f"complete -c skte -n '__skte_at \"{' '.join(command.words)}\"'"
        for name, text in command.children.items():
            lines.append(f"{head} -a {name} -d {_quoted(text)}")
        if command.choices:
            lines.append(f"{head} -a {_quoted(' '.join(command.choices))}")
        if command.takes_path:
            lines.append(f"{head} -F")
        for option in command.options:
            names = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in option.flags
            )
            value = ""
            if option.takes_value:
                value = " -r -F" if option.is_path else " -x"
            if option.choices:
                value += f" -a {_quoted(' '.join(option.choices))}"
            lines.append(f"{head} {names}{value} -d {_quoted(option.text)}")
    return "\n".join(lines) + "\n"


def _fish_paths(commands: Iterable[Command]) -> list[str]:
    return [
        f'            case "{" ".join(command.words)}"\n                set path $path $word'
        for command in commands
        if len(command.words) > 1
    ]


def _quoted(text: str) -> str:
    """Quote for fish, where only backslash and quote mean something between quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_BASH = """\
# Completion of skte in bash, made by: skte completion bash
_skte() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"
    local at=skte flags="" kind="" offered="" i
    # bash takes --option=value apart at the sign.
    if [[ $cur == "=" ]]; then
        cur=""
    elif [[ $prev == "=" && $COMP_CWORD -gt 1 ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${COMP_WORDS[i]}" in
@PATHS@
        esac
    done
    case "$at $prev" in
@VALUES@
    esac
    if [[ -z $kind ]]; then
        case "$at" in
@WORDS@
        esac
    fi
    if [[ $cur == -* && -n $flags ]]; then
        kind=words offered=$flags
    fi
    # With no words of ours, -o default completes files and folders.
    if [[ $kind == words ]]; then
        compopt +o default 2> /dev/null
    fi
    COMPREPLY=($(compgen -W "$offered" -- "$cur"))
}
complete -o default -F _skte skte
"""

_ZSH = """\
#compdef skte
# Completion of skte in zsh, made by: skte completion zsh
_skte() {
    local cur="${words[CURRENT]}" prev="${words[CURRENT-1]}"
    local at=skte flags="" kind="" offered="" i
    for ((i = 2; i < CURRENT; i++)); do
        case "$at ${words[i]}" in
@PATHS@
        esac
    done
    case "$at $prev" in
@VALUES@
    esac
    if [[ -z $kind ]]; then
        case "$at" in
@WORDS@
        esac
    fi
    if [[ $cur == -* && -n $flags ]]; then
        kind=words offered=$flags
    fi
    [[ -n $offered ]] && compadd -- ${=offered}
    [[ $kind == path ]] && _files
    return 0
}
if [[ $funcstack[1] == _skte ]]; then
    _skte "$@"
else
    compdef _skte skte
fi
"""

_FISH = """\
# Completion of skte in fish, made by: skte completion fish
function __skte_at
    set -l path skte
    for word in (commandline -opc)[2..-1]
        switch "$path $word"
@PATHS@
        end
    end
    test "$path" = "$argv[1]"
end
complete -c skte -f"""

_SCRIPTS: dict[str, Callable[[Sequence[Command]], str]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
