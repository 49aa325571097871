"""Scores from moments are those of the features, also when voxels stream."""

import tracemalloc

import numpy as np
import pytest

from skte.estimators import CCFV, GBC, HScore, LogME, TransRate, h_score
from skte.features import ClassMoments
from tests.estimator_problems import make_problem

SCORES = [
    LogME(),
    GBC(),
    GBC(covariance="full", n_components=3),
    GBC(covariance="spherical", n_components=None),
    TransRate(),
    TransRate(normalize="trace"),
    HScore(),
]
each = pytest.mark.parametrize("estimator", SCORES, ids=str)


@each
@pytest.mark.parametrize("factor", [1.0, 1e150])
def test_features_in_parts_give_the_same_score(estimator, factor):
    if isinstance(estimator, TransRate) and estimator.normalize is None and factor != 1:
        estimator = TransRate(eps=1e-4 * factor**2)
    problem = make_problem(n_rows=40)
    X, y = problem.X * factor, problem.y
    parts = [ClassMoments.from_arrays(X[i::3], y[i::3]) for i in range(3)]
    moments = parts[0].merge(parts[1]).merge(parts[2])
    assert estimator.fit(moments).score_ == pytest.approx(estimator.fit(X, y).score_, rel=1e-9)
    assert estimator.score(moments) == estimator.fit(moments).score_


@each
def test_ill_conditioned_features_stay_close(estimator):
    """Squared, the two channels are one up to rounding."""
    problem = make_problem(n_rows=40, n_channels=5)
    X = np.column_stack([problem.X, problem.X[:, 0] + 1e-9 * problem.X[:, 1]])
    moments = ClassMoments.from_arrays(X, problem.y)
    assert estimator.score(moments) == pytest.approx(estimator.score(X, problem.y), rel=1e-2)


def test_memory_does_not_grow_with_voxels():
    rng = np.random.default_rng(0)
    peaks = []
    for n_parts in (2, 8):
        moments = None
        tracemalloc.start()
        for _ in range(n_parts):
            X, y = rng.normal(size=(20_000, 16)), rng.integers(0, 3, 20_000)
            part = ClassMoments.from_arrays(X, y)
            moments = part if moments is None else moments.merge(part)
        LogME().fit(moments)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_scores_of_single_voxels_refuse_moments():
    problem = make_problem()
    moments = ClassMoments.from_arrays(problem.X, problem.y)
    with pytest.raises(ValueError, match="CCFV cannot be computed from moments"):
        CCFV().fit(moments)
    with pytest.raises(ValueError, match="HScore cannot be computed from moments"):
        HScore(shrinkage="ledoit-wolf").fit(moments)


@each
def test_one_class_is_refused(estimator):
    moments = ClassMoments.from_arrays(np.eye(3), np.zeros(3), name="up1")
    with pytest.raises(ValueError, match="layer 'up1' hold one class only"):
        estimator.fit(moments)


def test_h_score_limits():
    y = np.repeat([0, 2, 7], 20)
    points = np.eye(3)[np.repeat([0, 1, 2], 20)]
    assert h_score(points, y) == pytest.approx(2.0)
    assert h_score(np.ones((60, 3)), y) == 0.0
    noise = np.random.default_rng(0).normal(size=(60, 100))
    assert h_score(noise, y) == pytest.approx(2.0)  # more channels than voxels
    assert h_score(noise, y, shrinkage="ledoit-wolf") < 1.0
    assert 0 < h_score(noise[:, :3], y) < 2.0


def test_h_score_warns_at_its_ceiling():
    y = np.repeat([0, 1], 10)
    noise = np.random.default_rng(0).normal(size=(20, 50))
    with pytest.warns(UserWarning, match=r"ceiling C - 1 = 1.*ledoit-wolf"):
        HScore().fit(noise, y)
