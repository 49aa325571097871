"""RankMe: closed forms, collapse, which sample it looks at."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from skte.estimators import RankMe
from skte.exceptions import CollapsedFeaturesWarning
from skte.features import FeatureBlock, FeatureSet
from tests.estimator_problems import make_problem


@pytest.mark.parametrize("shape", [(4, 4), (9, 4), (4, 9)])
def test_orthonormal_directions_count_in_full(shape):
    rng = np.random.default_rng(0)
    n, d = shape
    Q = np.linalg.qr(rng.normal(size=(max(n, d), min(n, d))))[0]
    assert RankMe().score(Q if n >= d else Q.T) == pytest.approx(4.0, rel=1e-12)


def test_two_singular_values_in_closed_form():
    p = np.array([3.0, 1.0]) / 4
    expected = np.exp(-(p * np.log(p)).sum())
    assert RankMe().score(np.diag([3.0, 1.0])) == pytest.approx(expected, rel=1e-12)
    assert RankMe().score(np.diag([3.0, 1.0, 0.0])) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "X", [np.zeros((5, 3)), np.full((5, 3), 0.1), np.outer([1, -2, 3], [1, 7])]
)
def test_rank_one_and_zero(X):
    with pytest.warns(CollapsedFeaturesWarning, match=r"layer 'up1'.*one vector"):
        score = RankMe().score(FeatureBlock(X, np.zeros(len(X)), name="up1"))
    assert score == pytest.approx(1.0, abs=1e-6)
    assert score >= 1.0


def test_a_single_channel_has_rank_one_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RankMe().score(np.arange(1.0, 6.0)[:, None]) == 1.0


def test_rounding_does_not_count_as_rank():
    """A product of rank 3 in 200 channels; 197 roots of rounding would add up."""
    rng = np.random.default_rng(0)
    Q, R = np.linalg.qr(rng.normal(size=(300, 3)))[0], np.linalg.qr(rng.normal(size=(200, 3)))[0]
    assert RankMe().score(Q @ R.T) == pytest.approx(3.0, rel=1e-9)


@pytest.mark.parametrize("factor", [1e-300, 1e-150, 1e150, 1e300])
def test_scales_that_overflow_when_squared(factor):
    problem = make_problem()
    assert RankMe().score(factor * problem.X) == pytest.approx(RankMe().score(problem.X), rel=1e-12)


def test_whole_case_sample_decides():
    problem = make_problem()
    other = make_problem(seed=5)
    block = replace(problem.block("up1"), X_case=other.X, groups_case=other.groups)
    assert RankMe().score(block) == RankMe().score(other.X)
    assert RankMe().score(FeatureSet.from_blocks([block])) == pytest.approx(RankMe().score(other.X))


def test_empty_whole_case_sample():
    problem = make_problem()
    block = replace(problem.block("up1"), X_case=problem.X[:0], groups_case=problem.groups[:0])
    with pytest.raises(ValueError, match=r"layer 'up1'.*whole-case sample is empty"):
        RankMe().fit(block)


def test_two_voxels():
    assert RankMe().score(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(2.0, rel=1e-12)


def test_noise_is_what_it_likes():
    """Its page says so: labels play no part."""
    problem = make_problem(n_channels=20)
    noise = np.random.default_rng(0).normal(size=problem.X.shape)
    assert RankMe().score(noise) > RankMe().score(problem.X)
