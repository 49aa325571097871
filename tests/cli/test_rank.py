import csv
import html
import json
import os
import re
import shlex
import subprocess
import sys
import warnings

import pytest

from skte import ModelBankSelector, SegmentationFeatureExtractor, estimators
from skte.cli import main
from skte.cli._rank import Progress  # no door: a terminal
from skte.datasets import make_phantoms
from skte.demo import write_msd
from skte.selection import Engine, HalvingModelBankSelector

FIT = "skte.cli._rank._fit"  # what must not run


def run(bank, data, *more, reference=False, estimator="ccfv"):
    """Rank by one quick estimator, unless others are named or `estimator` is None."""
    options = [] if reference else ["--no-reference"]
    if estimator is not None and "--estimator" not in more:
        options += ["--estimator", estimator]
    return main(["rank", "--bank", str(bank), "--data", str(data), *options, *map(str, more)])


def table_of(out, number=0):
    """Lines of one of the tables between the sentences."""
    tables = [part for part in out.split("\n\n") if part.startswith("rank ")]
    return tables[number].splitlines()


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_exported_estimator_is_offered(capsys):
    exported = {name.lower() for name in estimators.__all__} - {"transferabilityestimator"}
    with pytest.raises(SystemExit):
        main(["rank", "--bank", "a", "--data", "b", "--estimator", "?"])
    offered = capsys.readouterr().err.split("known: ", 1)[1].splitlines()[0]
    assert set(re.findall(r"\w+", offered)) == exported


@pytest.mark.slow
def test_table_and_csv_agree_with_the_selector(write_bank, data, tmp_path, capsys):
    bank, out = write_bank("a", "b", "c"), tmp_path / "ranking.csv"
    assert run(bank, data, "--out", out, estimator=None) == 0
    expected = ModelBankSelector(reference=False).fit(bank, data)
    rows = read_csv(out)
    assert [row["name"] for row in rows] == list(expected.ranking_)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    by_name = dict(zip(expected.names_, expected.scores_, strict=True))
    assert [float(row["score"]) for row in rows] == [by_name[row["name"]] for row in rows]
    out = capsys.readouterr().out
    lines = table_of(out)
    columns = ["rank", "model", *estimators.recommended_estimators(), "(parameters)"]
    assert re.split(r"\s{2,}", lines[0]) == [*columns, "(finest width)", "(zero-shot Dice)"]
    assert out.startswith(f"Fine-tune {expected.best_name_} first. If you can afford three: ")
    assert f"skte next --bank {bank} --model {expected.best_name_} " in out
    assert [line.split()[1] for line in lines[1:]] == list(expected.ranking_)
    assert not list(tmp_path.glob(".ranking*"))


@pytest.mark.slow
def test_foreground_alone(write_bank, tmp_path, capsys):
    out = tmp_path / "ranking.csv"
    cases = make_phantoms(3, size=(16, 16, 16), n_classes=3)
    data, bank = write_msd(tmp_path / "data", cases, "three"), write_bank("a", "b")
    assert run(bank, data, "--samples", "foreground", "--estimator", "ccfv") == 2
    assert "samples='foreground', but CCFV looks at whole cases" in capsys.readouterr().err
    chosen = ["--samples", "foreground", "--estimator", "logme"]
    assert run(bank, data, *chosen, "--out", out) == 0
    expected = ModelBankSelector(
        estimators.LogME(),
        extractor=SegmentationFeatureExtractor(samples="foreground"),
        reference=False,
    ).fit(bank, data)
    assert [row["name"] for row in read_csv(out)] == list(expected.ranking_)


def test_several_estimators_share_one_table(write_bank, data, tmp_path, capsys):
    out = tmp_path / "ranking.csv"
    chosen = ["--estimator", "logme,gbc", "--estimator", "knn"]
    assert run(write_bank("a", "b"), data, *chosen, "--out", out) == 0
    rows = read_csv(out)
    assert {"score_logme", "rank_logme", "score_gbc", "rank_gbc"} <= set(rows[0])
    assert all(row["score"] == row["score_logme"] for row in rows)
    header = table_of(capsys.readouterr().out)[0]
    assert header.split()[:4] == ["rank", "model", "logme", "gbc"]


@pytest.mark.slow
def test_confidence_is_told_beside_the_scores(write_bank, data, tmp_path, capsys):
    bank, out = write_bank("a", "b", "c"), tmp_path / "ranking.csv"
    chosen = ["--estimator", "gbc", "--estimator", "ccfv", "--confidence", "0.8"]
    assert run(bank, data, *chosen, "--out", out) == 0
    expected = ModelBankSelector(estimators.GBC(), confidence_level=0.8, reference=False).fit(
        bank, data
    )
    shown = capsys.readouterr().out
    table = table_of(shown, 1)
    header = ["rank", "model", "80 % interval of gbc", "ranks", "first in", "behind the first"]
    assert re.split(r"\s{2,}", table[0]) == header
    assert f"By gbc, {expected.confidence_.verdict()}" in shown
    for line, (rank, name, _, *cells) in zip(table[1:], expected.confidence_.rows(), strict=True):
        found = re.split(r"\s{2,}", line.strip())
        assert found == [str(rank), name, *(cell for cell in cells if cell)]
    columns = set(read_csv(out)[0])
    assert {"interval_low", "first_share", "group", "interval_low_ccfv"} <= columns


@pytest.mark.slow
def test_what_untrained_networks_score_stands_around_the_table(write_bank, data, capsys):
    bank = write_bank("a", "b", "c")  # never trained, though the manifest names files
    selector = ModelBankSelector({"ccfv": estimators.CCFV()}).fit(bank, data)
    expected = selector.answer_
    assert expected.choice[0].startswith("No answer: ccfv cannot tell training from chance")
    chosen = ["--estimator", "ccfv"]
    assert run(bank, data, *chosen, reference=True) == 0
    out = capsys.readouterr().out
    above, below = out[: out.index("\n\nrank ")].splitlines(), out.splitlines()
    assert tuple(line for line in above if line) == expected.above
    assert tuple(below[-len(expected.below) :]) == expected.below
    assert expected.next_step == ""  # there is no answer
    assert table_of(out)[0].split()[:3] == ["rank", "model", "ccfv"]
    assert run(bank, data, *chosen, "--json", reference=True) == 0
    shown = capsys.readouterr()
    *models, twin = json.loads(shown.out)
    assert [row["reference"] for row in models] == [False] * 3
    (one,) = selector.reference_
    assert twin["name"] == one.name
    assert twin["score"] == twin["score_ccfv"] == one.score
    assert (twin["rank"], twin["untrained"], twin["reference"]) == (None, True, True)
    assert shown.err == "".join(f"skte: answer: {line}\n" for line in expected.above)


def test_entries_without_weights_are_marked(data, tmp_path, capsys):
    bank = tmp_path / "bank.json"
    entry = {"name": "fresh", "factory": "skte.demo:small_unet", "arguments": {"widths": [4, 8]}}
    entry["window_size"] = 16
    bank.write_text(json.dumps({"models": [{**entry, "weights": "none"}]}))
    assert run(bank, data) == 0
    assert "fresh (untrained)" in capsys.readouterr().out
    for command in ("list", "check"):
        assert main(["bank", command, str(bank)]) == 0
        assert "untrained" in capsys.readouterr().out
    bank.write_text(json.dumps({"models": [entry]}))
    assert run(bank, data) == 2
    assert "write 'weights: none'" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["0", "1", "90", "nan", "half"])
def test_a_level_of_confidence_lies_between_0_and_1(level, write_bank, data, capsys):
    with pytest.raises(SystemExit) as error:
        run(write_bank("a"), data, "--confidence", level)
    assert error.value.code == 2
    assert "--confidence: must be a number between 0 and 1" in capsys.readouterr().err


def test_confidence_needs_three_cases(write_bank, tmp_path, capsys):
    data = write_msd(tmp_path / "data", make_phantoms(2, size=(16, 16, 16)), "two")
    assert run(write_bank("a", "b"), data, "--confidence", "0.9") == 2
    assert "three" in capsys.readouterr().err


@pytest.mark.slow
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
    assert (rows[-1]["score"], rows[-1]["rank"]) == ("nan", "")
    assert all(float(row["score"]) > float("-inf") for row in rows[:2])
    assert "skte: failed: bad: " in capsys.readouterr().err


def test_json_has_words_for_scores_that_are_no_numbers(write_bank, data, capsys):
    assert run(write_bank("good", "bad", broken=["bad"]), data, "--json") == 1
    row = json.loads(capsys.readouterr().out)[-1]
    assert (row["score"], row["rank"]) == ("nan", None)


def test_leep_without_source_head_is_listed(write_bank, data, capsys):
    bank = write_bank("a", "b", source_head=False)
    assert run(bank, data, "--estimator", "ccfv", "--estimator", "leep") == 1
    shown = capsys.readouterr()
    failed = [line for line in shown.err.splitlines() if ": failed: " in line]
    assert [line.startswith("skte: failed: a, b: ") for line in failed] == [True]
    assert "source head" in failed[0]
    assert table_of(shown.out)[1].split()[-3] == "-"


@pytest.mark.parametrize(
    "out", ["missing/ranking.csv", "ranking.txt", "folder.csv", f"{'a' * 250}.csv", "/proc/a.csv"]
)
def test_an_unwritable_out_is_refused_before_the_work(out, data, tmp_path, monkeypatch, capsys):
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr(FIT, lambda args: pytest.fail("worked before checking --out"))
    assert run("bank.json", data, "--out", tmp_path / out) == 2
    assert "--out" in capsys.readouterr().err


def test_the_table_is_printed_though_the_file_cannot_be_written(
    write_bank, data, tmp_path, monkeypatch, capsys
):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("skte.report.write_results", full)
    assert run(write_bank("a"), data, "--out", tmp_path / "ranking.csv") == 2
    shown = capsys.readouterr()
    assert table_of(shown.out)
    assert shown.err == "skte: error: No space left on device\n"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seed", "-1"),
        ("--seed", str(2**32)),
        ("--n-jobs", "0"),
        ("--n-jobs", "two"),
        ("--batch-size", "0"),
        ("--window", "0"),
    ],
)
def test_numbers_are_checked_as_they_are_parsed(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        run("bank.json", "data", option, value)
    assert stop.value.code == 2
    assert f"argument {option}: must " in capsys.readouterr().err


def test_a_device_that_is_none_is_told_once(write_bank, data, capsys):
    assert run(write_bank("a", "b"), data, "--device", "foo") == 2
    assert capsys.readouterr().err.count("device='foo' cannot be used here") == 1


NOISY = """
import os, signal
from skte.demo import small_unet
def noisy(**arguments):
    print("loading")
    os.system("echo from a child process")
    return small_unet(**arguments)
def deadly(**arguments):
    network = small_unet(**arguments)
    network.register_forward_pre_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    return network
"""


@pytest.fixture
def noisy_factories(tmp_path, monkeypatch):
    (tmp_path / "noisy_factories.py").write_text(NOISY)
    monkeypatch.syspath_prepend(tmp_path)
    return ["--trust-package", "noisy_factories"]


def run_in_process(tmp_path, bank, data, *more):
    command = [sys.executable, "-m", "skte", "rank", "--bank", bank, "--data", data, *more]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), os.getcwd()])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_what_a_model_prints_goes_to_stderr(write_bank, data, tmp_path, noisy_factories, capfd):
    """From processes of its own, and from this one; the scores are the same."""
    bank = write_bank("a", "b", factory="noisy_factories:noisy")
    options = ["--json", "--no-reference", "--estimator", "ccfv", *noisy_factories]
    apart = run_in_process(tmp_path, bank, data, "--n-jobs", "2", *options)
    assert apart.returncode == 0
    assert run(bank, data, *options) == 0
    here = capfd.readouterr()
    scores = []
    for out, err in ((apart.stdout, apart.stderr), (here.out, here.err)):
        scores.append({row["name"]: row["score"] for row in json.loads(out)})
        assert err.count("loading") == err.count("from a child process") == 2
    # Not to the last bit: a worker has fewer threads, which sum in another order.
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)
    assert len(scores[0]) == 2


@pytest.mark.slow
def test_a_worker_that_dies_is_one_clean_line(write_bank, data, noisy_factories, capfd):
    bank = write_bank("a", factory="noisy_factories:deadly")
    assert run(bank, data, "--timeout", "1h", *noisy_factories) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "- a: its process died (SIGKILL(-9))" in err
    assert "Traceback" not in err


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


@pytest.mark.slow
def test_seed(write_bank, data, capsys):
    bank = write_bank("a", "b")
    printed = []
    for seed in (0, 0, 1):
        assert run(bank, data, "--json", "--seed", seed) == 0
        rows = json.loads(capsys.readouterr().out)
        printed.append({row["name"]: row["score"] for row in rows})
    assert printed[1] == printed[0]
    assert printed[2] != pytest.approx(printed[0], rel=1e-3)


def test_verbose_tells_every_model_on_stderr(write_bank, data, capsys):
    assert run(write_bank("a", "b"), data, "--verbose", "--estimator", "ccfv") == 0
    shown = capsys.readouterr()
    assert "[1/2] a: ccfv" in shown.err
    assert "[2/2] b: ccfv" in shown.err
    assert "[1/2]" not in shown.out
    header, first = re.search(r"^(model .*)\n(.*)$", shown.out, re.M).groups()
    assert header.split() == [
        "model", "weights", "digest", "preprocessing", "window", "layers", "axes", "device",
    ]  # fmt: skip
    assert re.split(r"\s{2,}", first)[1] in ("a.pt", "b.pt")
    assert f"dataset: {data.name}" in shown.out
    assert run(write_bank("a", "b"), data) == 0
    assert capsys.readouterr().err == ""


def test_warnings_are_one_line_and_quiet_hides_them(data, capsys, monkeypatch, write_bank):
    fit = ModelBankSelector.fit

    def warn_and_fit(*args, **kwargs):
        warnings.warn("something is odd", UserWarning, stacklevel=1)
        return fit(*args, **kwargs)

    monkeypatch.setattr(ModelBankSelector, "fit", warn_and_fit)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run(write_bank("a"), data) == 0
        assert capsys.readouterr().err == "skte: warning: something is odd\n"
        assert run(write_bank("a"), data, "--quiet") == 0
        assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terminal", "option", "shown"),
    [(True, [], True), (False, [], False), (True, ["--quiet"], False), (True, ["-v"], False)],
)
def test_progress_only_on_a_terminal(
    terminal, option, shown, write_bank, data, monkeypatch, capsys
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    chosen = ["--estimator", "logme", *option]
    assert run(write_bank("a", "b"), data, *chosen, reference=True) == 0
    captured = capsys.readouterr()
    lines = [line.rstrip() for line in captured.err.split("\r") if "case" in line]
    assert bool(lines) == shown
    if shown:
        told = [f"model {k} of 2, {name}: case {i} of 3" for k, name in ((1, "a"), (2, "b"))
                for i in (1, 2, 3)]  # fmt: skip
        assert [line.partition(", ")[0] for line in lines[6:]] == ["untrained reference"] * 3
        assert all(line.startswith(start) for line, start in zip(lines, told, strict=False))
    assert len(table_of(captured.out)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
def test_an_interrupted_run_says_what_is_kept_and_how_to_go_on(
    cached, write_bank, data, tmp_path, monkeypatch, capsys
):
    announce = Engine._announce

    def stop(self, record, place):
        announce(self, record, place)
        raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "_announce", stop)
    options = ["--estimator", "logme", *(["--cache", tmp_path / "my cache"] if cached else [])]
    assert run(write_bank("a", "b"), data, *options) == 130
    told = capsys.readouterr().err
    assert "interrupted: 1 of 2 models were done; " in told
    if not cached:
        assert "nothing is kept without --cache DIR" in told
        return
    _, *arguments = shlex.split(told.splitlines()[-1])
    monkeypatch.undo()
    assert main([*arguments, "--json"]) == 0
    assert [row["n_cached"] for row in json.loads(capsys.readouterr().out)] in ([3, 0], [0, 3])


@pytest.mark.slow
def test_a_report_is_written_beside_the_table(write_bank, data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out, report = tmp_path / "ranking.csv", tmp_path / "ranking.html"
    bank = write_bank("good", "bad", "fine", broken=["bad"])
    assert run(bank, data, "--out", out, "--report", report, estimator=None) == 1
    page = report.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "Cannot be shown" not in page
    for row in read_csv(out)[:2]:
        assert f'<td class="n" data-sort="{float(row["score"])!r}"' in page
    assert "bad failed: " in page
    assert f"--report {report}" in page  # the command
    step = capsys.readouterr().out.splitlines()[-1]
    assert step.startswith(f"Next: skte next --bank {bank} --model ")
    assert html.escape(step, quote=False) in page


def test_an_unwritable_report_is_refused_before_the_work(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FIT, lambda args: pytest.fail("worked before checking"))
    for name, told in (("r.pdf", "must end in .html"), ("gone/r.html", "does not exist")):
        assert run("bank.json", data, "--report", tmp_path / name) == 2
        shown = capsys.readouterr().err
        assert "--report" in shown
        assert told in shown


@pytest.mark.slow
def test_an_estimator_of_another_package_ranks(write_bank, data, tmp_path):
    bank, out = write_bank("a", "b"), tmp_path / "ranking.csv"
    assert (
        run(bank, data, "--estimator", "skte.estimators:LogME", "--layers", "auto", "--out", out)
        == 0
    )
    expected = ModelBankSelector({"LogME": estimators.LogME()}).fit(bank, data)
    rows = read_csv(out)
    assert [row["name"] for row in rows] == list(expected.ranking_)
    assert {row["layers_certainty"] for row in rows} == {"checked"}


@pytest.mark.parametrize("text", ["nowhere.at_all:X", "json:loads", "collections:OrderedDict"])
def test_what_is_no_estimator_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["rank", "--bank", "a", "--data", "b", "--estimator", text])
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_a_race_is_an_option(write_bank, tmp_path, capsys):
    bank, out = write_bank("a", "b", "c"), tmp_path / "ranking.csv"
    data = write_msd(tmp_path / "data", make_phantoms(5, size=(12, 12, 12)), "five")
    chosen = ["--estimator", "logme,gbc", "--samples", "all"]
    assert run(bank, data, "--race", *chosen, "--out", out) == 0
    race = HalvingModelBankSelector(
        {"logme": estimators.LogME(), "gbc": estimators.GBC()},
        extractor=SegmentationFeatureExtractor(),
        reference=False,
    ).fit(bank, data)
    shown = capsys.readouterr().out
    assert shown.startswith(f"Fine-tune {race.best_name_} first.")
    assert "logme decided the race" in shown
    lines = table_of(shown)
    header = ["rank", "model", "logme", "gbc", "(cases)", "(parameters)", "(finest width)"]
    header.append("(zero-shot Dice)")
    assert re.split(r"\s{2,}", lines[0]) == header
    assert [line.split()[1] for line in lines[1:]] == list(race.ranking_)
    rows = read_csv(out)
    assert [row["name"] for row in rows] == list(race.ranking_)
    assert {row["name"]: int(row["n_cases"]) for row in rows} == dict(
        zip(race.names_, race.results_["n_cases"].tolist(), strict=True)
    )


def test_the_progress_of_a_race_is_by_rung(capsys):
    progress = Progress(["a", "b"], shown=True, is_race=True)
    for told in (("a", 4, 4), ("b", 4, 4), ("b", 5, 6), ("untrained Net", 1, 6)):
        progress(*told)
    assert [line.rstrip() for line in capsys.readouterr().err.split("\r")[1:]] == [
        "race over 4 cases, a: case 4 of 4",
        "race over 4 cases, b: case 4 of 4",
        "race over 6 cases, b: case 5 of 6",
        "untrained reference, untrained Net: case 1 of 6",
    ]


def test_the_progress_of_several_datasets_starts_again(capsys):
    progress = Progress(["a", "b"], shown=True, n_datasets=2)
    for told in (("a", 2, 2), ("b", 2, 2), ("b", 2, 2), ("a", 1, 3)):
        progress(*told)
    assert [line.rstrip() for line in capsys.readouterr().err.split("\r")[1:]] == [
        "dataset 1 of 2, model 1 of 2, a: case 2 of 2",
        "dataset 1 of 2, model 2 of 2, b: case 2 of 2",
        "dataset 2 of 2, model 1 of 2, a: case 1 of 3",
    ]


def test_what_a_race_cannot_do_is_refused(write_bank, data, monkeypatch, capsys):
    bank = write_bank("a", "b")
    assert run(bank, data, "--race") == 2
    assert "There are 3 cases: a race needs min_cases=4. Label more," in capsys.readouterr().err
    monkeypatch.setattr(FIT, lambda args: pytest.fail("work was done"))
    assert run(bank, data, "--race", "--confidence", "0.9") == 2
    assert "--race drops models" in capsys.readouterr().err


@pytest.mark.slow
def test_several_datasets_share_one_table(write_bank, data, tmp_path, capsys):
    bank, out = write_bank("a", "b", broken=["b"]), tmp_path / "ranks.csv"
    other = write_msd(tmp_path / "other", make_phantoms(2, size=(12, 12, 12)), "small")
    cache = ["--cache", tmp_path / "cache"]
    assert run(bank, data, "--data", other, "--out", out, "--verbose", *cache) == 1
    shown = capsys.readouterr()
    names = [data.name, other.name]
    answers, table = shown.out.split("\n\n")[:2]
    assert [line.split(": ")[0] for line in answers.splitlines()[:2]] == names
    assert " ".join(table.split()) == f"mean rank model {' '.join(names)} 1 a 1 1 - b - -"
    assert shown.out.count("versions: ") == 2  # what each model saw, of each dataset
    assert f"skte: failed: {names[0]}: b, {names[1]}: b: " in shown.err
    rows = read_csv(out)
    assert [(row["dataset"], row["name"]) for row in rows] == [(d, n) for d in names for n in "ab"]
    run(bank, data, "--data", other, "--out", out, *cache)
    assert [row["n_cached"] for row in read_csv(out) if row["name"] == "a"] == ["3", "2"]


def test_a_dataset_that_cannot_be_ranked_is_named_once(write_bank, data, tmp_path, capsys):
    other = write_msd(tmp_path / "other", make_phantoms(1, size=(12, 12, 12)), "one")
    assert run(write_bank("a", "b"), data, "--data", other) == 1
    shown = capsys.readouterr()
    assert f"{other.name}: No answer: the dataset cannot be used: There is 1 case: " in shown.out
    assert shown.err.count(f"skte: failed: {other.name}: The dataset cannot be used:") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "DATA"], "more than once"),
        (["--data", "other", "--exclude", "a"], "--exclude chooses cases of one dataset"),
    ],
)
def test_several_datasets_that_cannot_be_ranked_at_once(more, message, write_bank, data, capsys):
    more = [str(data) if word == "DATA" else word for word in more]
    assert run(write_bank("a"), data, *more) == 2
    assert message in capsys.readouterr().err


def test_an_estimator_is_named_once(capsys):
    named = ["--estimator", "logme,gbc", "--estimator", "logme"]
    assert main(["rank", "--bank", "none", "--data", "none", *named]) == 2
    assert "--estimator names logme more than once" in capsys.readouterr().err
