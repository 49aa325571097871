"""GBC: closed forms, range, floors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from skte.estimators import GBC
from skte.exceptions import UnusableClassWarning
from tests.estimator_problems import make_problem


@pytest.mark.parametrize("covariance", ["diagonal", "full", "spherical"])
@pytest.mark.parametrize(("gap", "spread"), [(0.0, 1.0), (1.5, 1.0), (3.0, 0.4), (0.0, 5.0)])
def test_one_channel_equals_the_overlap_integral(covariance, gap, spread):
    """exp(-D_B) is the integral of sqrt(p q)."""
    a = np.array([-1.0, 1.0, -1.0, 1.0])
    X = np.concatenate([a, gap + spread * a])[:, None]
    y = np.repeat([0, 1], 4)
    overlap = quad(lambda t: np.sqrt(norm.pdf(t) * norm.pdf(t, gap, spread)), -60, 60, limit=200)[0]
    assert GBC(covariance=covariance).score(X, y) == pytest.approx(-2 * overlap, rel=1e-7)


def test_independent_channels_multiply():
    """For diagonal Gaussians the overlap is the product over channels."""
    problem = make_problem(n_classes=2, n_channels=4)
    overlaps = [-GBC(n_components=None).score(problem.X[:, [k]], problem.y) / 2 for k in range(4)]
    # The floor of variances is relative to those of all channels: below, none reaches it.
    score = problem.score(GBC(n_components=None, min_variance=1e-300))
    assert score == pytest.approx(-2 * np.prod(overlaps), rel=1e-12)


def test_range():
    y = np.repeat([0, 2, 7, 9], 10)
    rng = np.random.default_rng(0)
    X = np.tile(rng.normal(size=(10, 3)), (4, 1))  # four equal classes
    assert GBC().score(X, y) == pytest.approx(-12, rel=1e-9)
    assert GBC(log=True).score(X, y) == pytest.approx(-np.log(12), rel=1e-9)
    assert -1e-10 < GBC().score(X + 100 * y[:, None], y) <= 0.0


def test_logarithm_does_not_tie_where_the_plain_score_underflows():
    problem = make_problem(n_channels=60, separation=10.0, n_rows=30)
    wider = make_problem(n_channels=60, separation=12.0, n_rows=30)
    assert problem.score(GBC()) == wider.score(GBC()) == 0.0
    assert problem.score(GBC(log=True)) < wider.score(GBC(log=True)) < np.inf


@pytest.mark.parametrize("covariance", ["diagonal", "full", "spherical"])
@pytest.mark.parametrize("n_components", [None, 4])
def test_degenerate_features_stay_finite(covariance, n_components):
    problem = make_problem()
    estimator = GBC(covariance=covariance, n_components=n_components, log=True)
    constant = np.full((len(problem.X), 5), 0.1)
    twice = np.hstack([problem.X, problem.X, constant])
    pure = np.eye(3)[problem.y]  # no spread within classes at all
    assert estimator.score(constant, problem.y) == pytest.approx(-np.log(6))
    assert np.isfinite(estimator.score(twice, problem.y))
    assert 0 < estimator.score(pure, problem.y) < np.inf


@pytest.mark.parametrize("covariance", ["diagonal", "full", "spherical"])
def test_variance_floor_is_relative_to_the_overall_variance(covariance):
    """Point classes a distance g apart: variance g^2 / 4 in all, D_B = g^2 / 8 / floor."""
    X, y = np.array([[0.0], [0.0], [6.0], [6.0]]), np.array([0, 0, 1, 1])
    score = GBC(covariance=covariance, min_variance=0.1, log=True).score(X, y)
    assert score == pytest.approx(36 / 8 / (0.1 * 9) - np.log(2), rel=1e-9)


def test_components_are_clipped_to_the_rank():
    problem = make_problem(n_channels=5)
    assert problem.score(GBC(n_components=64)) == problem.score(GBC(n_components=5))
    assert problem.score(GBC(n_components=2)) != problem.score(GBC(n_components=5))


def test_class_of_a_single_row_warns():
    problem = make_problem()
    y = problem.y.copy()
    y[0] = 9
    with pytest.warns(UnusableClassWarning, match=r"Classes \[9\] have a single row in features"):
        assert np.isfinite(GBC(log=True).score(problem.X, y))
    with pytest.warns(UnusableClassWarning, match="layer 'up1'"):
        GBC().score(problem.of(y=y).block("up1"))


def test_one_class_names_the_remedy():
    with pytest.raises(ValueError, match=r"one class only.*3.*Sample another class"):
        GBC().fit(np.eye(4), [3, 3, 3, 3])
