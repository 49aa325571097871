"""TransRate: closed forms, class weights, extreme scales."""

from __future__ import annotations

import numpy as np
import pytest

from skte.estimators import TransRate
from tests.estimator_problems import make_problem


def test_one_channel_in_closed_form():
    X, y = np.array([[-2.0], [-2.0], [2.0], [2.0]]), np.array([0, 0, 1, 1])
    # Z_c is not centred again, so that here every class has the rate of the whole.
    assert TransRate().score(X, y) == 0.0
    y = np.array([0, 1, 0, 1])
    X = np.array([[-3.0], [-1.0], [3.0], [1.0]])
    rates = [0.5 * np.log1p(v / 1e-4) for v in (5.0, 9.0, 1.0)]
    expected = rates[0] - (rates[1] + rates[2]) / 2
    assert TransRate().score(X, y) == pytest.approx(expected, rel=1e-12)


def test_orthogonal_classes_in_closed_form():
    """Class c along axis c, balanced signs: each axis holds 1/C of the variance."""
    y = np.repeat(np.arange(3), 4)
    X = np.eye(3)[y] * np.tile([1.0, -1.0], 6)[:, None]
    expected = 1.5 * np.log1p(1 / 3e-4) - 0.5 * np.log1p(1 / 1e-4)
    assert TransRate().score(X, y) == pytest.approx(expected, rel=1e-12)


def test_classes_are_weighted_by_their_rows():
    """Averaging 1/C over classes makes uninformative features look good under imbalance."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4000, 3)), (np.arange(4000) < 60).astype(int)
    assert TransRate().score(X, y) < 0.01


def test_collapsed_and_duplicated_features():
    problem = make_problem()
    for normalize in (None, "trace"):
        assert TransRate(normalize=normalize).score(np.full((96, 3), 0.1), problem.y) == 0.0
        twice = np.hstack([problem.X, problem.X])
        assert np.isfinite(TransRate(normalize=normalize).score(twice, problem.y))


def test_scales_that_overflow_when_squared():
    """Far above the distortion, log(1 + t) is log t: a factor cancels between equal ranks."""
    problem = make_problem()
    huge = problem.of(X=1e160 * problem.X).score(TransRate())
    assert huge == pytest.approx(problem.of(X=1e6 * problem.X).score(TransRate()), rel=1e-6)
    assert problem.of(X=1e-160 * problem.X).score(TransRate()) == 0.0


def test_both_gram_forms_agree():
    """Zero channels make the same features wider than they are many."""
    problem = make_problem()
    wide = np.hstack([problem.X, np.zeros((96, 200))])
    rotated = wide @ np.linalg.qr(np.random.default_rng(0).normal(size=(205, 205)))[0]
    assert TransRate().score(rotated, problem.y) == pytest.approx(
        problem.score(TransRate()), rel=1e-9
    )
