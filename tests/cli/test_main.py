import os
import shlex
import subprocess
import sys

import pytest

import skte
from skte.cli import main
from skte.cli._main import _parsers, build_parser  # no door: every help

FIT = "skte.cli._rank._fit"  # to make a command fail


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"skte {skte.__version__}\n"


def test_help_documents_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "exit codes" in shown
    assert all(command in shown for command in ("rank", "inspect", "cache", "demo"))


@pytest.mark.parametrize(
    "arguments",
    [["rank"], ["rank", "--bank", "a", "--data", "b", "--estimator", "best"], ["guess"]],
)
def test_wrong_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("skte: error: ")
    assert second.endswith("--help lists what it takes, with an example")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["rnk"], "'rank'"),
        (["rank", "--bank", "a", "--data", "b", "--estimator", "ccfv,logm"], "'logme'"),
        (["rank", "--bank", "a", "--data", "b", "--estimators-x", "ccfv"], "'--estimator'"),
        (["bank", "list", "b", "--jsn"], "'--json'"),
        (["rank", "--bnk", "a", "--data", "b"], "'--bank'"),
        (["evaluate", "--ranking", "a", "--preformance=b"], "'--performance'"),
        (["inspect", "d", "--layout", "nnunt"], "'nnunet'"),
    ],
)
def test_what_may_be_meant_is_said(arguments, meant, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"did you mean {meant}" in capsys.readouterr().err


def test_alone_it_prints_its_help(capsys):
    assert main([]) == 0
    assert "exit codes" in capsys.readouterr().out


def test_every_help_has_an_example_that_parses():
    parser = build_parser()
    for inner in list(_parsers(parser)):
        command = inner.epilog.split("example:\n")[1].splitlines()[0]
        program, *arguments = shlex.split(command)
        assert program == "skte"
        assert command.split()[: len(inner.prog.split())] == inner.prog.split() or inner is parser
        assert parser.parse_args(arguments).run


def test_errors_are_one_message_without_traceback(capsys, data):
    assert main(["rank", "--bank", "nowhere.yaml", "--data", str(data)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("skte: error: ")
    assert "nowhere.yaml" in shown.err
    assert "Traceback" not in shown.err


def test_debug_shows_the_traceback(data):
    with pytest.raises(ValueError, match=r"nowhere\.yaml"):
        main(["rank", "--bank", "nowhere.yaml", "--data", str(data), "--debug"])


@pytest.mark.parametrize("error", [TypeError("no\nthanks"), SystemExit(0)])
def test_no_other_error_is_a_traceback_or_a_success(error, monkeypatch, capsys, data):
    def fail(args):
        raise error

    monkeypatch.setattr(FIT, fail)
    command = ["rank", "--bank", "b.json", "--data", str(data)]
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"skte: error: {type(error).__name__}: ")
    with pytest.raises(type(error)):
        main([*command, "--debug"])


def test_interrupted(monkeypatch, capsys, data):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(FIT, interrupted)
    assert main(["rank", "--bank", "b.json", "--data", str(data)]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["rank", "--help"]], ids=" ".join)
def test_a_reader_that_stops_ends_it_quietly(words, unbuffered):
    with subprocess.Popen(
        [sys.executable, "-m", "skte", *words],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()  # as head does, once it has its lines
        assert process.stderr.read() == b""
    assert process.returncode in (0, 141)
