"""``skte completion``: scripts that are run in their shells, with the Tab key."""

import contextlib
import io
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

from skte.cli import main

SHELLS = ("bash", "zsh", "fish", "tcsh")


def commands(words=("skte",)):
    """Every command with its help, as the help of the one above lists them."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        main([*words[1:], "--help"])
    yield words, shown.getvalue()
    listed = re.search(
        r"^  (COMMAND|ACTION)\n(.*?)\n\n", shown.getvalue(), re.DOTALL | re.MULTILINE
    )
    for name in re.findall(r"^    (\w+)", listed[2] if listed else "", re.MULTILINE):
        yield from commands((*words, name))


@pytest.fixture(scope="module")
def every_command():
    found = dict(commands())
    assert len(found) > 10
    return found


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
        ("skte rank --json --samples f", ["rank", "--json", "--samples", "foreground"]),
        ("skte inspect --bank my", ["inspect", "--bank", "my bank.yaml"]),
        ("skte bank list my", ["bank", "list", "my bank.yaml"]),
        ("skte completion f", ["completion", "fish"]),
        ("skte nothing-like-it", ["nothing-like-it"]),
    ):
        assert bash(typed) == words, typed


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_hold_every_command_and_option(shell, every_command, capsys, tmp_path):
    text = script(shell, capsys, tmp_path).read_text()
    words = set(re.findall(r"[a-z][\w-]*", text))
    for command, shown in every_command.items():
        assert set(command) <= words
        flags = set(re.findall(r"--([a-z][\w-]*)", shown.partition("exit codes")[0]))
        assert "help" in flags
        assert flags <= words


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_are_valid_where_their_shell_is_installed(shell, capsys, tmp_path):
    path = script(shell, capsys, tmp_path)
    subprocess.run([require(shell), "-n", str(path)], check=True)


def test_without_shtab_the_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'skte[cli]'" in capsys.readouterr().err


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["completion", "elvish"])
    assert stop.value.code == 2
    assert "'elvish' is unknown; did you mean 'fish'?" in capsys.readouterr().err


def test_every_help_documents_exit_codes(every_command):
    assert [words for words, shown in every_command.items() if "exit codes:" not in shown] == []
