"""Displays of how sure a ranking is."""

import numpy as np

from skte.report import EvaluationDisplay, LearningCurveDisplay
from skte.selection import evaluate_ranking
from skte.selection._learning_curve import _curve, _draws


def test_learning_curve_marks_the_suggestion():
    weights, rows = _draws(8, [2, 4, 8], 5, 0)
    scores = np.arange(3.0)[:, None] + np.zeros((3, len(weights)))
    curve = _curve(list("abc"), scores, [2, 4, 8], rows, 0.9)
    ax = LearningCurveDisplay(curve).plot().ax_
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [2, 4])
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [2, 4, 8])
    assert ax.lines[3].get_xdata()[0] == 2
    assert ax.get_title() == curve.suggestion


def test_card_shows_intervals_and_chance():
    card = evaluate_ranking(
        [1, 2, 3, 5, 4], [0.1, 0.2, 0.3, 0.4, 0.5], size=[1] * 5, n_resamples=100
    )
    ax = EvaluationDisplay(card).plot().ax_
    assert [label.get_text() for label in ax.get_yticklabels()] == ["score", "size"]
    assert tuple(ax.lines[1].get_xdata()) == card.rows[0].interval
    assert "5 models" in ax.get_xlabel()
