"""RCFV: what it rewards, classes that share no case, collapse, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from skte import CCFV, RCFV
from skte.exceptions import CollapsedFeaturesWarning, UnusableClassWarning
from skte.features import CaseFeatures, FeatureBlock, FeatureSet
from tests.estimator_problems import Problem, as_feature_set, make_problem


def points(rows: list[tuple[list[float], int, int]]) -> Problem:
    """Problem of (features, class, case): one voxel a class and case is a point mass."""
    return Problem(*(np.array(column) for column in zip(*rows, strict=True)))


class TestByHand:
    def test_two_classes_in_two_cases(self) -> None:
        problem = points(
            [([1.0, 0.0], 0, 0), ([0.0, 1.0], 1, 0), ([4.0, 0.0], 0, 1), ([0.0, 2.0], 1, 1)]
        )
        estimator = RCFV(min_distance=0).fit(problem.X, problem.y, groups=problem.groups)
        [details] = estimator.layer_details_
        assert details["within"] == {0: pytest.approx(3.0), 1: pytest.approx(1.0)}
        assert details["between"] == {(0, 1): pytest.approx((np.sqrt(2) + np.sqrt(20)) / 2)}
        variety = np.sqrt(2)  # in each case, two unit vectors at right angles
        expected = np.log(variety * (np.sqrt(2) + np.sqrt(20)) / 2 / np.sqrt(3))
        assert estimator.score_ == pytest.approx(expected)

    def test_every_row_a_case_of_its_own(self) -> None:
        problem = make_problem(n_rows=5)
        X, y = problem.X, problem.y
        [details] = RCFV().fit(X, y).layer_details_
        for k in np.unique(y):
            within = [np.linalg.norm(a - b) for a, b in itertools.combinations(X[y == k], 2)]
            assert details["within"][k] == pytest.approx(np.mean(within))
        between = [np.linalg.norm(a - b) for a in X[y == 0] for b in X[y == 2]]
        assert details["between"][0, 2] == pytest.approx(np.mean(between))


def test_noise_alike_in_every_case_ranks_last() -> None:
    """What CC-FV rewards: nothing of the anatomy, but the same of it everywhere."""
    rng = np.random.default_rng(0)
    informative = make_problem(n_rows=30, n_channels=8, separation=2.0)
    noise = informative.of(X=rng.normal(size=informative.X.shape))
    assert noise.score(CCFV()) > informative.score(CCFV())
    assert noise.score(RCFV()) < informative.score(RCFV())


def two_voxels_each(problem: Problem) -> Problem:
    """Two equal voxels a class and case: still point masses."""
    return Problem(*(np.repeat(a, 2, axis=0) for a in (problem.X, problem.y, problem.groups)))


def test_classes_that_share_no_case_are_compared_across_cases() -> None:
    problem = two_voxels_each(
        points([([0.0, 1.0], 0, 0), ([0.0, 2.0], 0, 1), ([3.0, 0.0], 1, 2), ([4.0, 0.0], 1, 3)])
    )
    rng = np.random.default_rng(0)
    block = FeatureBlock(
        problem.X,
        problem.y,
        problem.groups,
        X_case=rng.normal(size=(20, 2)),
        groups_case=np.arange(20) % 4,
    )
    estimator = RCFV().fit(block)
    [details] = estimator.layer_details_
    across = [np.hypot(a, b) for a in (1, 2) for b in (3, 4)]
    assert details["between"] == {(0, 1): pytest.approx(np.mean(across))}
    assert np.isfinite(estimator.score_)


def test_class_constant_in_every_case_is_floored() -> None:
    problem = make_problem()
    X = np.where((problem.y == 0)[:, None], 1.0, problem.X)
    block = FeatureBlock(X, problem.y, problem.groups, X_case=problem.X, groups_case=problem.groups)
    estimator = RCFV().fit(block)
    [details] = estimator.layer_details_
    assert details["within"][0] < 1e-6 * details["spread"]
    assert details["spread"] == pytest.approx(np.sqrt(X.var(axis=0).sum()))
    lower = RCFV(min_distance=1e-5).fit(block).score_
    assert lower - estimator.score_ == pytest.approx(np.log(1e3) / 3)
    assert np.isfinite(RCFV(min_distance=0).fit(block).score_)


class TestCollapse:
    def test_constant_features(self) -> None:
        problem = make_problem()
        with pytest.warns(CollapsedFeaturesWarning, match="they collapsed"):
            assert problem.of(X=np.full_like(problem.X, 7.0)).score(RCFV()) == -np.inf

    def test_same_in_every_case(self) -> None:
        problem = make_problem()
        X = np.random.default_rng(0).normal(size=(3, 5))[problem.y]
        with pytest.warns(CollapsedFeaturesWarning, match="the same in every case"):
            assert problem.of(X=X).score(RCFV()) == -np.inf

    def test_resamples_of_collapsed_features_collapse(self) -> None:
        problem = make_problem()
        features = as_feature_set(RCFV(), problem.of(X=np.full_like(problem.X, 7.0)))
        with pytest.warns(CollapsedFeaturesWarning):
            estimator = RCFV().fit(features)
        scores = estimator.resample_cases(features, [[1, 1, 1, 0], [2, 0, 1, 1]])["score"]
        assert (scores == -np.inf).all()


class TestRefusals:
    def test_single_class(self) -> None:
        problem = make_problem(n_classes=1)
        with pytest.raises(ValueError, match="class"):
            problem.score(RCFV())

    def test_no_class_in_two_cases(self) -> None:
        problem = make_problem(n_classes=2, n_cases=2)
        problem = problem.of(y=problem.groups)
        with pytest.raises(ValueError, match="no class is present in two cases"):
            problem.score(RCFV())

    def test_class_in_one_case_is_named_and_still_separates(self) -> None:
        problem = make_problem()
        kept = (problem.y != 2) | (problem.groups == 0)
        part = Problem(problem.X[kept], problem.y[kept], problem.groups[kept])
        with pytest.warns(UnusableClassWarning, match=r"classes \[2\]"):
            estimator = RCFV().fit(part.X, part.y, groups=part.groups)
        [details] = estimator.layer_details_
        assert set(details["within"]) == {0, 1}
        assert set(details["between"]) == {(0, 1), (0, 2), (1, 2)}

    def test_one_voxel_a_case(self) -> None:
        problem = make_problem()
        block = FeatureBlock(
            problem.X, problem.y, problem.groups, X_case=problem.X[::24], groups_case=np.arange(4)
        )
        with pytest.raises(ValueError, match=r"no case has two voxels.*samples='all'"):
            RCFV().fit(block)

    def test_negative_floor(self) -> None:
        with pytest.raises(ValueError, match="min_distance"):
            make_problem().score(RCFV(min_distance=-1.0))


class TestResamples:
    @pytest.fixture
    def features(self) -> FeatureSet:
        return as_feature_set(RCFV(), make_problem(seed=0), make_problem(seed=1, n_channels=40))

    def test_two_copies_of_a_case_are_no_pair_of_cases(self, features: FeatureSet) -> None:
        """Written out over the drawn cases."""
        weights = np.array([3, 0, 1, 1])
        estimator = RCFV().fit(features)
        [score] = estimator.resample_cases(features, [weights])["score"]
        draw = np.repeat(np.arange(4), weights)
        copies = FeatureSet(
            CaseFeatures(f"{features[int(case)].case_id}-{copy}", features[int(case)].layers)
            for copy, case in enumerate(draw)
        )
        variety = CCFV(class_consistency=False, layer_reduction="last")
        drawn = variety.fit(copies).score_
        for details in estimator.layer_details_:
            cells: dict[tuple[int, int], list[float]] = {}
            for (i, j), (k, m), value in zip(
                details["pairs"], details["class_pairs"], details["pair_distances"], strict=True
            ):
                times = weights[i] if i == j else weights[i] * weights[j]
                cells.setdefault((k, m), []).extend([value] * times)
            logs = {cell: np.log(np.mean(values)) for cell, values in cells.items()}
            between = np.mean([v for (k, m), v in logs.items() if k != m])
            within = np.mean([v for (k, m), v in logs.items() if k == m])
            ratio = between - within  # of the last layer, in the end
        assert score == pytest.approx(ratio + drawn)

    def test_one_case_has_no_distance_within_classes(self, features: FeatureSet) -> None:
        estimator = RCFV().fit(features)
        assert np.isnan(estimator.resample_cases(features, [[4, 0, 0, 0]])["score"]).all()
