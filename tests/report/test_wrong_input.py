"""What displays and files are made of may be something else, unfitted, or incomplete."""

import re

import pytest
from sklearn.exceptions import NotFittedError

from skte import CCFV, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.report import (
    CorrelationDisplay,
    FeatureEmbeddingDisplay,
    LayerScoreDisplay,
    RankingDisplay,
    SampledVoxelsDisplay,
    StabilityDisplay,
    write_report,
    write_results,
)
from skte.selection import HalvingModelBankSelector

pytest.importorskip("matplotlib")


@pytest.mark.parametrize(
    "make",
    [
        RankingDisplay.from_selector,
        LayerScoreDisplay.from_selector,
        lambda selector: write_report(selector, "ranking.html"),
    ],
)
def test_selectors_are_fitted_and_of_the_right_kind(make):
    for unfitted in (ModelBankSelector(CCFV()), HalvingModelBankSelector(CCFV())):
        with pytest.raises(NotFittedError, match="fit"):
            make(unfitted)
    with pytest.raises(TypeError, match="fitted ModelBankSelector, got int"):
        make(3)


def test_tables_are_tables_with_the_columns_needed(tmp_path):
    with pytest.raises(TypeError, match="got ModelBankSelector"):
        write_results(ModelBankSelector(CCFV()), tmp_path / "r.csv")
    with pytest.raises(ValueError, match=re.escape("results lack ['rank']; they have ['name']")):
        write_results({"name": ["a"]}, tmp_path / "r.csv")
    assert list(tmp_path.iterdir()) == []


def test_confidence_that_was_not_asked_for():
    with pytest.raises(TypeError, match=r"fitted with a confidence_level .* got NoneType"):
        StabilityDisplay(None)


def test_scores_and_names_fit():
    with pytest.raises(ValueError, match="1 names, but 3 scores"):
        CorrelationDisplay.from_scores([0.1, 0.2, 0.3], [1, 2, 3], names=["a"])
    with pytest.raises(ValueError, match="mapping: give names"):
        CorrelationDisplay.from_scores({"a": 0.1, "b": 0.2}, [1, 2])


def test_features_are_features():
    with pytest.raises(TypeError, match="must be a FeatureSet, got list"):
        FeatureEmbeddingDisplay.from_features([1, 2])


def test_something_is_left_to_draw():
    display = SampledVoxelsDisplay.from_case
    case = make_phantoms(1, size=(12, 12, 12))[0]
    with pytest.raises(ValueError, match="n_slices must be at least 1, got 0"):
        display(SegmentationFeatureExtractor(), case, n_slices=0)


@pytest.mark.parametrize("name", ["r.csv", "r.html"])
def test_a_missing_folder_is_named_and_no_temporary_file(tmp_path, name):
    bank = {"a": small_unet(widths=(2, 4))}
    cases = make_phantoms(2, size=(12, 12, 12))
    selector = ModelBankSelector(CCFV(), reference=False).fit(bank, cases)
    path = tmp_path / "nowhere" / name
    write, what = write_results, selector.results_
    if name == "r.html":
        write, what = write_report, selector
    with pytest.raises(FileNotFoundError, match=r"folder .* does not exist") as caught:
        write(what, path)
    assert caught.value.filename == str(path)
