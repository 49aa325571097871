"""Features at the edge of what can be computed: a score, or an error that says why not.

Never NaN, never an error of numpy's or scipy's own.
"""

import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from skte.exceptions import (
    CollapsedFeaturesWarning,
    SaturatedScoreWarning,
    SkteError,
    SkteWarning,
)
from tests.estimator_problems import VARIANTS, Problem, make_problem, wants_probabilities

SCALES = [1e-20, 1e-10, 1e10, 1e20]
# To where float64 ends, and beyond where it keeps every digit.
ALL_SCALES = [1e-323, 1e-310, 1e-300, 1e-200, 1e-160, 1e-100, 1e-30, 1e-10, 1e10, 1e30, 1e75,
              1e100, 1e150, 1e160, 1e200, 1e300]  # fmt: skip
#: Scores that depend on the features' scale, as their pages say.
OF_SCALE = {"SFDA", "TransRate", "LEEP-logits", "NCE-logits"}
OF_FEATURES = [name for name in VARIANTS if not wants_probabilities(VARIANTS[name])]


def scored_or_refused(name: str, problem: Problem) -> float | None:
    """Score without NaN and without warnings but ours; None where it is refused by name."""
    estimator = clone(VARIANTS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SkteWarning)
        try:
            score = problem.score(estimator)
        except (ValueError, SkteError) as error:
            refused = error
        else:
            refused = None
    if refused is not None:
        raised_in = Path(traceback.extract_tb(refused.__traceback__)[-1].filename).parts
        assert {"skte", "sklearn"} & set(raised_in), f"not one of our checks: {refused!r}"
        return None
    assert not np.isnan(score)
    assert score != np.inf
    return score


def of(name: str, **kwargs: object) -> Problem:
    return make_problem(VARIANTS[name], **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factor", SCALES)
@pytest.mark.parametrize("name", VARIANTS)
def test_scale(name: str, factor: float, dtype: type) -> None:
    problem = of(name)
    score = scored_or_refused(name, problem.of(X=(problem.X * factor).astype(dtype)))
    # Probabilities that do not sum to one are refused; everything else is scored.
    assert (score is None) == wants_probabilities(VARIANTS[name])


def told(name: str, problem: Problem) -> tuple[float | None, set[type[Warning]]]:
    """Score, None where it is refused by name, and the kinds of warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            score = problem.score(clone(VARIANTS[name]))
        except (ValueError, SkteError):
            score = None
    return score, {w.category for w in caught}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_FEATURES)
def test_no_scale_changes_a_score_silently(name: str) -> None:
    problem = of(name)
    expected = problem.score(clone(VARIANTS[name]))
    for factor in ALL_SCALES:
        score, kinds = told(name, problem.of(X=problem.X * factor))
        if score is None or kinds & {CollapsedFeaturesWarning, SaturatedScoreWarning}:
            continue
        if name in OF_SCALE and factor > 1:
            continue
        assert score == pytest.approx(expected, rel=1e-9, abs=1e-12), factor
    # Where every digit is kept, what does not depend on scale is not warned about either.
    for factor in (1e-300, 1e-30, 1e30, 1e300) if name not in OF_SCALE else ():
        score, kinds = told(name, problem.of(X=problem.X * factor))
        assert score is None or not kinds, (factor, kinds)


@pytest.mark.parametrize("value", [0.0, 3.3, -1e-310, 1e-40, 1e200])
@pytest.mark.parametrize("name", VARIANTS)
def test_constant_features_are_told(name: str, value: float) -> None:
    problem = of(name)
    if wants_probabilities(VARIANTS[name]):
        value = 1.0 / problem.X.shape[1]
    for X in (np.full_like(problem.X, value), value * np.ones_like(problem.X) * np.arange(1, 6)):
        if wants_probabilities(VARIANTS[name]):
            X = X / X.sum(axis=1, keepdims=True)
        score, kinds = told(name, problem.of(X=X))
        assert score is None or kinds & {CollapsedFeaturesWarning, SaturatedScoreWarning}


@pytest.mark.parametrize("name", OF_FEATURES)
def test_digits_lost_in_a_narrow_type_are_told(name: str) -> None:
    problem = of(name)
    score, kinds = told(name, problem.of(X=(problem.X * 1e-42).astype(np.float32)))
    assert score is None or CollapsedFeaturesWarning in kinds


def test_a_layer_that_varies_in_one_voxel_is_not_constant() -> None:
    problem = make_problem()
    X = np.zeros_like(problem.X)
    X[5, 2] = 1e-300
    _, kinds = told("HScore", problem.of(X=X))
    assert CollapsedFeaturesWarning not in kinds


@pytest.mark.parametrize("name", VARIANTS)
def test_near_duplicates(name: str) -> None:
    problem = of(name)
    noise = np.random.default_rng(0).normal(size=problem.X.shape)
    X = np.abs(problem.X[:1] * (1 + 1e-15 * noise))
    if wants_probabilities(VARIANTS[name]):
        X = X / X.sum(axis=1, keepdims=True)
    scored_or_refused(name, problem.of(X=X))


@pytest.mark.parametrize("name", VARIANTS)
def test_rank_one(name: str) -> None:
    if wants_probabilities(VARIANTS[name]):
        pytest.skip("probabilities of rank one are equal rows: see near duplicates")
    problem = of(name)
    direction = np.arange(1.0, 1 + problem.X.shape[1])
    scored_or_refused(name, problem.of(X=problem.X[:, :1] * direction))


@pytest.mark.parametrize("name", VARIANTS)
def test_two_rows(name: str) -> None:
    problem = of(name, n_classes=2, n_cases=2, n_rows=1)
    for rows in ([0, 1], [0, 3], [0, 2]):
        scored_or_refused(name, Problem(problem.X[rows], problem.y[rows], problem.groups[rows]))


@pytest.mark.parametrize("name", VARIANTS)
def test_one_voxel_classes(name: str) -> None:
    problem = of(name, n_classes=4)
    keep = (problem.y < 3) | (np.cumsum(problem.y == 3) == 1)
    scored_or_refused(name, Problem(problem.X[keep], problem.y[keep], problem.groups[keep]))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
@pytest.mark.no_cover
def test_many_channels(name: str) -> None:
    # These two decompose a matrix of channels x channels for every class and case.
    n_channels = 1024 if name in ("CCFV-kl", "CCFV-bhattacharyya") else 4096
    scored_or_refused(name, of(name, n_channels=n_channels, n_cases=2, n_rows=4))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
@pytest.mark.no_cover
def test_many_classes(name: str) -> None:
    scored_or_refused(name, of(name, n_classes=200, n_cases=2, n_rows=2))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
@pytest.mark.no_cover
def test_threads_of_blas(name: str) -> None:
    problem = of(name, n_rows=100, n_channels=24)
    scores = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            scores.append(problem.score(clone(VARIANTS[name])))
    assert scores[1] == pytest.approx(scores[0], rel=1e-9, abs=1e-12)
