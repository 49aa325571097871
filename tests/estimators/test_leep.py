"""LEEP: limits, and what it accepts as probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from skte.estimators import LEEP
from skte.features import FeatureBlock, FeatureSet
from tests.estimator_problems import make_problem


def entropy(y):
    share = np.unique(y, return_counts=True)[1] / len(y)
    return -(share * np.log(share)).sum()


def test_perfect_source_gives_zero():
    y = make_problem().y
    assert LEEP().score(np.eye(3)[y], y) == 0.0
    # So does one that splits target classes: the source may know more.
    finer = np.eye(6)[2 * y + np.arange(len(y)) % 2]
    assert LEEP().score(finer, y) == 0.0


@pytest.mark.parametrize("P", [[0.25, 0.25, 0.5], [1.0, 0.0, 0.0]])
def test_uninformative_source_gives_minus_entropy(P):
    y = np.array([0, 0, 0, 2, 7, 7, 7, 7])
    assert LEEP().score(np.tile(P, (8, 1)), y) == pytest.approx(-entropy(y), rel=1e-12)


def test_hard_predictions_give_minus_conditional_entropy():
    """With one-hot rows, LEEP is -H(y | z)."""
    z, y = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    expected = -4 / 6 * -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert LEEP().score(np.eye(2)[z], y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tiny", [0.0, 5e-324, 1e-300])
def test_source_class_that_is_never_predicted(tiny):
    problem = make_problem(LEEP())
    P = np.hstack([problem.X, np.full((len(problem.X), 2), tiny)])
    assert LEEP().score(P, problem.y) == pytest.approx(problem.score(LEEP()), rel=1e-12)


def test_extreme_logits_do_not_overflow():
    y = np.tile([0, 1], 10)
    logits = np.where(np.eye(2)[y] > 0, 1e5, -1e5)
    assert LEEP(input="logits").score(logits, y) == 0.0


@pytest.mark.parametrize(
    ("entry", "message"),
    [(-0.2, r"row 3 of X has the negative entry -0.2"), (0.9, r"row 3 of X sums to 1\.\d+")],
)
def test_rows_that_are_no_probabilities(entry, message):
    problem = make_problem(LEEP())
    P = problem.X.copy()
    P[3, 0] = entry
    P[7] *= 2
    with pytest.raises(ValueError, match=message + r".*2 of 96 rows.*input='logits'"):
        LEEP().fit(P, problem.y)


def test_layer_is_named_where_it_has_a_name():
    with pytest.raises(ValueError, match="row 0 of X of layer 'head'"):
        LEEP().fit(FeatureBlock(np.ones((4, 2)), np.array([0, 0, 1, 1]), name="head"))


def test_rounded_probabilities_pass_and_are_renormalised():
    problem = make_problem(LEEP())
    rounded = np.round(problem.X, 5)
    assert (rounded.sum(axis=1) != 1).any()
    exact = rounded / rounded.sum(axis=1, keepdims=True)
    assert LEEP().score(rounded, problem.y) == pytest.approx(
        LEEP().score(exact, problem.y), rel=1e-12
    )
    assert LEEP().score(rounded, problem.y) == LEEP().score(rounded, problem.y)
    assert LEEP().score(np.eye(3)[problem.y] * (1 + 5e-5), problem.y) == 0.0


def test_feature_set_carries_probabilities_whatever_the_input():
    problem = make_problem(LEEP())
    features = FeatureSet.from_blocks([make_problem().block()], posterior=problem.block())
    expected = problem.score(LEEP())
    for estimator in (LEEP(), LEEP(input="logits")):
        assert estimator.score(features) == pytest.approx(expected, rel=1e-12)
        assert estimator.fit(list(features)).score_ == pytest.approx(expected, rel=1e-12)
    # A bare block is like an array.
    logits = FeatureBlock(np.log(problem.X), problem.y, problem.groups)
    assert LEEP(input="logits").score(logits) == pytest.approx(expected, rel=1e-12)


def test_tags_follow_the_input():
    assert not LEEP().__sklearn_tags__().input_tags.two_d_array
    assert LEEP(input="logits").__sklearn_tags__().input_tags.two_d_array


def test_better_heads_score_higher():
    y = make_problem().y
    noise = np.random.default_rng(0).normal(size=(len(y), 3))
    scores = [LEEP().score(softmax(k * np.eye(3)[y] + noise, axis=1), y) for k in (0, 1, 2, 4)]
    assert scores == sorted(scores)
