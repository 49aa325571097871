"""The cross-case probe: cases left out, shares of classes, readings, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from skte import CrossCaseProbe, FeatureBlock
from skte.exceptions import CollapsedFeaturesWarning, UnusableClassWarning
from tests.estimator_problems import Problem, make_problem

READINGS = ("dice", "threshold", "auc")


def probe(reading: str, **kwargs: object) -> CrossCaseProbe:
    return CrossCaseProbe(reading=reading, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("reading", READINGS)
def test_features_that_hold_the_label_are_perfect(reading):
    problem = make_problem()
    perfect = problem.of(X=np.eye(3)[problem.y])
    assert perfect.score(probe(reading, ridge=1e-9)) == pytest.approx(1.0, abs=1e-6)


def test_noise_scores_as_predicting_the_class_everywhere():
    rng = np.random.default_rng(0)
    problem = make_problem(n_rows=400).of(X=rng.normal(size=(4800, 3)))
    everywhere = 2 * (1 / 3) / (1 + 1 / 3)
    assert problem.score(probe("threshold")) == pytest.approx(everywhere, abs=0.02)
    assert problem.score(probe("auc")) == pytest.approx(0.5, abs=0.02)
    # Balanced classes: every prediction is about 1/3.
    assert problem.score(probe("dice")) == pytest.approx(1 / 3, abs=0.02)


def test_the_diagnosis_names_the_case_that_is_low():
    problem = make_problem()
    y = problem.y.copy()
    odd = problem.groups == np.unique(problem.groups)[1]
    y[odd] = np.random.default_rng(0).permutation(y[odd])  # its labels are wrong
    estimator = probe("auc").fit(problem.X, y, groups=problem.groups)
    found = estimator.diagnose()
    assert found.case_scores[0][0] == str(np.unique(problem.groups)[1])
    assert [score for _, score in found.case_scores] == sorted(estimator.case_scores_)
    assert np.mean(estimator.case_scores_) == pytest.approx(estimator.score_)
    assert f"{found.case_scores[0][1]:.4g}" in str(found)


@pytest.mark.parametrize("reading", READINGS)
def test_what_one_case_alone_knows_does_not_count(reading):
    """A feature that is the label in one case, and its opposite in the other."""
    y, groups = np.tile([0, 1], 40), np.repeat([0, 1], 40)
    X = np.where(groups == 0, y, 1 - y)[:, None].astype(float)
    crossed = Problem(X, y, groups).score(probe(reading))
    assert crossed < Problem(y[:, None].astype(float), y, groups).score(probe(reading)) - 0.3


def test_folds_of_many_cases_are_those_of_their_sorted_names():
    """Ridge of scikit-learn in a GroupKFold; eleven cases in five folds."""
    problem = make_problem(n_cases=11, n_classes=2)
    names = np.array([f"case {i:02d}" for i in range(11)])
    T = np.eye(2)[problem.y]
    w = (T / T.mean(axis=0)).mean(axis=1)
    Z = (problem.X - problem.X.mean(axis=0)) / problem.X.std(axis=0)
    values, predictions = np.empty(11), np.empty_like(T)
    for fitted, held in GroupKFold(n_splits=5).split(Z, groups=problem.groups % 5):
        model = Ridge(alpha=w[fitted].sum(), solver="svd").fit(Z[fitted], T[fitted], w[fitted])
        for case in np.unique(problem.groups[held]):
            rows = problem.groups == case
            p, t = model.predict(Z[rows])[:, 1].clip(0, 1), T[rows, 1]
            values[case] = 2 * np.minimum(p, t).sum() / (p.sum() + t.sum())
            predictions[rows] = model.predict(Z[rows])
    fitted_probe = CrossCaseProbe(reading="dice")
    fitted_probe.fit(problem.X, problem.y, groups=names[problem.groups])
    np.testing.assert_allclose(fitted_probe.case_scores_, values, rtol=1e-8)
    np.testing.assert_allclose(fitted_probe.predictions_, predictions, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(fitted_probe.classes_, [0, 1])
    assert fitted_probe.case_names_ == tuple(names)
    assert fitted_probe.score_ == pytest.approx(values.mean())


def test_the_order_of_many_cases_does_not_matter():
    problem = make_problem(n_cases=8)
    names = [f"case {i}" for i in range(8)]
    order = np.random.default_rng(0).permutation(8)
    block = FeatureBlock(problem.X, problem.y, problem.groups, case_names=names)
    moved = FeatureBlock(
        problem.X,
        problem.y,
        np.argsort(order)[problem.groups],
        case_names=[names[i] for i in order],
    )
    assert CrossCaseProbe().score(moved) == pytest.approx(CrossCaseProbe().score(block), rel=1e-12)


@pytest.mark.parametrize("reading", READINGS)
def test_invertible_maps_of_channels_matter_little_where_the_ridge_is_small(reading):
    problem = make_problem(n_rows=60)
    mix = np.random.default_rng(0).normal(size=(5, 5))
    expected = problem.score(probe(reading, ridge=1e-9))
    mixed = problem.of(X=problem.X @ mix)
    assert mixed.score(probe(reading, ridge=1e-9)) == pytest.approx(expected, abs=1e-4)


def test_primal_and_dual_agree():
    """The same problem with zero channels added until there are more of them than rows."""
    problem = make_problem()
    wide = problem.of(X=np.hstack([problem.X, np.zeros((96, 100))]))
    for reading in READINGS:
        assert wide.score(probe(reading)) == pytest.approx(problem.score(probe(reading)), rel=1e-9)


def test_without_groups_the_error_asks_for_cases():
    problem = make_problem()
    with pytest.raises(ValueError, match=r"needs\s+groups, the case of every row"):
        CrossCaseProbe().fit(problem.X, problem.y)


def test_a_single_case_is_refused():
    problem = make_problem(n_cases=1)
    with pytest.raises(ValueError, match="all rows come from one case"):
        problem.score(CrossCaseProbe())


def test_a_class_of_one_case_is_left_out():
    problem = make_problem()
    rows = (problem.y != 2) | (problem.groups == 0)
    part = Problem(problem.X[rows], problem.y[rows], problem.groups[rows])
    with pytest.warns(UnusableClassWarning, match="class 2 occurs in one case only"):
        part.score(CrossCaseProbe())


def test_no_class_of_two_cases_is_refused():
    y, groups = np.array([0, 0, 1, 0, 0, 2]), np.array([0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="no class but the background"):
        CrossCaseProbe().fit(np.arange(6.0)[:, None], y, groups=groups)


def test_a_case_without_foreground_contributes_nothing():
    problem = make_problem()
    rows = (problem.groups != 3) | (problem.y == 0)
    fitted = CrossCaseProbe().fit(problem.X[rows], problem.y[rows], groups=problem.groups[rows])
    assert np.isnan(fitted.case_scores_).tolist() == [False, False, False, True]
    assert fitted.score_ == pytest.approx(np.nanmean(fitted.case_scores_))


def test_collapsed_features_are_told():
    problem = make_problem().of(X=np.full((96, 3), 0.1))
    with pytest.warns(CollapsedFeaturesWarning, match=r"layer 'up1'.*same features"):
        score = CrossCaseProbe(reading="auc").score(problem.block("up1"))
    assert score == 0.5


def test_equal_predictions_fall_on_one_side_whatever_their_order():
    rng = np.random.default_rng(0)
    problem = make_problem(n_rows=20)
    dead = problem.of(X=np.where(rng.random(problem.X.shape) < 0.7, 0.0, problem.X))
    order = rng.permutation(len(dead.y))
    moved = Problem(dead.X[order], dead.y[order], dead.groups[order])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert moved.score(CrossCaseProbe()) == pytest.approx(dead.score(CrossCaseProbe()))
