"""CC-FV: equations, collapsed layers, cases and classes that cannot be used."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from skte.estimators import CCFV
from skte.exceptions import CollapsedFeaturesWarning, SkteWarning, UnusableClassWarning
from skte.features import FeatureBlock, FeatureSet
from tests.estimator_problems import Problem, make_problem

LITERAL = {"normalize": None, "min_distance": 1e-12}


def consistency(problem: Problem, **params) -> float:
    """C_cons, by its own."""
    score = problem.score(CCFV(feature_variety=False, **params))
    return float(np.exp(-score))


def test_point_masses_are_at_their_euclidean_distance():
    """One voxel of the class in every case: W2 is the distance of the voxels."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 4))
    problem = Problem(X, np.ones(6, dtype=int), np.arange(6))
    assert consistency(problem, normalize=None) == pytest.approx(pdist(X).mean(), rel=1e-12)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    assert consistency(problem) == pytest.approx(pdist(unit).mean(), rel=1e-12)


def test_point_mass_against_a_gaussian():
    """W2^2 to a point is the squared distance of the means plus the trace."""
    rng = np.random.default_rng(0)
    many, one = rng.normal(size=(20, 3)), np.array([[1.0, 2.0, 3.0]])
    problem = Problem(np.vstack([many, one]), np.ones(21, int), np.repeat([0, 1], [20, 1]))
    expected = np.sum((many.mean(axis=0) - one) ** 2) + many.var(axis=0, ddof=1).sum()
    assert consistency(problem, normalize=None) == pytest.approx(np.sqrt(expected), rel=1e-9)


def test_commuting_covariances_in_closed_form():
    """W2^2 = |mu - nu|^2 + sum (sigma - tau)^2 for Gaussians with common axes."""
    corners = np.array([[a, b] for a in (-1, 1) for b in (-1, 1)], dtype=float)
    sigma, tau, gap = np.array([1.0, 3.0]), np.array([2.0, 0.5]), np.array([4.0, -1.0])
    problem = Problem(
        np.vstack([corners * sigma, corners * tau + gap]), np.ones(8, int), np.repeat([0, 1], 4)
    )
    expected = gap @ gap + 4 / 3 * np.sum((sigma - tau) ** 2)  # 4 / 3: ddof 1
    assert consistency(problem, normalize=None) == pytest.approx(np.sqrt(expected), rel=1e-12)


def test_consistency_is_a_sum_over_classes_without_background():
    problem = make_problem(n_classes=4)
    each = []
    for k in range(4):
        rows = problem.y == k
        alone = Problem(problem.X[rows], problem.y[rows], problem.groups[rows])
        each.append(consistency(alone, background=None))
    assert consistency(problem) == pytest.approx(sum(each[1:]), rel=1e-12)
    assert consistency(problem, background=None) == pytest.approx(sum(each), rel=1e-12)
    assert consistency(problem, background=3) == pytest.approx(sum(each[:3]), rel=1e-12)


def test_variety_of_known_vectors():
    """Four corners of a square in each case; mean over ordered pairs, then over cases."""
    corners = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    problem = Problem(np.vstack([corners, corners]), np.tile([0, 1], 4), np.repeat([0, 1], 4))
    for s in (0.5, 1.0, 3.0):
        energy = (8 * np.sqrt(2) ** -s + 4 * 2.0**-s) / 12
        score = problem.score(CCFV(class_consistency=False, s=s))
        assert score == pytest.approx(-np.log(energy), rel=1e-12)


def test_variety_is_independent_of_the_sample_size():
    """A mean, not a sum, over pairs: larger samples do not score lower."""
    rng = np.random.default_rng(0)
    scores = []
    for n in (200, 2000):
        X = rng.normal(size=(2 * n, 8))
        problem = Problem(X, rng.integers(0, 2, 2 * n), np.repeat([0, 1], n))
        scores.append(problem.score(CCFV(class_consistency=False)))
    assert scores[0] == pytest.approx(scores[1], abs=0.01)


@pytest.mark.parametrize("s", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("params", [{"normalize": None}, LITERAL])
def test_energy_over_blocks_of_pairs(s, params):
    """More rows than one block of distances, in the fast and in the exact form."""
    rng = np.random.default_rng(0)
    X = 0.01 * rng.normal(size=(1100, 3))
    X[7] = X[1050] * (1 + 1e-9)  # near duplicates, in different blocks
    groups = np.repeat([0, 1], [1060, 40])
    problem = Problem(X, np.ones(1100, int), groups)
    floor = params.get("min_distance", 0.01) * np.sqrt(np.mean(np.sum(X**2, axis=1)))
    inverse = []
    for k in range(2):
        D = np.maximum(pdist(X[groups == k]), floor)
        inverse.append(1 / np.mean(-np.log(D) if s == 0 else D**-s))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapsedFeaturesWarning)
        score = problem.score(CCFV(class_consistency=False, s=s, **params))
    assert score == pytest.approx(np.log(np.mean(inverse)), rel=1e-7)


def test_whole_case_sample_serves_variety_only():
    problem, case = make_problem(), make_problem(seed=1)
    block = FeatureBlock(problem.X, problem.y, problem.groups, case.X, case.groups)
    expected = problem.score(CCFV(feature_variety=False))
    expected += case.score(CCFV(class_consistency=False))
    assert CCFV().score(block) == pytest.approx(expected, rel=1e-12)


def test_class_missing_from_a_case_is_averaged_over_its_pairs():
    problem = make_problem()
    kept = ~((problem.y == 2) & (problem.groups == 0))
    problem = Problem(problem.X[kept], problem.y[kept], problem.groups[kept])
    each = []
    for k in (1, 2):
        rows = problem.y == k
        each.append(consistency(Problem(problem.X[rows], problem.y[rows], problem.groups[rows])))
    assert consistency(problem) == pytest.approx(sum(each), rel=1e-12)


def test_class_in_one_case_is_left_out_with_a_warning():
    problem = make_problem()
    kept = ~((problem.y == 2) & (problem.groups != 0))
    problem = Problem(problem.X[kept], problem.y[kept], problem.groups[kept])
    with pytest.warns(UnusableClassWarning, match=r"classes \[2\].*fewer than two cases"):
        score = consistency(problem)
    rows = problem.y == 1
    alone = consistency(Problem(problem.X[rows], problem.y[rows], problem.groups[rows]))
    assert score == pytest.approx(alone, rel=1e-12)


def test_unusable_cases_and_classes():
    problem = make_problem()
    with pytest.raises(ValueError, match=r"one case.*at least two"):
        problem.of(groups=np.zeros_like(problem.groups)).score(CCFV())
    with pytest.raises(ValueError, match=r"every label is background=0.*background=None"):
        problem.of(y=np.zeros_like(problem.y)).score(CCFV())
    with pytest.raises(ValueError, match=r"in fewer than two cases: \[1, 2, 3, 4\]"):
        problem.of(y=problem.groups + 1).score(CCFV())
    with pytest.raises(ValueError, match="both False"):
        problem.score(CCFV(class_consistency=False, feature_variety=False))
    with pytest.raises(ValueError, match=r"too many pairs.*groups="):
        CCFV().score(np.ones((10_001, 1)), np.ones(10_001, int))


def test_cases_of_one_voxel():
    problem = make_problem()
    groups = problem.groups.copy()
    groups[0] = 99
    with pytest.warns(UnusableClassWarning, match="1 of 5 cases have a single voxel"):
        score = problem.of(groups=groups).score(CCFV())
    assert np.isfinite(score)
    with pytest.raises(ValueError, match="no case has two voxels"):
        problem.of(groups=np.arange(96)).score(CCFV())


@pytest.mark.parametrize("normalize", ["l2", None])
def test_collapsed_features_rank_last(normalize):
    problem = make_problem()
    rng = np.random.default_rng(0)
    constant = np.tile(problem.X[0], (96, 1))
    mostly = np.where(rng.random((96, 1)) < 0.8, constant, problem.X)
    estimator = CCFV(normalize=normalize)
    for X in (constant, mostly, np.zeros((96, 5)), constant + 1e-9 * problem.X):
        with pytest.warns(CollapsedFeaturesWarning, match="collapsed, and the score is -inf"):
            assert problem.of(X=X).score(estimator) == -np.inf


def test_one_dimensional_features_collapse_on_the_sphere():
    """All that is left of them is a sign: half of the pairs, or more, coincide."""
    problem = make_problem()
    for X in (problem.X[:, :1], np.outer(problem.X[:, 0], np.ones(5))):
        with pytest.warns(CollapsedFeaturesWarning):
            assert problem.of(X=np.abs(X)).score(CCFV()) == -np.inf
        with pytest.warns(SkteWarning, match="variety rests on that floor"):
            assert problem.of(X=X - X.mean()).score(CCFV()) < problem.score(CCFV()) - 1


def test_some_pairs_on_the_floor_warn():
    problem = make_problem()
    X = problem.X.copy()
    X[problem.groups == 0] = np.where(problem.y[problem.groups == 0, None] == 0, 0.0, X[:24])
    with pytest.warns(SkteWarning, match="variety rests on that floor") as caught:
        assert np.isfinite(problem.of(X=X).score(CCFV()))
    assert not any(issubclass(one.category, CollapsedFeaturesWarning) for one in caught)


def test_collapsed_layer_makes_the_mean_minus_infinity():
    healthy, collapsed = make_problem(), make_problem().of(X=np.ones((96, 5)))
    blocks = [healthy.block("up0"), collapsed.block("up1")]
    with pytest.warns(CollapsedFeaturesWarning, match="'up1'"):
        fitted = CCFV().fit(FeatureSet.from_blocks(blocks))
    assert fitted.score_ == -np.inf
    assert np.isfinite(fitted.layer_scores_[0])


def test_more_collapsed_never_wins():
    """The released code takes the logarithm of the inverse ratio: there, collapse wins."""
    problem = make_problem(n_channels=8, separation=3.0)
    centre = problem.X.mean(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapsedFeaturesWarning)
        healthy = problem.score(CCFV())
        collapsed = [
            problem.of(X=centre + t * (problem.X - centre)).score(CCFV()) for t in (0, 1e-4)
        ]
    assert max(collapsed) == -np.inf < healthy


def test_logarithmic_energy_must_be_positive():
    problem = make_problem(separation=5.0)
    with pytest.raises(ValueError, match=r"logarithmic energy of case 0.*Use s > 0"):
        problem.score(CCFV(s=0.0, normalize=None))


@pytest.mark.parametrize("distance", ["kl", "bhattacharyya"])
def test_inverting_distances_need_spread(distance):
    problem = make_problem()
    for_points = Problem(problem.X, problem.y, None)
    with pytest.raises(ValueError, match=r"point mass.*distance='wasserstein'"):
        CCFV(distance=distance).score(for_points.X, for_points.y)
    wide = make_problem(n_channels=20)  # singular covariances, where the ridge decides
    assert np.isfinite(wide.score(CCFV(distance=distance)))


@pytest.mark.parametrize("exponent", [60, -60, 90, -90, 150, -150])
def test_literal_features_are_scored_right_or_refused(exponent):
    problem = make_problem()
    estimator = CCFV(normalize=None)
    scaled = problem.of(X=10.0**exponent * problem.X)
    if abs(exponent) > 100:
        with pytest.raises(ValueError, match=r"cannot be squared.*normalize='l2'"):
            scaled.score(estimator)
        return
    try:
        score = scaled.score(estimator)
    except ValueError as error:
        assert "cannot be squared" in str(error)  # noqa: PT017 - either is right
    else:
        assert score == pytest.approx(problem.score(estimator), rel=1e-9)


def test_consistent_features_beat_shifted_ones():
    problem = make_problem(n_cases=6, n_rows=20)
    shift = np.random.default_rng(0).normal(size=(6, 5))
    scores = [problem.of(X=problem.X + t * shift[problem.groups]).score(CCFV()) for t in (0, 2, 8)]
    assert scores == sorted(scores, reverse=True)
