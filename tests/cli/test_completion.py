"""``skte completion``: scripts that are run in their shells, with the Tab key."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from skte.cli import main
from skte.cli._command_tree import walk
from skte.cli._main import build_parser
from skte.cli._rank import ESTIMATORS

COMMANDS = {command.words: command for command in walk(build_parser())}


def script(shell, capsys, folder):
    assert main(["completion", shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(capsys.readouterr().out)
    return path


def require(shell):
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.fixture
def bash(capsys, tmp_path):
    """Type a line into an interactive bash; returns the words that skte was given."""
    path = script("bash", capsys, tmp_path)
    # Words come back in brackets, between marks that no typed line holds.
    setup = tmp_path / "setup.bash"
    setup.write_text(
        f"PS1='ready> '\nsource '{path}'\n"
        "bind 'set enable-bracketed-paste off'\nbind 'set bell-style none'\n"
        "skte() { printf 'GOT'; printf '[%s]' \"$@\"; printf 'END\\n'; }\n"
    )
    place = tmp_path / "place"
    place.mkdir()
    (place / "my bank.yaml").touch()
    command = [require("bash"), "--noprofile", "--rcfile", str(setup), "-i"]
    # HOME: without the completions and the history of whoever runs the tests.
    environment = {**os.environ, "TERM": "dumb", "HOME": str(tmp_path), "HISTFILE": ""}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=place, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)

    def read_until(pattern):
        text, end = "", time.monotonic() + 6000
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                text += os.read(ours, 65536).decode(errors="replace")
                if found := re.search(pattern, text):
                    return found
        raise AssertionError(f"bash did not answer {pattern!r}: {text!r}")

    def complete(line):
        os.write(ours, f"{line}\t\n".encode())
        found = read_until(r"GOT(.*)END\r?\n[^\n]*ready> $")
        return re.findall(r"\[(.*?)\]", found[1])

    try:
        read_until("ready> $")
        yield complete
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_bash_completes_what_is_typed(bash):
    for typed, words in (
        ("skte ra", ["rank"]),
        ("skte bank ch", ["bank", "check"]),
        ("skte bank add --trusted", ["bank", "add", "--trusted"]),
        ("skte rank --estimator ccf", ["rank", "--estimator", "ccfv"]),
        ("skte rank --estimator=ccf", ["rank", "--estimator=ccfv"]),
        ("skte rank --json --error-score r", ["rank", "--json", "--error-score", "raise"]),
        ("skte inspect --bank my", ["inspect", "--bank", "my bank.yaml"]),
        ("skte bank list my", ["bank", "list", "my bank.yaml"]),
        ("skte completion f", ["completion", "fish"]),
        # Neither a file nor a command stands where a number is wanted.
        ("skte rank --seed my", ["rank", "--seed", "my"]),
        ("skte rank --seed ra", ["rank", "--seed", "ra"]),
        ("skte nothing-like-it", ["nothing-like-it"]),
    ):
        assert bash(typed) == words, typed


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_bash_offers_every_option_and_command(words, capsys, tmp_path):
    path = script("bash", capsys, tmp_path)
    command = COMMANDS[words]
    expected = {flag for option in command.options for flag in option.flags}
    assert {"-h", "--help"} <= expected
    typed = " ".join(words)
    for last, offered in (("-", expected), ("''", {*command.children, *command.choices})):
        run = subprocess.run(
            [require("bash"), "--norc", "-c",
             f"source {path}; COMP_WORDS=({typed} {last}); COMP_CWORD={len(words)}; _skte; "
             "printf '%s\\n' \"${COMPREPLY[@]}\""],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert set(run.stdout.split()) == offered


def test_fish_completes_what_is_typed(capsys, tmp_path):
    fish = require("fish")
    path = script("fish", capsys, tmp_path)
    (tmp_path / "somewhere").mkdir()
    for typed, offered in (
        ("skte bank ", {"init", "add", "list", "check"}),
        ("skte rank --estimator cc", {"ccfv"}),
        ("skte bank add --tr", {"--trusted", "--trust-package"}),
        ("skte rank --bank some", {"somewhere/"}),
        ("skte rank --seed some", set()),
    ):
        run = subprocess.run(
            [fish, "--no-config", "-c", f"source {path}; complete -C '{typed}'"],
            capture_output=True, text=True, check=True, cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
        )  # fmt: skip
        assert {line.split("\t")[0] for line in run.stdout.splitlines()} == offered, typed


def test_zsh_offers_what_fits(capsys, tmp_path):
    zsh = require("zsh")
    path = script("zsh", capsys, tmp_path)
    # The two functions of zsh's completion that the script calls say what they got.
    stubs = (
        "compdef() { }; _files() { print FILES }; "
        "compadd() { [[ $1 == -- ]] && shift; print -l -- $@ }"
    )
    for typed, offered in (
        ("skte bank ''", {"init", "add", "list", "check"}),
        ("skte rank --estimator ''", set(ESTIMATORS)),
        ("skte rank --bank ''", {"FILES"}),
        ("skte rank --seed ''", set()),
        ("skte completion ''", {"bash", "zsh", "fish"}),
    ):
        words = typed.split()
        run = subprocess.run(
            [zsh, "-f", "-c",
             f"{stubs}; source {path}; words=({typed}); CURRENT={len(words)}; _skte"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert set(run.stdout.split()) == offered, typed


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["completion", "tcsh"])
    assert stop.value.code == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_documents_exit_codes(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words[1:], "--help"])
    assert stop.value.code == 0
    assert "exit codes:" in capsys.readouterr().out
