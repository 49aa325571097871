"""The shell's way to judge a ranking."""

import json

import pytest

from skte.cli import main
from skte.evaluation import evaluate_ranking

RANKING = "name,rank,score,score_ccfv,score_logme\na,1,-1,-1,0.1\nb,2,-2,-2,0.4\nc,3,-3,-3,0.2\n"
REACHED = "name,performance,size,zero_shot,architecture\na,0.9,5,0.2,U\nb,0.8,4,,U\nc,0.7,9,0.1,U\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "r.csv").write_text(RANKING)
    (tmp_path / "p.csv").write_text(REACHED)
    return ["evaluate", "--ranking", str(tmp_path / "r.csv"),
            "--performance", str(tmp_path / "p.csv")]  # fmt: skip


def test_table_has_estimators_and_baselines(files, capsys):
    assert main(files) == 0
    out = capsys.readouterr().out
    for word in ("3 models", "ccfv", "logme", "size", "zero-shot", "within", "regret@1"):
        assert word in out


def test_json_is_that_of_the_card(files, tmp_path, capsys):
    assert main([*files, "--json", "--out", str(tmp_path / "card.json")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "card.json").read_text())
    card = evaluate_ranking([-1, -2, -3], performance=[0.9, 0.8, 0.7])
    row = next(row for row in printed["rows"] if row["method"] == "ccfv")
    assert row["weighted_kendall"] == card.rows[0].weighted_kendall == 1.0
    assert row["pvalue"] == pytest.approx(1 / 6)
    assert {one["architecture"] for one in printed["within"]} == {"U"}


def test_chosen_column_and_a_mapping_as_performance(files, tmp_path, capsys):
    (tmp_path / "p.json").write_text(json.dumps({"a": 0.9, "b": 0.8, "c": 0.7}))
    files[-1] = str(tmp_path / "p.json")
    assert main([*files, "--column", "score_logme", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert row["method"] == "logme"


def test_untrained_references_are_no_models_and_model_is_a_name(files, tmp_path, capsys):
    header, *rows = RANKING.splitlines()
    rows = [f"{header},reference", *(f"{row},False" for row in rows), "twin,,9,9,9,True"]
    (tmp_path / "r.csv").write_text("\n".join(rows))
    (tmp_path / "p.csv").write_text(REACHED.replace("name", "model"))
    assert main([*files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_models"] == 3


def test_models_without_performance_are_named(files, tmp_path, capsys):
    (tmp_path / "r.csv").write_text(RANKING + "lost,4,-4,-4,0.0\n")
    assert main(files) == 1
    assert "lost" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ("name,rank\na,1\nb,2\nc,3\n", "no column of scores"),
        ("network,score\na,1\n", "column 'name'"),
        ("name,score\na,1\na,2\n", r"repeated: ['a']"),
        ("name,score\na,1\nb,x\nc,3\n", "b: 'x'"),
        ("name,score\na,1\nb,2\n", "at least 3"),
        ("name,score\nx,1\ny,2\n", "names none of the models"),
        ("dataset,name,score\nCT,a,1\nMR,a,2\n", "several datasets (CT, MR)"),
        ("name,score,n_cases\na,1,8\nb,2,8\nc,3,4\n", "holds the scores of a race"),
    ],
)
def test_what_is_wrong_is_said(files, tmp_path, capsys, ranking, message):
    (tmp_path / "r.csv").write_text(ranking)
    assert main(files) == 2
    assert message in capsys.readouterr().err


def test_a_column_of_another_name_is_shown(files, tmp_path, capsys):
    (tmp_path / "p.csv").write_text(REACHED.replace("performance", "dice"))
    assert main(files) == 2
    assert "'performance' is missing; it has name, dice, size" in capsys.readouterr().err


def test_unreadable_files(files, tmp_path, capsys):
    for path, message in (("gone.csv", "cannot be read"), ("r.txt", ".csv or .json")):
        assert main([*files, "--ranking", str(tmp_path / path)]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("{")
    assert main([*files, "--performance", str(tmp_path / "bad.json")]) == 2
    assert "is not valid JSON" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*files, "--confidence", "90"])
