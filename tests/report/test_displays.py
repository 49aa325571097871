"""Plots: what is drawn, not how it looks."""

import numpy as np
import pytest

from skte import CCFV, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.report import RankingDisplay, ScorePerformanceDisplay

matplotlib_figure = pytest.importorskip("matplotlib.figure")


def test_ranking_bars_end_at_the_scores_best_on_top():
    display = RankingDisplay.from_results({"name": ["a", "b", "c"], "score": [1.0, 3.0, 2.0]})
    ends = [bar.get_x() + bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_allclose(ends, [3, 2, 1])
    labels = [t.get_text() for t in display.ax_.get_yticklabels()]
    assert labels == ["1  b", "2  c", "3  a"]
    assert display.ax_.yaxis_inverted()


def test_models_without_a_finite_score_get_a_word_and_no_bar():
    display = RankingDisplay(["a", "b", "c"], [1.0, -np.inf, np.nan]).plot()
    assert [t.get_text().strip() for t in display.ax_.texts] == ["collapsed", "failed"]
    assert [bar.get_width() > 0 for bar in display.ax_.patches] == [True, False, False]
    only = RankingDisplay(["a"], [-np.inf]).plot()
    assert [t.get_text().strip() for t in only.ax_.texts] == ["collapsed"]


def test_given_axes_and_keywords_are_used():
    ax = matplotlib_figure.Figure().subplots()
    display = RankingDisplay(["a"], [1.0]).plot(ax, bar_kw={"color": "red"})
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert display.ax_.patches[0].get_facecolor() == (1.0, 0.0, 0.0, 1.0)


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match=r"results lack \['score_x'\]"):
        RankingDisplay.from_results({"name": ["a"], "score": [1]}, column="score_x")


def test_from_selector():
    bank = {name: small_unet(widths=(4, 8)) for name in ("x", "y")}
    extractor = SegmentationFeatureExtractor(n_class_samples=50, n_case_samples=50)
    for estimator, label in ((LogME(), "LogME"), ({"c": CCFV(), "l": LogME()}, "CCFV")):
        selector = ModelBankSelector(estimator, extractor=extractor)
        selector.fit(bank, make_phantoms(2, size=(12, 12, 12)))
        display = RankingDisplay.from_selector(selector)
        assert display.names == tuple(selector.ranking_)
        assert display.ax_.get_xlabel() == f"{label} (higher is better)"


def test_scatter_holds_the_points_and_the_agreement():
    display = ScorePerformanceDisplay.from_scores(
        {"b": 0.8, "a": 0.7, "c": 0.9}, [-3.0, -2.0, -1.0], ["a", "b", "c"]
    )
    points = display.ax_.collections[0].get_offsets()
    np.testing.assert_allclose(points, [[-3, 0.7], [-2, 0.8], [-1, 0.9]])
    assert [t.get_text() for t in display.ax_.texts] == ["a", "b", "c"]
    assert display.result.statistic == pytest.approx(1.0)
    assert "3 models" in display.ax_.get_title()


def test_collapsed_models_are_marked_at_the_left():
    display = ScorePerformanceDisplay.from_scores([0.7, 0.8, 0.9], [-np.inf, -2.0, -1.0])
    collapsed = display.ax_.collections[1].get_offsets()
    assert collapsed[0, 0] < -2
    assert display.ax_.get_legend().get_texts()[0].get_text() == "collapsed"


def test_drawing_writes_a_picture(tmp_path):
    display = RankingDisplay(["a", "b"], [1.0, 2.0]).plot()
    display.figure_.savefig(tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").stat().st_size > 1000
