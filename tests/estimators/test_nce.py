"""NCE: limits, ties, and what it does not see."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from skte.estimators import LEEP, NCE
from skte.exceptions import SaturatedScoreWarning
from tests.estimator_problems import make_problem


def entropy(y):
    share = np.unique(y, return_counts=True)[1] / len(y)
    return -(share * np.log(share)).sum()


def test_perfect_and_finer_heads_give_zero():
    y = make_problem().y
    assert NCE().score(np.eye(3)[y], y) == 0.0
    assert NCE().score(np.eye(6)[2 * y + np.arange(len(y)) % 2], y) == 0.0


def test_conditional_entropy_in_closed_form():
    z, y = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    expected = -4 / 6 * -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert NCE().score(np.eye(2)[z], y) == pytest.approx(expected, rel=1e-12)


def test_head_that_always_says_background_is_at_the_floor():
    """Whatever its probabilities know: LEEP sees what NCE does not."""
    y = np.tile([0, 1], 50)
    P = np.where(y[:, None] == 1, [[0.6, 0.4]], [[0.99, 0.01]])
    with pytest.warns(SaturatedScoreWarning, match="NCE is -0.6931"):
        assert NCE().score(P, y) == pytest.approx(-np.log(2), rel=1e-12)
    assert LEEP().score(P, y) > -0.6


def test_tied_voxels_are_shared_between_their_classes():
    """Half a voxel in each of two source classes, worked by hand."""
    P = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    y = np.array([0, 0, 1, 1])
    # z=0 holds 2 voxels of class 0 and half a one of class 1; z=1 holds 1.5 of class 1.
    expected = (2 * np.log(2 / 2.5) + 0.5 * np.log(0.5 / 2.5)) / 4
    assert NCE().score(P, y) == pytest.approx(expected, rel=1e-12)
    assert NCE().score(P[:, ::-1], y) == pytest.approx(expected, rel=1e-12)


def test_permuting_tied_source_classes():
    rng = np.random.default_rng(0)
    P = rng.integers(0, 3, size=(200, 4)) + 0.5
    P /= P.sum(axis=1, keepdims=True)
    y = rng.integers(0, 3, 200)
    scores = [NCE().score(P[:, rng.permutation(4)], y) for _ in range(5)]
    assert scores == pytest.approx([scores[0]] * 5, rel=1e-12)


def test_one_source_class_knows_nothing():
    y = np.array([0, 0, 0, 2, 7, 7, 7, 7])
    assert NCE().score(np.ones((8, 1)), y) == pytest.approx(-entropy(y), rel=1e-12)


def test_two_voxels_and_many_classes():
    assert NCE().score(np.eye(2), np.array([4, 9])) == 0.0
    y = np.repeat(np.arange(200), 2)
    P = np.eye(200)[y]
    assert NCE().score(P, y) == 0.0
    assert NCE().score(np.roll(P, 1, axis=1), y) == 0.0
    assert NCE().score(np.full((400, 3), 1 / 3), y) == pytest.approx(-np.log(200), rel=1e-12)


def test_extreme_logits():
    y = np.tile([0, 1], 10)
    logits = np.where(np.eye(2)[y] > 0, 1e5, -1e5)
    assert NCE(input="logits").score(logits, y) == 0.0


def test_chunks_do_not_matter():
    rng = np.random.default_rng(0)
    z, y = rng.integers(0, 5, 20_001), rng.integers(0, 3, 20_001)
    joint = np.histogram2d(y, z, bins=(3, 5))[0]
    expected = (joint * np.log(joint / joint.sum(axis=0))).sum() / len(y)
    assert NCE().score(np.eye(5)[z], y) == pytest.approx(expected, rel=1e-12)


def test_informative_heads_give_no_warning():
    problem = make_problem(NCE(), n_rows=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert problem.score(NCE()) > -entropy(problem.y)
