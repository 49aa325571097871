"""The demo end to end, with hardly any training, and the tables it prints."""

import json

import numpy as np
import pytest
import torch

from skte.cli import main
from skte.demo import run_demo, small_unet
from skte.demo._bank import SOURCES
from skte.demo._findings import agreement_table, agreements, caveats, model_table
from skte.selection import weighted_kendall_score

pytestmark = [
    pytest.mark.slow,
    # A twentieth of the training leaves layers with few distinct features.
    pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def result(folder):
    return run_demo(folder, quick=True, verbose=False)


def test_every_model_is_ranked_and_fine_tuned(result):
    assert sorted(result.selector.ranking_) == sorted(SOURCES)
    assert result.dice.shape == (len(SOURCES), 2)
    assert ((result.dice >= 0) & (result.dice <= 1)).all()


def test_agreement_is_that_of_scores_and_dice(result):
    found = {one.name: one for one in result.agreements}
    assert set(found) == {"ccfv", "logme", "leep", "gbc", "transrate", "size", "zero-shot"}
    expected = weighted_kendall_score(result.dice.mean(axis=1), result.selector.scores_)
    assert found["ccfv"].kendall.statistic == pytest.approx(expected)
    best = np.argmax(result.selector.scores_)
    mean = result.dice.mean(axis=1)
    assert found["ccfv"].regret == pytest.approx(mean.max() - mean[best])


def test_files_are_whole(result, folder):
    assert {path.name for path in folder.iterdir()} == {
        "bank",
        "ranking.csv",
        "ranking.html",
        "ranking.png",
        "report.txt",
        "results.json",
        "target",
    }
    content = json.loads((folder / "results.json").read_text())
    assert content["dice"] == result.dice.tolist()
    report = (folder / "report.txt").read_text()
    assert all(name in report for name in SOURCES)
    assert "no evidence" in report


def test_weights_are_those_the_manifest_names(result, folder):
    manifest = json.loads((folder / "bank" / "bank.json").read_text())
    for model in manifest["models"]:
        network = small_unet(**model["arguments"])
        network.load_state_dict(torch.load(folder / "bank" / model["weights"], weights_only=True))


def test_the_command_it_prints_ranks_again(result, folder, capsys):
    command = ["rank", "--bank", str(folder / "bank" / "bank.json"), "--quiet", "--json"]
    assert main([*command, "--data", str(folder / "target")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(result.selector.ranking_)


def test_command(tmp_path, capsys):
    assert main(["demo", "--quick", "--out", str(tmp_path / "new" / "folder")]) == 0
    shown = capsys.readouterr().out
    assert "weighted Kendall" in shown
    assert (tmp_path / "new" / "folder" / "report.txt").is_file()


def test_constant_lists_have_no_order():
    found = agreements(np.array([0.5, 0.7, 0.6]), {"flat": np.ones(3), "good": np.arange(3.0)})
    assert found[0].kendall is None
    assert found[1].kendall is not None
    table = agreement_table(found)
    assert "undefined" in table
    assert "K = 3" in "\n".join(caveats(np.array([[0.5, 0.5], [0.7, 0.7], [0.6, 0.6]]), found))


def test_models_are_listed_by_dice():
    lines = model_table(["a", "b"], np.array([0.1, 0.9]), {"x": np.array([2.0, 1.0])}).splitlines()
    assert [line.split() for line in lines[1:]] == [["b", "0.900", "2"], ["a", "0.100", "1"]]
