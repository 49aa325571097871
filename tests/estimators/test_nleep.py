"""NLEEP: limits, the canonical order, too few voxels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.decomposition import PCA

from skte.estimators import NLEEP
from skte.exceptions import SaturatedScoreWarning
from tests.estimator_problems import Problem, make_problem


def entropy(y):
    share = np.unique(y, return_counts=True)[1] / len(y)
    return -(share * np.log(share)).sum()


def test_separate_clusters_give_zero():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 3, 9], 60)
    X = 0.1 * rng.normal(size=(180, 4)) + 100 * rng.normal(size=(3, 4))[np.repeat([0, 1, 2], 60)]
    assert NLEEP().score(X, y) == pytest.approx(0.0, abs=1e-9)
    assert NLEEP(n_components_per_class=1).score(X, y) == pytest.approx(0.0, abs=1e-9)


def test_one_component_knows_nothing():
    """Rounding up the share to one axis, and one component for two tiny classes."""
    y = np.array([0, 0, 1])
    with pytest.warns(SaturatedScoreWarning, match=r"3 distinct voxels.*fits 1"):
        score = NLEEP().score(np.array([[0.0], [1.0], [2.0]]), y)
    assert score == pytest.approx(-entropy(y), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e150])
def test_constant_features_give_minus_entropy(value):
    problem = make_problem().of(X=np.full((96, 3), value))
    with pytest.warns(SaturatedScoreWarning, match=r"layer 'up1': NLEEP is -1\.099"):
        score = NLEEP().score(problem.block("up1"))
    assert score == pytest.approx(-np.log(3), rel=1e-12)


def test_few_voxels_reduce_the_components():
    problem = make_problem(n_rows=2, n_cases=2)
    with pytest.warns(SaturatedScoreWarning, match=r"layer 'up1': 12 distinct.*15 components.*6"):
        score = NLEEP().score(problem.block("up1"))
    assert -np.log(3) <= score <= 0.0


def test_coinciding_voxels_count_once():
    """Copies of six features cannot hold more than three components."""
    y = np.tile([0, 1], 60)
    X = np.tile(np.arange(6.0), 20)[:, None] ** 2
    with pytest.warns(SaturatedScoreWarning, match="6 distinct voxels.*fits 3"):
        score = NLEEP().score(X, y)
    assert -np.log(2) - 1e-12 <= score <= 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_order_of_rows_does_not_matter(covariance, seed):
    problem = make_problem(seed=seed, n_rows=20, separation=0.7)
    order = np.random.default_rng(seed).permutation(240)
    permuted = Problem(problem.X[order], problem.y[order], problem.groups[order])
    estimator = NLEEP(covariance=covariance)
    assert permuted.score(estimator) == pytest.approx(problem.score(estimator), rel=1e-9)


def test_seed_matters():
    problem = make_problem(n_rows=20, separation=0.5)
    assert problem.score(NLEEP(random_state=1)) != problem.score(NLEEP())


@pytest.mark.parametrize("factor", [1e-300, 1e-150, 1e150, 1e300])
def test_extreme_scales(factor):
    problem = make_problem()
    scaled = NLEEP().score(factor * problem.X, problem.y)
    assert scaled == pytest.approx(NLEEP().score(problem.X, problem.y), rel=1e-9)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_wide_and_rank_deficient_features_stay_finite(covariance):
    rng = np.random.default_rng(0)
    problem = make_problem()
    wide = rng.normal(size=(96, 500))
    rank_two = problem.X[:, :2] @ rng.normal(size=(2, 50))
    for X in (wide, rank_two, np.outer(problem.X[:, 0], np.ones(9))):
        for variance in (0.8, 1.0):
            score = NLEEP(covariance=covariance, variance=variance).score(X, problem.y)
            assert -np.log(3) - 1e-9 <= score <= 0.0


def test_many_classes_and_a_class_of_one_voxel():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(200), 2)
    with pytest.warns(SaturatedScoreWarning, match="400 distinct voxels.*1000 components.*200"):
        score = NLEEP(covariance="diag").score(rng.normal(size=(400, 3)), y)
    assert -np.log(200) <= score <= 0.0
    y = np.where(np.arange(100) == 7, 5, np.arange(100) % 2)
    assert np.isfinite(NLEEP().score(rng.normal(size=(100, 3)), y))


def test_two_voxels():
    with pytest.warns(SaturatedScoreWarning):
        assert NLEEP().score(np.eye(2), np.array([0, 1])) == pytest.approx(-np.log(2))


def test_healthy_features_leak_no_warning_of_convergence():
    problem = make_problem(n_rows=40, separation=0.5, n_channels=12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(problem.score(NLEEP()))


@pytest.mark.parametrize("n_channels", [5, 150])
def test_principal_coordinates_are_those_of_pca(n_channels):
    problem = make_problem(n_channels=n_channels, separation=0.2)
    T = PCA(0.6, svd_solver="full").fit_transform(problem.X)
    settings = {"n_components_per_class": 2, "covariance": "diag"}
    expected = NLEEP(variance=1.0, **settings).score(T, problem.y)
    score = NLEEP(variance=0.6, **settings).score(problem.X, problem.y)
    assert score == pytest.approx(expected, rel=1e-5)
    whole = NLEEP(variance=1.0, **settings).score(problem.X, problem.y)
    assert score != pytest.approx(whole, rel=1e-2)
