"""PARC: closed forms, ties, constant rows, the subsample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.base import clone

from skte.estimators import KNN, PARC
from skte.exceptions import CollapsedFeaturesWarning
from skte.features import FeatureSet
from tests.estimator_problems import Problem, make_problem


def test_onehot_features_give_one():
    y = make_problem().y
    assert PARC().score(np.eye(3)[y], y) == pytest.approx(1.0, rel=1e-12)
    # Three classes at three distances: half of the list has ties that the other has not.
    uneven = np.eye(3)[y] @ np.array([[1, 5, 2], [7, 1, 1], [0, 2, 9]])
    assert 0.8 < PARC().score(uneven, y) < 0.9


def test_features_of_the_other_grouping_give_less_than_zero():
    """Voxels of a class opposite, those of the other class alike."""
    X = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert PARC().score(X, np.array([0, 0, 1, 1])) == pytest.approx(-0.5, rel=1e-12)


def test_label_ties_are_ties():
    """corrcoef of one-hot rows rounds: spearmanr takes two distances for three or four."""
    problem = make_problem(n_classes=7)
    pairs = np.triu_indices(len(problem.y), 1)
    labels = (1 - np.corrcoef(np.eye(7)[problem.y]))[pairs]
    features = (1 - np.corrcoef(problem.X))[pairs]
    assert len(np.unique(labels)) > 2
    differ = (problem.y[:, None] != problem.y)[pairs]
    assert PARC().score(problem.X, problem.y) == pytest.approx(
        spearmanr(features, differ)[0], rel=1e-9
    )
    assert PARC().score(problem.X, problem.y) != pytest.approx(
        spearmanr(features, labels)[0], rel=0.1
    )


def test_feature_ties_are_ties():
    """Two channels correlate by +1 or -1 up to rounding, which must not break the ties."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 2)), rng.integers(0, 2, 80)
    pairs = np.triu_indices(80, 1)
    sign = X[:, 0] > X[:, 1]
    expected = spearmanr((sign[:, None] != sign)[pairs], (y[:, None] != y)[pairs])[0]
    assert PARC().score(X, y) == pytest.approx(expected, rel=1e-9)


def test_constant_row_is_at_distance_one_from_all():
    X = np.array([[0.0, 1.0, 2.0], [0.1, 0.1, 0.1], [2.0, 1.0, 0.0], [0.0, 1.0, 1.9]])
    y = np.array([0, 0, 1, 1])
    D = np.ones((4, 4))
    rest = [0, 2, 3]
    D[np.ix_(rest, rest)] = 1 - np.corrcoef(X[rest])
    pairs = np.triu_indices(4, 1)
    expected = spearmanr(D[pairs], (y[:, None] != y)[pairs])[0]
    assert PARC().score(X, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "X",
    [
        np.full((96, 3), 0.1),
        np.zeros((96, 3)),
        np.tile([0.3, 1.0, 7.0], (96, 1)),
        np.arange(1.0, 97.0)[:, None],
    ],
    ids=["one-value", "zeros", "one-vector", "one-channel"],
)
def test_collapsed_features(X):
    problem = make_problem().of(X=X)
    with pytest.warns(CollapsedFeaturesWarning, match=r"layer 'up1'.*nothing to correlate"):
        assert PARC().score(problem.block("up1")) == 0.0
    assert PARC().score(X, problem.y) == 0.0


def test_two_voxels_and_classes_of_one():
    assert PARC().score(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])) == 0.0
    problem = make_problem(n_rows=1, n_cases=1, n_classes=4)  # no pair shares a class
    assert PARC().score(problem.X, problem.y) == 0.0


@pytest.mark.parametrize("factor", [1e-300, 1e-150, 1e150, 1e300])
def test_extreme_scales(factor):
    problem = make_problem()
    rows = np.where(np.arange(96) % 2, factor, 1.0)[:, None]
    assert PARC().score(rows * problem.X, problem.y) == pytest.approx(
        PARC().score(problem.X, problem.y), rel=1e-9
    )


def test_wide_rank_one_and_many_classes():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(200), 2)
    assert PARC().score(np.eye(200)[y], y) == pytest.approx(1.0, rel=1e-12)
    rank_one = np.outer(np.where(y % 2, 1.0, -1.0), rng.normal(size=50))
    assert -1.0 <= PARC().score(rank_one, y) <= 1.0
    assert np.isfinite(PARC().score(rng.normal(size=(10, 5000)), y[:10]))


def test_subsample_is_used_beyond_max_samples_alone():
    problem = make_problem(n_rows=40)
    whole = PARC().score(problem.X, problem.y)
    assert PARC(max_samples=480).score(problem.X, problem.y) == whole
    part = PARC(max_samples=200).score(problem.X, problem.y)
    assert part != whole
    assert part == pytest.approx(whole, abs=0.1)
    order = np.random.default_rng(0).permutation(480)
    permuted = Problem(problem.X[order], problem.y[order], problem.groups[order])
    assert permuted.score(PARC(max_samples=200)) == pytest.approx(part, rel=1e-9)


def test_every_class_keeps_a_row():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(500, 4)), rng.choice(3, size=500, p=[0.9, 0.08, 0.02])
    assert np.isfinite(PARC(max_samples=2).score(X, y))


def test_subsample_is_drawn_by_the_seed_and_not_by_size():
    """The mean of many draws is near the score of all: not the smallest rows of each class."""
    problem = make_problem(n_rows=20)
    draws = [PARC(max_samples=60, random_state=s).score(problem.X, problem.y) for s in range(100)]
    assert len(set(draws)) == 100
    assert np.mean(draws) == pytest.approx(PARC().score(problem.X, problem.y), abs=0.02)


@pytest.mark.parametrize("estimator", [PARC(max_samples=60), KNN(max_samples=60)], ids=str)
def test_models_are_compared_at_the_same_voxels_of_named_cases(estimator):
    """Equal up to 0.1 % noise, two models differ far less than another draw does."""
    problem = make_problem(n_rows=40)
    rng = np.random.default_rng(0)
    noisy = [problem.X + 1e-3 * rng.normal(size=problem.X.shape) for _ in range(6)]
    blocks = [problem.of(X=X).block("up") for X in (problem.X, *noisy)]
    sets = [FeatureSet.from_blocks([block]) for block in blocks]
    scores = [clone(estimator).fit(one).score_ for one in sets]
    drawn = [clone(estimator).set_params(random_state=k).fit(sets[0]).score_ for k in range(6)]
    assert np.ptp(scores) < 0.2 * np.ptp(drawn)
    backwards = FeatureSet(sets[0][::-1], name="backwards")
    assert clone(estimator).fit(backwards).score_ == pytest.approx(scores[0], rel=1e-9)


def test_noise_scores_around_zero():
    rng = np.random.default_rng(0)
    assert abs(PARC().score(rng.normal(size=(600, 8)), rng.integers(0, 3, 600))) < 0.01
