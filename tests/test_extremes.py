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

from skte.exceptions import SkteError, SkteWarning
from tests.estimator_problems import VARIANTS, Problem, make_problem, wants_probabilities

SCALES = [1e-20, 1e-10, 1e10, 1e20]


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
def test_many_channels(name: str) -> None:
    # These two decompose a matrix of channels x channels for every class and case.
    n_channels = 1024 if name in ("CCFV-kl", "CCFV-bhattacharyya") else 4096
    scored_or_refused(name, of(name, n_channels=n_channels, n_cases=2, n_rows=4))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
def test_many_classes(name: str) -> None:
    scored_or_refused(name, of(name, n_classes=200, n_cases=2, n_rows=2))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.slow
def test_threads_of_blas(name: str) -> None:
    problem = of(name, n_rows=100, n_channels=24)
    scores = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            scores.append(problem.score(clone(VARIANTS[name])))
    assert scores[1] == pytest.approx(scores[0], rel=1e-9, abs=1e-12)
