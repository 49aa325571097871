import csv
import json
import sys
import warnings

import pytest
import rich

from skte import ModelBankSelector, estimators
from skte.cli import _rank, main


def run(bank, data, *more):
    return main(["rank", "--bank", str(bank), "--data", str(data), *map(str, more)])


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_exported_estimator_is_offered():
    exported = {name.lower() for name in estimators.__all__} - {"transferabilityestimator"}
    assert set(_rank.ESTIMATORS) == exported


def test_table_and_csv_agree_with_the_selector(write_bank, data, tmp_path, capsys):
    bank, out = write_bank("a", "b", "c"), tmp_path / "ranking.csv"
    assert run(bank, data, "--out", out) == 0
    expected = ModelBankSelector(estimators.CCFV()).fit(bank, data)
    rows = read_csv(out)
    assert [row["name"] for row in rows] == list(expected.ranking_)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    by_name = dict(zip(expected.names_, expected.scores_, strict=True))
    assert [float(row["score"]) for row in rows] == [by_name[row["name"]] for row in rows]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rank", "model", "ccfv"]
    assert [line.split()[1] for line in lines[1:]] == list(expected.ranking_)
    assert not list(tmp_path.glob(".ranking*"))


def test_several_estimators_share_one_table(write_bank, data, tmp_path, capsys):
    out = tmp_path / "ranking.csv"
    chosen = ["--estimator", "logme", "--estimator", "gbc", "--estimator", "logme"]
    assert run(write_bank("a", "b"), data, *chosen, "--out", out) == 0
    rows = read_csv(out)
    assert {"score_logme", "rank_logme", "score_gbc", "rank_gbc"} <= set(rows[0])
    assert all(row["score"] == row["score_logme"] for row in rows)
    assert capsys.readouterr().out.splitlines()[0].split() == ["rank", "model", "logme", "gbc"]


def test_json_on_stdout_is_what_the_file_holds(write_bank, data, tmp_path, capsys):
    out = tmp_path / "ranking.json"
    assert run(write_bank("a", "b"), data, "--json", "--out", out) == 0
    printed = json.loads(capsys.readouterr().out)
    written = json.loads(out.read_text())
    assert printed == written
    assert {row["name"] for row in printed} == {"a", "b"}
    assert all(isinstance(row["layers"], list) for row in printed)


def test_a_broken_model_costs_only_itself(write_bank, data, tmp_path, capsys):
    out = tmp_path / "ranking.csv"
    bank = write_bank("good", "bad", "fine", broken=["bad"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a failure is listed, not warned about
        assert run(bank, data, "--out", out) == 1
    rows = read_csv(out)
    assert [row["name"] for row in rows][-1] == "bad"
    assert rows[-1]["score"] == "nan"
    assert all(float(row["score"]) > float("-inf") for row in rows[:2])
    assert "skte: failed: bad: " in capsys.readouterr().err


def test_json_has_words_for_scores_that_are_no_numbers(write_bank, data, capsys):
    assert run(write_bank("good", "bad", broken=["bad"]), data, "--json") == 1
    assert json.loads(capsys.readouterr().out)[-1]["score"] == "nan"


def test_error_score_raise_ends_the_run(write_bank, data, capsys):
    bank = write_bank("good", "bad", broken=["bad"])
    assert run(bank, data, "--error-score", "raise") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "'bad'" in shown.err


def test_leep_without_source_head_is_listed(write_bank, data, capsys):
    bank = write_bank("a", "b", source_head=False)
    assert run(bank, data, "--estimator", "ccfv", "--estimator", "leep") == 1
    shown = capsys.readouterr()
    assert shown.err.count("source head") >= 2
    assert "nan" in shown.out


@pytest.mark.parametrize("out", ["missing/ranking.csv", "ranking.txt"])
def test_an_unwritable_out_is_refused_before_the_work(out, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(_rank, "_fit", lambda args: pytest.fail("worked before checking --out"))
    assert run("bank.json", data, "--out", tmp_path / out) == 2
    assert "--out" in capsys.readouterr().err


def test_layers_and_window_reach_the_extractor(write_bank, data, capsys):
    bank = write_bank("a")
    settings = ["--layers", "decoder.0", "--window", "8", "8", "8", "--batch-size", "2"]
    assert run(bank, data, *settings, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["layers"] == ["decoder.0"]
    assert row["n_windows"] > 3
    assert run(bank, data, "--window", "16", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["n_windows"] == 3


def test_seed_and_jobs(write_bank, data, capsys):
    bank = write_bank("a", "b")
    printed = []
    for settings in (["--seed", 0], ["--seed", 0, "--n-jobs", 2], ["--seed", 1]):
        assert run(bank, data, "--json", *settings) == 0
        rows = json.loads(capsys.readouterr().out)
        printed.append([(row["name"], row["score"]) for row in rows])
    assert printed[0] == printed[1]
    assert printed[0] != printed[2]


def test_verbose_tells_every_model_on_stderr(write_bank, data, capsys):
    assert run(write_bank("a", "b"), data, "--verbose") == 0
    shown = capsys.readouterr()
    assert "[1/2] a: ccfv" in shown.err
    assert "[2/2] b: ccfv" in shown.err
    assert "[1/2]" not in shown.out
    assert run(write_bank("a", "b"), data) == 0
    assert capsys.readouterr().err == ""


def test_warnings_are_one_line_and_quiet_hides_them(data, capsys, monkeypatch, write_bank):
    fit = _rank._fit

    def warn_and_fit(args):
        warnings.warn("something is odd", UserWarning, stacklevel=1)
        return fit(args)

    monkeypatch.setattr(_rank, "_fit", warn_and_fit)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(write_bank("a"), data) == 0
        assert capsys.readouterr().err == "skte: warning: something is odd\n"
        assert run(write_bank("a"), data, "--quiet") == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("terminal", "option", "shown"),
    [(True, [], True), (False, [], False), (True, ["--quiet"], False), (True, ["-v"], False)],
)
def test_progress_bar_only_on_a_terminal(
    terminal, option, shown, write_bank, data, monkeypatch, capsys
):
    made = []
    bar = _rank.ProgressBar

    def make_bar():
        made.append(bar())
        return made[-1]

    monkeypatch.setattr(_rank, "ProgressBar", make_bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(rich, "_console", None)  # the console that reconfigure sets
    assert run(write_bank("a", "b"), data, *option) == 0
    assert bool(made) == shown
    out = capsys.readouterr().out
    assert out.startswith("rank")
    assert len(out.splitlines()) == 3
