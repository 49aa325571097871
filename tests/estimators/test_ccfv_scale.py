"""CC-FV: memory, extremes, diagnosis."""

import tracemalloc
import warnings

import numpy as np
import pytest

from skte import CCFV, FeatureBlock, FeatureSet
from skte.estimators import Diagnosis
from skte.features import CaseFeatures, LayerSample
from tests.estimator_problems import make_problem


def test_energy_needs_memory_for_a_block_of_distances_alone():
    X = np.random.default_rng(0).normal(size=(4000, 8))
    tracemalloc.start()
    CCFV(class_consistency=False).fit(X, np.arange(4000) % 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * 8 * len(X) ** 2


class TestExtremes:
    def test_coincident_vectors_without_a_floor(self):
        problem = make_problem()
        doubled = problem.of(
            X=np.tile(problem.X, (2, 1)),
            y=np.tile(problem.y, 2),
            groups=np.tile(problem.groups, 2),
        )
        with pytest.warns(UserWarning, match="infinite energy"):
            assert doubled.score(CCFV(min_distance=0.0)) == -np.inf

    def test_a_power_that_overflows(self):
        with pytest.warns(UserWarning, match="infinite energy"):
            assert make_problem().score(CCFV(s=1000.0)) == -np.inf

    def test_only_background(self):
        problem = make_problem()
        with pytest.raises(ValueError, match="every label is background=0"):
            problem.of(y=np.zeros_like(problem.y)).score(CCFV())

    def test_groups_of_mixed_types(self):
        problem = make_problem()
        groups = problem.groups.astype(object)
        groups[:10] = "a"
        with pytest.raises(ValueError, match="groups of different types"):
            problem.of(groups=groups).score(CCFV())


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e6])
@pytest.mark.parametrize("params", [{}, {"normalize": None}])
def test_identical_cases_collapse_whatever_rounding_says(offset, params):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)) + offset, np.arange(60) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = [
            CCFV(**params).score(
                np.concatenate([X, X[order]]),
                np.concatenate([y, y[order]]),
                groups=np.repeat([0, 1], 60),
            )
            for order in (np.arange(60), rng.permutation(60))
        ]
    assert scores == [-np.inf, -np.inf]


def test_labels_and_cases_in_object_arrays():
    problem = make_problem()
    names = np.array(["bg", "liver", "tumour"], dtype=object)
    cases = np.array(["a", "b", "c", "d"], dtype=object)
    named = problem.of(y=names[problem.y], groups=cases[problem.groups])
    assert named.score(CCFV(background="bg")) == pytest.approx(problem.score(CCFV()), rel=1e-12)


def test_an_empty_whole_case_sample():
    problem = make_problem()
    block = FeatureBlock(problem.X, problem.y, problem.groups, problem.X[:0], problem.groups[:0])
    with pytest.raises(ValueError, match=r"whole-case sample is empty.*feature_variety=False"):
        CCFV().fit(block)
    assert np.isfinite(CCFV(feature_variety=False).fit(block).score_)


class TestDiagnosis:
    def features(self, broken):
        """Ten cases, one of them broken by `broken(X, y)`."""
        rng = np.random.default_rng(0)
        cases = []
        for i in range(10):
            y = np.repeat([0, 1, 2], 30)
            X = rng.normal(size=(90, 6)) + 4 * np.eye(6)[y]
            if i == 7:
                X, y = broken(X, y)
            cases.append(CaseFeatures(f"pat{i}", {"up": LayerSample(X, y, X)}))
        return FeatureSet(cases)

    @pytest.mark.parametrize(
        "broken",
        [
            lambda X, y: (X, np.array([0, 2, 1])[y]),  # labels swapped
            lambda X, y: (X + 6 * np.eye(6)[5], y),  # another scanner
        ],
    )
    def test_outlying_case_is_named_first(self, broken):
        diagnosis = CCFV().fit(self.features(broken)).diagnose()
        assert diagnosis.cases[0].case == "pat7"
        assert diagnosis.cases[0].ratio > 1.5
        others = [one.ratio for one in diagnosis.cases if one.case != "pat7"]
        assert max(others) < 1.3
        assert "pat7" in str(diagnosis)

    def test_class_shares_add_up_and_the_worst_comes_first(self):
        def wide(X, y):
            return X, y

        features = self.features(wide)
        rng = np.random.default_rng(1)
        for case in features:  # class 2 is displaced in every case
            sample = case.layers["up"]
            sample.X[sample.y == 2] += rng.normal(size=6)
        diagnosis = CCFV(normalize=None).fit(features).diagnose()
        assert isinstance(diagnosis, Diagnosis)
        assert [one.label for one in diagnosis.classes] == [2, 1]
        assert sum(one.share for one in diagnosis.classes) == pytest.approx(1.0)

    def test_details_name_the_cases(self):
        details = CCFV().fit(self.features(lambda X, y: (X, y))).layer_details_[0]
        assert details["cases"] == details["variety_cases"] == [f"pat{i}" for i in range(10)]

    def test_without_consistency_there_are_layers_alone(self):
        block = FeatureBlock(*vars(make_problem()).values(), name="up")
        diagnosis = CCFV(class_consistency=False).fit(block).diagnose()
        assert diagnosis.layers[0][0] == "up"
        assert not diagnosis.classes
        assert "up" in str(diagnosis)

    def test_collapsed_and_identical_cases(self):
        X = np.tile(np.eye(4), (3, 1))
        y, groups = np.tile([0, 0, 1, 1], 3), np.repeat([0, 1, 2], 4)
        with pytest.warns(UserWarning, match="collapsed"):
            fitted = CCFV().fit(X, y, groups=groups)
        assert fitted.score_ == -np.inf
        assert all(one.ratio == 1.0 for one in fitted.diagnose().cases)
