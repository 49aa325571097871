"""Displays of how sure a ranking is."""

import numpy as np

from skte.evaluation import RankLearningCurve, evaluate_ranking
from skte.report import EvaluationDisplay, LearningCurveDisplay, StabilityDisplay
from skte.selection import BankConfidence


def test_learning_curve_marks_the_suggestion():
    means, ones = np.tile(np.arange(3.0)[:, None], 3), np.ones(3)
    curve = RankLearningCurve(
        n_cases=np.array([2, 4, 8]),
        names=list("abc"),
        scores=means[:, 0],
        score_mean=means,
        score_std=0 * means,
        kendall_to_all=ones,
        top1_to_all=ones,
        kendall_apart=np.array([1, 1, np.nan]),
        top1_apart=np.array([1, 1, np.nan]),
        reliability=1.0,
        target=0.9,
    )
    ax = LearningCurveDisplay(curve).plot().ax_
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [2, 4])
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [2, 4, 8])
    assert ax.lines[3].get_xdata()[0] == 2
    assert ax.get_title() == curve.suggestion


def test_card_shows_intervals_and_chance():
    card = evaluate_ranking(
        [1, 2, 3, 5, 4, 6],
        performance=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        size=[1] * 6,
        n_resamples=100,
    )
    ax = EvaluationDisplay(card).plot().ax_
    assert [label.get_text() for label in ax.get_yticklabels()] == ["score", "size"]
    assert tuple(ax.lines[1].get_xdata()) == card.rows[0].interval
    assert "6 models" in ax.get_xlabel()


def bank_of(n, failed=()):
    """Scores n, n - 1, ...; every model may be one rank higher or lower."""
    ranks = np.arange(1, n + 1)
    groups = ranks.copy()
    scores = n - ranks.astype(float)
    for model in failed:
        groups[model], scores[model] = 0, np.nan
    nothing = np.full(n, np.nan)
    return BankConfidence(
        names=[f"m{i}" for i in range(n)],
        scores=scores,
        centres=scores,
        standard_errors=nothing,
        intervals=np.stack([nothing, nothing], axis=1),
        rank_intervals=np.stack([np.maximum(ranks - 1, 1), np.minimum(ranks + 1, n)], axis=1),
        first_share=np.where(ranks == 1, 0.75, 0.25 / max(1, n - 1)),
        groups=groups,
        difference_errors=np.full((n, n), np.nan),
        critical_value=2.0,
        confidence_level=0.9,
        n_cases=7,
    )


def test_stability_spans_the_ranks_that_the_data_allow():
    ax = StabilityDisplay(bank_of(4)).plot().ax_
    lines = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert lines == [[1, 2], [1, 3], [2, 4], [3, 4]]
    assert ax.collections[1].get_offsets()[:, 0].tolist() == [1, 2, 3, 4]
    assert [t.get_text() for t in ax.texts] == ["75 %", "8 %", "8 %", "8 %", "first in"]
    assert ax.get_xlabel() == "rank at 90 % confidence, 7 cases"


def test_stability_of_two_of_many_and_of_failed_models():
    assert len(StabilityDisplay(bank_of(2)).plot().ax_.get_yticks()) == 2
    ax = StabilityDisplay(bank_of(200)).plot().ax_
    assert len(ax.get_yticks()) == 60
    assert "the best 60 of 200 models" in ax.get_xlabel()
    ax = StabilityDisplay(bank_of(3, failed=(1,))).plot().ax_
    assert [label.get_text() for label in ax.get_yticklabels()] == ["m0", "m2", "m1"]
    assert ax.texts[2].get_text() == "failed"
    assert len(ax.collections[1].get_offsets()) == 2
