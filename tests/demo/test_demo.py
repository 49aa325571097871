"""The demo end to end, with hardly any training, and the tables it prints."""

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch

from skte.cli import main
from skte.demo import run_demo, small_unet
from skte.estimators import recommended_estimators
from skte.metrics import weighted_kendall_score

pytestmark = [
    pytest.mark.slow,
    # A twentieth of the training leaves layers with few distinct features.
    pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "new" / "folder"


@pytest.fixture(scope="module")
def run(folder):
    """What the demo returned to the command, and what the command printed."""
    returned, shown = [], io.StringIO()

    def keep(*args, **kwargs):
        returned.append(run_demo(*args, **kwargs))

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(shown):
        patch.setattr("skte.demo.run_demo", keep)
        assert main(["demo", "--quick", "--out", str(folder)]) == 0
    (result,) = returned
    return result, shown.getvalue()


@pytest.fixture(scope="module")
def result(run):
    return run[0]


@pytest.fixture(scope="module")
def names(result, folder):
    """Of the models, in the order of the manifest."""
    manifest = json.loads((folder / "bank" / "bank.json").read_text())
    return [model["name"] for model in manifest["models"]]


def test_every_model_is_ranked_and_fine_tuned(result, names):
    assert len(names) > 5
    assert sorted(result.selector.ranking_) == sorted(names)
    assert result.dice.shape == (len(names), 2)
    assert ((result.dice >= 0) & (result.dice <= 1)).all()


def test_agreement_is_that_of_scores_and_dice(result):
    methods = [row.method for row in result.card.rows]
    assert methods == [*recommended_estimators(), "ccfv", "leep", "size", "zero-shot"]
    mean = result.dice.mean(axis=1)
    expected = weighted_kendall_score(mean, result.selector.scores_)
    assert result.card["crosscaseprobe"].weighted_kendall == pytest.approx(expected)
    best = np.argmax(result.selector.scores_)
    assert result.card["crosscaseprobe"].regret[1] == pytest.approx(mean.max() - mean[best])


def test_models_are_listed_by_dice(result, folder, names):
    lines = (folder / "report.txt").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["model", "Dice"])
    listed = [line.split()[0] for line in lines[start + 1 : start + 1 + len(names)]]
    order = np.argsort(-result.dice.mean(axis=1), kind="stable")
    assert listed == [result.selector.names_[i] for i in order]


def test_files_are_whole(result, folder, names):
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
    report = (folder / "report.txt").read_text(encoding="utf-8")
    assert all(name in report for name in names)
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
    ranked = [row["name"] for row in rows if not row["reference"]]
    assert ranked == list(result.selector.ranking_)


def test_the_command_prints_what_it_found(run, folder):
    assert "weighted Kendall" in run[1]
    assert (folder / "report.txt").is_file()
