"""SFDA: closed forms, uninformative features, extremes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.covariance import ShrunkCovariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from skte.estimators import SFDA
from skte.exceptions import SaturatedScoreWarning
from tests.estimator_problems import make_problem


def entropy(y):
    share = np.unique(y, return_counts=True)[1] / len(y)
    return -(share * np.log(share)).sum()


def test_two_mirrored_classes_in_closed_form():
    """One channel, where shrinkage toward the mean variance does nothing."""
    X = np.array([[-3.0], [-1.0], [1.0], [3.0]])  # means -2 and 2, variance 1 within
    y = np.array([0, 0, 1, 1])

    def log_odds(x, mean, variance):
        return log_softmax([-((x - mean) ** 2) / variance / 2, -((x + mean) ** 2) / variance / 2])

    near, far = (np.exp(log_odds(x, 2.0, 1.0)[0]) for x in (1.0, 3.0))
    moved = np.array([near * 1.0 - (1 - near) * 2.0, far * 3.0 - (1 - far) * 2.0])
    mean, variance = moved.mean(), moved.var()
    expected = np.mean([log_odds(x, mean, variance)[0] for x in moved])
    assert SFDA().score(X, y) == pytest.approx(expected, rel=1e-12)
    assert SFDA(normalize="trace").score(X, y) == pytest.approx(expected, rel=1e-12)


def test_confident_features_are_left_as_they_are():
    """Then the score is close to the log posterior of a shrunk discriminant analysis."""
    problem = make_problem(separation=3.0, seed=3)
    X = problem.X / 3  # a moderate shrinkage
    codes = problem.y
    within = sum(np.mean(codes == k) * np.cov(X[codes == k].T, ddof=0) for k in range(3))
    shrinkage = np.exp(-5 * np.linalg.eigvalsh(within)[-1])
    lda = LinearDiscriminantAnalysis(
        solver="lsqr", covariance_estimator=ShrunkCovariance(shrinkage=shrinkage)
    )
    first = lda.fit(X, codes).predict_log_proba(X)[np.arange(96), codes].mean()
    assert first > -0.05
    # ConfMix makes hard voxels harder, so the second look is no better than the first.
    assert SFDA().score(X, codes) == pytest.approx(first, abs=0.05)
    assert SFDA().score(X, codes) <= first


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.8, 0.1, 0.1], [0.9, 0.05, 0.03, 0.02]])
def test_features_that_know_nothing_give_minus_entropy(shares):
    """The same features in every class: the posterior is the share, all classes meet."""
    pairs = (50 * np.array(shares)).round().astype(int)
    y = np.repeat(np.arange(len(shares)), 2 * pairs)
    X = np.tile([[1.0, 0.3], [-1.0, -0.3]], (pairs.sum(), 1)) + 7.0
    assert SFDA().score(X, y) == pytest.approx(-entropy(y), rel=1e-9)


@pytest.mark.parametrize("normalize", [None, "trace"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e150])
def test_constant_features(value, normalize):
    problem = make_problem().of(X=np.full((96, 3), value))
    with pytest.warns(SaturatedScoreWarning, match="layer 'up1': SFDA"):
        score = SFDA(normalize=normalize).score(problem.block("up1"))
    assert score == pytest.approx(-np.log(3), rel=1e-12)


def test_classes_that_are_points():
    """No spread within classes: told for sure where points differ, by share where not."""
    y = np.repeat([0, 1, 2], [4, 2, 2])
    assert SFDA().score(np.eye(3)[y], y) == 0.0
    merged = np.array([[0.1], [0.7], [0.7]])[y]
    # Classes 1 and 2 share a point, before and after ConfMix: half of the voxels lose log 2.
    for factor in (1.0, 1e150, 1e-150):
        assert SFDA().score(factor * merged, y) == pytest.approx(-0.5 * np.log(2), rel=1e-9)


@pytest.mark.parametrize("factor", [1e150, 1e-150])
def test_extreme_scales(factor):
    """Shrinkage is at its least, or total; in between, the law of scale holds."""
    problem = make_problem()
    limit = 1e4 if factor > 1 else 1e-6
    expected = SFDA().score(limit * problem.X, problem.y)
    assert SFDA().score(factor * problem.X, problem.y) == pytest.approx(expected, rel=1e-6)
    trace = SFDA(normalize="trace").score(factor * problem.X, problem.y)
    assert trace == pytest.approx(SFDA(normalize="trace").score(problem.X, problem.y), rel=1e-9)


def test_wide_noise_saturates():
    """Its page says so: with channels enough, any labels can be told."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 500)), rng.integers(0, 2, 60)
    assert SFDA().score(X, y) == pytest.approx(0.0, abs=1e-6)
    assert SFDA().score(X, y) <= 0.0


def test_rank_one_class_of_one_voxel_and_two_voxels():
    problem = make_problem()
    rank_one = np.outer(problem.X[:, 0], np.arange(1.0, 8.0))
    assert -2.0 < SFDA().score(rank_one, problem.y) < 0.0
    y = np.where(np.arange(96) == 7, 9, problem.y)
    assert -1.5 < SFDA().score(problem.X, y) < 0.0
    assert SFDA().score(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])) == 0.0


def test_many_classes():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(200), 3)
    centres = 10 * rng.normal(size=(200, 30))
    score = SFDA().score(centres[y] + 0.1 * rng.normal(size=(600, 30)), y)
    assert score == pytest.approx(0.0, abs=1e-6)
    noise = SFDA(normalize="trace").score(rng.normal(size=(600, 2)), y)
    assert noise < -4.0


def test_better_features_score_higher():
    problem = make_problem(separation=0.0, n_rows=20)
    scores = [SFDA().score(problem.X + k * np.eye(5)[problem.y], problem.y) for k in (0, 1, 2, 4)]
    assert scores == sorted(scores)
