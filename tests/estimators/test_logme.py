"""LogME where known implementations go wrong, and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import DataConversionWarning

from skte.estimators import LogME
from tests.estimator_problems import make_problem


def evidence(X, y, alpha, beta):
    """The evidence per sample as printed in the paper, with d terms in the determinant."""
    n, d = X.shape
    A = alpha * np.eye(d) + beta * X.T @ X
    m = beta * np.linalg.solve(A, X.T @ y)
    value = n / 2 * np.log(beta) + d / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
    value -= beta / 2 * np.sum((X @ m - y) ** 2) + alpha / 2 * m @ m
    return (value - np.linalg.slogdet(A)[1] / 2) / n


@pytest.mark.parametrize(("n", "d"), [(40, 3), (30, 30), (20, 60)])
def test_no_alpha_and_beta_do_better(n, d):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, d)), rng.normal(size=n)
    best = LogME().score(X, y)
    grid = np.exp(np.linspace(-8, 8, 41))
    values = [evidence(X, y, alpha, beta) for alpha in grid for beta in grid]
    assert max(values) <= best + 1e-9
    assert best == pytest.approx(max(values), abs=0.01)


def test_more_channels_than_voxels_keep_the_null_directions():
    """Without (d - r) log alpha in the determinant this came out near +26."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 1000)), np.tile([0, 1], 25)
    assert -1.5 < LogME().score(X, y) < 0.0


def test_one_feature_in_closed_form():
    """Noise only (alpha -> inf): the evidence of a zero-mean Gaussian."""
    y = np.array([0.5, -0.5, 0.5, -0.5])
    X = np.ones((4, 1))  # orthogonal to y
    expected = -0.5 * np.log(2 * np.pi * 0.25) - 0.5
    assert LogME().score(X, y) == pytest.approx(expected, rel=1e-12)
    assert LogME().score(np.zeros((4, 1)), y) == pytest.approx(expected, rel=1e-12)


def test_two_maxima_give_the_higher_one():
    """A strong direction fits a little, a weak one a lot: the evidence has two tops."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    for weak in (0.5, 1.0, 2.0, 4.0):
        X = Q[:, :12] * np.array([1e4, *[1e-2] * 11])
        y = Q[:, :12] @ np.array([3.0, *[weak] * 11]) + 0.5 * Q[:, 12:].sum(axis=1)
        ratio = np.exp(np.linspace(-20, 25, 2001))
        # Given alpha / beta, beta = n / (penalised residual); as in the paper's eq. (4).
        s, z = np.array([1e8, *[1e-4] * 11]), np.array([3.0, *[weak] * 11]) ** 2
        Q_r = (z / (1 + s / ratio[:, None])).sum(axis=1) + 0.25 * 28
        profile = -np.log1p(s / ratio[:, None]).sum(axis=1) / 80 - 0.5 * np.log(Q_r / 40)
        expected = profile.max() - 0.5 * np.log(2 * np.pi) - 0.5
        assert LogME().score(X, y) == pytest.approx(expected, abs=1e-4)
        assert LogME().score(X, y) >= expected - 1e-12


def test_both_decompositions_agree():
    """The Gram form gives way to a factor where features are ill-conditioned."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6))
    y = 0.5 * np.sign(X[:, 0] + rng.normal(size=200))  # whole numbers would be classes
    expected = LogME().score(X, y)
    nearly_double = np.hstack([X, X + 1e-12 * rng.normal(size=X.shape)])
    assert LogME().score(nearly_double, y) == pytest.approx(expected, rel=1e-6)
    rotated = X @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert LogME().score(rotated, y) == pytest.approx(expected, rel=1e-12)


def test_small_informative_beside_large_useless_channel():
    """Squaring features would lose the second channel to rounding."""
    rng = np.random.default_rng(0)
    useless, signal = rng.normal(size=(2, 300))
    y = signal + 0.1 * rng.normal(size=300)
    X = np.stack([1e9 * useless, signal], axis=1)
    assert LogME().score(X, y) > LogME().score(X[:, :1], y) + 1.0


@pytest.mark.parametrize("n_channels", [3, 50])
def test_perfectly_fitted_target_is_finite_and_high(n_channels):
    problem = make_problem()
    X = np.eye(3)[problem.y] @ np.random.default_rng(0).normal(size=(3, n_channels))
    score = LogME().score(X, problem.y)
    assert np.isfinite(score)
    assert score > problem.score(LogME()) + 5


def test_constant_and_zero_features_are_finite():
    y = np.tile([0, 1], 20)
    assert np.isfinite(LogME().score(np.ones((40, 4)), y))
    assert np.isfinite(LogME().score(np.zeros((40, 4)), y))
    # A constant fits the mean of each indicator, zero fits nothing.
    assert LogME().score(np.ones((40, 4)), y) > LogME().score(np.zeros((40, 4)), y)


def test_score_is_the_mean_over_classes_present():
    problem = make_problem()
    Y = np.eye(3)[problem.y]
    # Halves are targets of a regression; a target scaled by c loses log c.
    halves = [LogME().score(problem.X, Y[:, k] / 2) for k in range(3)]
    expected = np.mean(halves) - np.log(2)
    assert problem.score(LogME()) == pytest.approx(expected, rel=1e-12)
    assert LogME().score(problem.X, Y) == pytest.approx(expected, rel=1e-12)
    assert LogME().score(problem.X, Y.astype(int)) == pytest.approx(expected, rel=1e-12)


def test_regression_targets():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    Y = X @ rng.normal(size=(4, 2)) + 0.1 * rng.normal(size=(60, 2))
    each = [LogME().score(X, Y[:, t]) for t in range(2)]
    assert LogME().score(X, Y) == pytest.approx(np.mean(each), rel=1e-12)
    assert LogME().fit(X, Y).score_ > LogME().score(X, rng.permutation(Y))


def test_whole_numbers_are_classes_however_stored():
    problem = make_problem()
    expected = problem.score(LogME())
    assert LogME().score(problem.X, problem.y.astype(float)) == expected
    with pytest.warns(DataConversionWarning, match="column-vector"):
        assert LogME().score(problem.X, problem.y[:, None]) == expected


def test_unusable_targets():
    problem = make_problem()
    with pytest.raises(ValueError, match=r"column\(s\) \[1\] are zero everywhere"):
        LogME().score(problem.X, np.stack([problem.X[:, 0], 0 * problem.X[:, 0]], axis=1))
    with pytest.raises(ValueError, match=r"'multiclass-multioutput'.*indicator"):
        LogME().fit(problem.X, np.stack([problem.y, problem.y + 1], axis=1))
    with pytest.raises(ValueError, match="one class only"):
        LogME().fit(problem.X, np.full(len(problem.y), 3))


def test_huge_targets():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2, 30, 3))
    expected = LogME().score(X, y) - 200 * np.log(10)
    with np.errstate(invalid="ignore"):  # scikit-learn asks whether they are whole numbers
        huge = LogME().score(X, 1e200 * y)
    assert huge == pytest.approx(expected, rel=1e-10)
