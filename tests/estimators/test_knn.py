"""KNN: cases left out, ties, classes and cases that are too small."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from skte.estimators import KNN
from skte.exceptions import CollapsedFeaturesWarning, SkteWarning, UnusableClassWarning
from tests.estimator_problems import Problem, make_problem


def test_neighbours_of_the_own_case_do_not_count():
    """Cases far apart, classes swapped between them: the nearest are all of the own case."""
    y, groups = np.tile([0, 1], 20), np.repeat([0, 1], 20)
    X = np.stack([100.0 * groups, np.where(groups == 0, y, 1 - y)], axis=1)
    assert KNN().score(X, y, groups=groups) == 0.0
    assert KNN().score(X, y) == 1.0  # leave one out sees the own case
    X[:, 1] = y
    assert KNN().score(X, y, groups=groups) == 1.0


def test_line_by_hand():
    X = np.array([[0.0], [1.0], [2.1], [10.0]])
    y, groups = np.array([0, 0, 1, 1]), np.arange(4)
    # Nearest two: {1, 2.1}, {0, 2.1}, {1, 0}, {2.1, 1}.
    assert KNN(n_neighbors=2).score(X, y, groups=groups) == pytest.approx(
        (0.5 + (0.0 + 0.5) / 2) / 2
    )


def test_balanced_weighs_classes_and_not_voxels():
    y = np.array([0] * 96 + [1] * 4)
    X = np.random.default_rng(0).normal(size=(100, 1))
    X[y == 1] *= 0.01  # among the others
    by_voxel = KNN(n_neighbors=1, balanced=False).score(X, y)
    assert by_voxel == pytest.approx(np.mean(nearest_hits(X, y)))
    balanced = np.mean([np.mean(nearest_hits(X, y)[y == k]) for k in (0, 1)])
    assert KNN(n_neighbors=1).score(X, y) == pytest.approx(balanced)


def nearest_hits(X, y):
    D = np.abs(X - X.T) + np.diag(np.full(len(X), np.inf))
    return (y[D.argmin(axis=1)] == y).astype(float)


def test_tied_neighbours_share_the_places():
    """Dead channels: half of all rows are zero, whatever their label and order."""
    rng = np.random.default_rng(0)
    problem = make_problem(n_rows=20)
    X = problem.X.copy()
    X[rng.random(len(X)) < 0.5] = 0.0
    scores = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(X))
        permuted = Problem(X[order], problem.y[order], problem.groups[order])
        scores.append(permuted.score(KNN()))
    assert scores == pytest.approx([scores[0]] * 4, rel=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_features_give_the_share_among_other_cases(metric, value):
    problem = make_problem().of(X=np.full((96, 3), value))
    with pytest.warns(CollapsedFeaturesWarning, match=r"layer 'up1'.*same features"):
        score = KNN(metric=metric).score(problem.block("up1"))
    assert score == pytest.approx(1 / 3, rel=1e-12)


def test_cosine_of_a_zero_row_is_that_of_a_right_angle():
    X = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, -1.0], [-1.0, 0.1]])
    y = np.array([0, 0, 1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusableClassWarning)
        # Row 0 is tied with all: 2/3. Row 1 is nearest to class 1. Row 3: to the zero row.
        score = KNN(n_neighbors=1, metric="cosine").score(X, y)
    assert score == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_one_case_is_an_error():
    problem = make_problem(n_cases=1)
    with pytest.raises(ValueError, match=r"layer 'up1': all rows come from one case.*at least two"):
        KNN().fit(problem.block("up1"))


def test_class_of_a_single_case_is_left_out():
    problem = make_problem()
    kept = (problem.y != 2) | (problem.groups == 1)
    part = Problem(problem.X[kept], problem.y[kept], problem.groups[kept])
    with pytest.warns(UnusableClassWarning, match=r"class .*2.* occurs in one case only"):
        score = part.score(KNN())
    assert score > 0.7  # a mean over three classes could not exceed 2/3
    alone = Problem(problem.X[:48], np.repeat([0, 1], 24), np.repeat([0, 1], 24))
    with pytest.raises(ValueError, match="no class occurs in two cases"):
        alone.score(KNN())


def test_fewer_voxels_than_neighbours():
    X, y, groups = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1]), [0, 1, 0, 1]
    with pytest.warns(SkteWarning, match="only 2 voxels in other cases.*n_neighbors=5"):
        assert KNN().score(X, y, groups=groups) == 0.5
    assert KNN(n_neighbors=1).score(X, y, groups=groups) == 1.0


def test_two_voxels():
    with pytest.raises(ValueError, match="no class occurs in two cases"):
        KNN().score(np.array([[0.0], [1.0]]), np.array([0, 1]))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("factor", [1e-300, 1e-150, 1e150, 1e300])
def test_extreme_scales(metric, factor):
    problem = make_problem()
    scaled = problem.of(X=factor * problem.X)
    assert scaled.score(KNN(metric=metric)) == pytest.approx(problem.score(KNN(metric=metric)))


def test_far_from_the_origin():
    """Distances of 1 beside a mean of 1e6, where |a|^2 + |b|^2 - 2 a.b loses 12 digits."""
    problem = make_problem()
    shifted = problem.of(X=problem.X + 1e6)
    assert shifted.score(KNN()) == pytest.approx(problem.score(KNN()))


def test_an_outlier_does_not_make_ties_of_others():
    """Ties are relative to the rows that tie, not to the largest row."""
    problem = make_problem()
    X = problem.X.copy()
    X[0] = 1e8
    expected = problem.score(KNN())
    assert problem.of(X=X).score(KNN()) == pytest.approx(expected, abs=0.05)


def test_subsample_beyond_max_samples():
    problem = make_problem(n_rows=60, separation=0.5)
    whole, part = problem.score(KNN()), problem.score(KNN(max_samples=300))
    assert part != whole
    assert part == pytest.approx(whole, abs=0.1)
    assert problem.score(KNN(max_samples=720)) == whole
    assert KNN(max_samples=300).score(problem.X, problem.y) > 0.5


def test_chunks_do_not_matter(monkeypatch):
    problem = make_problem(n_rows=20)
    expected = problem.score(KNN())
    monkeypatch.setattr("skte.estimators._knn._CHUNK", 1000)
    assert problem.score(KNN()) == pytest.approx(expected, rel=1e-12)


def test_many_classes_and_rank_one():
    y, groups = np.tile(np.arange(200), 3), np.repeat(np.arange(3), 200)
    X = np.outer(y, np.ones(7)) + 0.01 * groups[:, None]
    assert KNN(n_neighbors=2).score(X, y, groups=groups) == 1.0
