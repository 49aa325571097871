"""One bank on several datasets."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from sklearn.exceptions import FitFailedWarning

from skte import LogME, ModelBankSelector
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.exceptions import SkteWarning
from skte.report import results_rows, write_report, write_results
from skte.selection import rank_datasets

pytestmark = pytest.mark.slow
EVIL = "<b>liver</b>"


def cases(seed, n_channels=1):
    return make_phantoms(2, size=(12, 12, 12), n_channels=n_channels, random_state=seed)


@pytest.fixture(scope="module")
def bank():
    torch.manual_seed(0)
    networks = {name: small_unet(widths=(4, 8)) for name in ("a", "b")}
    return {"two": small_unet(in_channels=2, widths=(4, 8)), **networks}


@pytest.fixture(scope="module")
def found(bank):
    selector = ModelBankSelector(LogME(), reference=False, error_score=np.nan)
    datasets = {EVIL: cases(0), "five channels": cases(0, n_channels=5), "spleen": cases(3)}
    with pytest.warns(FitFailedWarning) as caught:
        result = rank_datasets(selector, bank, datasets)
    assert all(re.match("Dataset '.*': Model '", str(one.message)) for one in caught)
    return result


def test_ranks_are_those_of_each_dataset(found):
    assert found.datasets == (EVIL, "spleen", "five channels")
    for name, ranks in zip(found.datasets[:2], found.ranks.T, strict=False):
        ranking = found.selectors[name].ranking_
        assert [found.names[i] for i in np.argsort(ranks)[:2]] == list(ranking)[:2]
    assert found.mean_ranks[:2].tolist() == found.ranks[:2, :2].mean(axis=1).tolist()
    assert found.names[-1] == "two"
    assert np.isnan([*found.ranks[2], found.mean_ranks[2], *found.ranks[:, 2]]).all()
    frame = found.to_frame()
    assert frame.loc["a", "spleen"] == found.ranks[found.names.index("a"), 1]
    assert list(frame.columns) == [*found.datasets, "mean rank"]


def test_sentences_name_their_dataset_unless_they_hold_for_all(found):
    above, table, below = repr(found).split("\n\n")
    choices = [f"{name}: {s.answer_.choice[0]}" for name, s in found.selectors.items()]
    assert above.splitlines()[:2] == choices
    lost = above.splitlines()[2]
    assert lost.startswith("five channels: No answer: every model of the bank failed: two: ")
    assert table.splitlines()[-1].split() == ["-", "two", "-", "-", "-"]
    shared = found.selectors["spleen"].answer_.certainty[0]
    assert below.count(shared) == 1
    assert f": {shared}" not in below
    assert EVIL not in found._repr_html_()


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_files_hold_every_model_of_every_dataset(found, suffix, tmp_path):
    path = tmp_path / f"ranks.{suffix}"
    write_results(found, path)
    with path.open() as file:
        rows = json.load(file) if suffix == "json" else list(csv.DictReader(file))
    assert len(rows) == len(found.names) * len(found.datasets)
    best = [(r["dataset"], r["name"]) for r in rows if str(r["rank"]) == "1"]
    assert best == [(name, s.best_name_) for name, s in found.selectors.items()]
    assert all(r["error"] for r in rows if r["dataset"] == "five channels" or r["name"] == "two")
    assert {str(r["mean_rank"]) for r in rows if r["name"] == "two"} == {"nan"}
    assert [list(row) for row in rows] == [list(results_rows(found)[0])] * len(rows)


def test_an_error_names_its_dataset(bank):
    selector = ModelBankSelector(LogME(), reference=False)
    with pytest.raises(ValueError, match="channels") as caught:
        rank_datasets(selector, {"a": bank["a"]}, {"spleen": cases(0), "CT": cases(0, 5)})
    assert "'CT'" in caught.value.__notes__[0]


def test_warnings_of_a_dataset_that_fails_are_kept(bank):
    """The second model fails; the first one has warned by then."""
    flat = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 1), torch.nn.Conv3d(4, 2, 1))
    torch.nn.init.zeros_(flat[0].weight)
    with (
        pytest.warns(SkteWarning, match="^Dataset 'CT': Model 'flat': "),
        pytest.raises(ValueError, match="channels"),
    ):
        rank_datasets(
            ModelBankSelector(LogME(), reference=False),
            {"flat": flat, "two": bank["two"]},
            {"CT": cases(0), "MR": cases(1)},
        )


def test_the_report_tints_ranks_and_shows_every_dataset(found, tmp_path):
    pytest.importorskip("matplotlib")
    text = write_report(found, tmp_path / "ranks.html", command="skte rank").read_text("utf-8")
    table = text[text.index("<tbody>") : text.index("</tbody>")]
    assert re.findall(r"--tint-share:(\d+)%", table).count("30") == 2  # the first of each
    for i, name in enumerate(("&lt;b&gt;liver&lt;/b&gt;", "spleen")):
        assert f'<a href="#dataset-{i}">{name}</a>' in text
        assert f'id="dataset-{i}"' in text
    assert text.count("two failed: ") == 2
    assert EVIL not in text
    assert len(re.findall(r' id="', text)) == len(set(re.findall(r' id="[^"]*"', text)))
