"""Exact laws that every score obeys, on random problems.

For each variant of an estimator, `LAWS` names the transformations that must leave its
score as it is; the transformations that change a score in a known way have a test each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from skte.estimators import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    PARC,
    RCFV,
    SFDA,
    LogME,
    RankMe,
    TransRate,
)
from tests.estimator_problems import (
    ESTIMATOR_NAMES,
    VARIANTS,
    Problem,
    make_problem,
)

pytestmark = pytest.mark.no_cover

Generator = np.random.Generator


def permute_rows(problem: Problem, rng: Generator) -> Problem:
    order = rng.permutation(len(problem.y))
    return Problem(problem.X[order], problem.y[order], problem.groups[order])


def permute_channels(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=problem.X[:, rng.permutation(problem.X.shape[1])])


def rename_classes(problem: Problem, rng: Generator) -> Problem:
    """Background stays 0, as CC-FV must know it; the rest is {2, 7, ...}."""
    return problem.of(y=np.array([0, 2, 7, 40, 41])[problem.y])


def shuffle_class_names(problem: Problem, rng: Generator) -> Problem:
    names = np.array([11, 3, 250, 7, 0])[: problem.y.max() + 1]
    return problem.of(y=rng.permutation(names)[problem.y])


def rename_cases(problem: Problem, rng: Generator) -> Problem:
    names = rng.permutation([f"case_{i}" for i in range(problem.groups.max() + 1)])
    return problem.of(groups=names[problem.groups])


def duplicate_rows(problem: Problem, rng: Generator) -> Problem:
    return Problem(*(np.concatenate([a, a]) for a in (problem.X, problem.y, problem.groups)))


def rotate(problem: Problem, rng: Generator) -> Problem:
    n = problem.X.shape[1]
    return problem.of(X=problem.X @ np.linalg.qr(rng.normal(size=(n, n)))[0])


def shift(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=problem.X + 10 * rng.normal(size=problem.X.shape[1]))


def shift_rows(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=problem.X + 10 * rng.normal(size=(len(problem.X), 1)))


def scale(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=problem.X * 10 ** rng.uniform(-3, 3))


def scale_hugely(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=problem.X * 10.0 ** rng.choice([-150, 150]))


def scale_rows(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=problem.X * 10 ** rng.uniform(-3, 3, size=(len(problem.X), 1)))


def append_zero_channels(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=np.hstack([problem.X, np.zeros((len(problem.X), 3))]))


def append_constant_channel(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=np.hstack([problem.X, np.full((len(problem.X), 1), 1e3 / 7)]))


def duplicate_channels(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=np.hstack([problem.X, problem.X]))


def append_linear_channel(problem: Problem, rng: Generator) -> Problem:
    weights = rng.normal(size=problem.X.shape[1])
    return problem.of(X=np.column_stack([problem.X, problem.X @ weights]))


def split_channels(problem: Problem, rng: Generator) -> Problem:
    return problem.of(X=np.hstack([problem.X / 2, problem.X / 2]))


Transformation = Callable[[Problem, Generator], Problem]

EVERYWHERE: list[Transformation] = [
    permute_rows,
    permute_channels,
    rename_classes,
    rename_cases,
]
MOMENTS: list[Transformation] = [
    *EVERYWHERE,
    shuffle_class_names,
    duplicate_rows,
    shift,
    append_zero_channels,
    append_constant_channel,
]
PRINCIPAL: list[Transformation] = [*MOMENTS, rotate, scale, scale_hugely, duplicate_channels]
CONSISTENCY: list[Transformation] = [*EVERYWHERE, rotate, append_zero_channels]
DISTANCES: list[Transformation] = [
    *EVERYWHERE,
    shuffle_class_names,
    shift,
    rotate,
    scale,
    scale_hugely,
    append_zero_channels,
    append_constant_channel,
    duplicate_channels,
]
PROBE: list[Transformation] = [*MOMENTS[:4], duplicate_rows, shift, scale, scale_hugely]
PROBE += [append_zero_channels, append_constant_channel]
CORRELATION: list[Transformation] = [
    *EVERYWHERE,
    shuffle_class_names,
    shift_rows,
    scale,
    scale_hugely,
    scale_rows,
    duplicate_channels,
]

#: Which transformations leave which score as it is.
LAWS: dict[str, list[Transformation]] = {
    "CCFV": [*CONSISTENCY, scale, scale_hugely, duplicate_channels],
    "CCFV-literal": [*CONSISTENCY, shift, scale, duplicate_channels, append_constant_channel],
    "CCFV-kl": [*EVERYWHERE, rotate, scale],
    "CCFV-bhattacharyya": [*EVERYWHERE, rotate, scale],
    "CCFV-all-classes": [*CONSISTENCY, shuffle_class_names, scale, duplicate_channels],
    "CrossCaseProbe": PROBE,
    "CrossCaseProbe-dice": PROBE,
    "CrossCaseProbe-auc": [*PROBE, shuffle_class_names],
    "GBC": PRINCIPAL,
    "GBC-full": PRINCIPAL,
    "GBC-spherical": PRINCIPAL,
    "GBC-axes": [*MOMENTS, scale, scale_hugely],
    "HScore": [*PRINCIPAL, append_linear_channel],
    "HScore-shrunk": [*EVERYWHERE, shuffle_class_names, shift, rotate, scale, scale_hugely],
    "KNN": DISTANCES,
    "KNN-by-voxel": DISTANCES,
    "KNN-cosine": [
        *EVERYWHERE,
        shuffle_class_names,
        rotate,
        scale,
        scale_rows,
        append_zero_channels,
        duplicate_channels,
    ],
    "LEEP": [
        *EVERYWHERE,
        shuffle_class_names,
        duplicate_rows,
        append_zero_channels,
        split_channels,
    ],
    "LEEP-logits": [*EVERYWHERE, shuffle_class_names, duplicate_rows, shift_rows],
    "LogME": [
        *EVERYWHERE,
        shuffle_class_names,
        rotate,
        scale,
        scale_hugely,
        append_zero_channels,
        duplicate_channels,
    ],
    "NCE": [
        *EVERYWHERE,
        shuffle_class_names,
        duplicate_rows,
        append_zero_channels,
        split_channels,
    ],
    "NCE-logits": [*EVERYWHERE, shuffle_class_names, duplicate_rows, shift_rows, scale, scale_rows],
    "NLEEP": DISTANCES,
    "NLEEP-diag": DISTANCES,
    "PARC": CORRELATION,
    "PARC-part": [*EVERYWHERE, shuffle_class_names, scale, duplicate_channels],
    "RankMe": [
        *EVERYWHERE,
        shuffle_class_names,
        duplicate_rows,
        rotate,
        scale,
        scale_hugely,
        append_zero_channels,
        duplicate_channels,
    ],
    "RCFV": [
        *EVERYWHERE,
        shuffle_class_names,
        rotate,
        scale,
        scale_hugely,
        append_zero_channels,
        duplicate_channels,
    ],
    "SFDA": [*MOMENTS, rotate],
    "SFDA-trace": [*MOMENTS, rotate, scale, scale_hugely],
    "TransRate": [*MOMENTS, rotate],
    "TransRate-trace": PRINCIPAL,
}

problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "n_classes": st.integers(2, 4),
        "n_cases": st.integers(2, 4),
        "n_channels": st.integers(1, 9),
        "n_rows": st.integers(3, 9),
        "separation": st.floats(0.0, 2.0),
    }
)
few = settings(max_examples=10)


def suited_problem(name: str, arguments: dict[str, float]) -> Problem:
    """A problem on which the variant's score is finite and well conditioned."""
    if name.startswith(("CCFV", "RCFV")):  # one channel on the unit sphere is a sign: it collapses
        arguments = {**arguments, "n_channels": arguments["n_channels"] + 2}
    if name in ("CCFV-kl", "CCFV-bhattacharyya"):  # invert covariances of rank n_rows - 1
        arguments = {**arguments, "n_rows": 3 * arguments["n_channels"] + 6}
    return make_problem(VARIANTS[name], **arguments)


def test_every_estimator_and_variant_has_laws() -> None:
    assert set(LAWS) == set(VARIANTS)
    assert set(ESTIMATOR_NAMES) <= set(LAWS)
    assert all(set(EVERYWHERE) <= set(laws) for laws in LAWS.values())


@pytest.mark.parametrize("name", LAWS)
@few
@given(arguments=problems)
@pytest.mark.slow
def test_score_is_invariant(name: str, arguments: dict[str, float]) -> None:
    """Under each of its laws, on the same problems: they are scored once."""
    estimator = VARIANTS[name]
    problem = suited_problem(name, arguments)
    expected = problem.score(estimator)
    assert np.isfinite(expected)
    for law in LAWS[name]:
        changed = law(problem, np.random.default_rng(arguments["seed"]))
        score = changed.score(estimator)
        assert score == pytest.approx(expected, rel=1e-6, abs=1e-8), law.__name__


@pytest.mark.parametrize("name", VARIANTS)
@few
@given(arguments=problems)
@pytest.mark.slow
def test_float32_is_scored_in_float64(name: str, arguments: dict[str, float]) -> None:
    estimator = VARIANTS[name]
    problem = suited_problem(name, arguments)
    single = problem.of(X=problem.X.astype(np.float32))
    double = single.of(X=single.X.astype(np.float64))
    assert single.score(estimator) == double.score(estimator)
    assert single.score(estimator) == pytest.approx(problem.score(estimator), rel=1e-3, abs=1e-4)


@few
@given(arguments=problems, power=st.integers(-6, 6), s=st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def test_literal_ccfv_shifts_with_scale(arguments: dict[str, float], power: int, s: float) -> None:
    """F_v is of degree s in the features, W2 of degree 1."""
    estimator = CCFV(normalize=None, s=s, min_distance=1e-9)
    problem = make_problem(**arguments)
    scaled = problem.of(X=problem.X * 3.0**power)
    expected = problem.score(estimator) + (s - 1.0) * power * np.log(3.0)
    assert scaled.score(estimator) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("distance", ["kl", "bhattacharyya"])
@few
@given(arguments=problems, power=st.integers(-3, 3))
def test_literal_ablations_shift_with_scale(
    distance: str, arguments: dict[str, float], power: int
) -> None:
    """These distances ignore scale, and F_v (s = 1) does not."""
    estimator = CCFV(normalize=None, distance=distance, min_distance=1e-9)
    problem = suited_problem("CCFV-kl", arguments)
    scaled = problem.of(X=problem.X * 3.0**power)
    expected = problem.score(estimator) + power * np.log(3.0)
    assert scaled.score(estimator) == pytest.approx(expected, rel=1e-6, abs=1e-8)


@few
@given(arguments=problems)
def test_ccfv_of_duplicated_cases(arguments: dict[str, float]) -> None:
    """A copy of every case doubles the sums over i != j and adds pairs at distance zero."""
    problem = suited_problem("CCFV", arguments)
    n = arguments["n_cases"]
    doubled = Problem(
        np.concatenate([problem.X, problem.X]),
        np.concatenate([problem.y, problem.y]),
        np.concatenate([problem.groups, problem.groups + n]),
    )
    expected = problem.score(CCFV()) + np.log((2 * n - 1) / (2 * n - 2))
    # Equal Gaussians cancel down to the square root of rounding.
    assert doubled.score(CCFV()) == pytest.approx(expected, abs=1e-5)


@few
@given(arguments=problems)
def test_ccfv_is_the_sum_of_its_terms(arguments: dict[str, float]) -> None:
    problem = suited_problem("CCFV", arguments)
    consistency = problem.score(CCFV(feature_variety=False))
    variety = problem.score(CCFV(class_consistency=False))
    assert problem.score(CCFV()) == pytest.approx(consistency + variety, rel=1e-12, abs=1e-12)


@few
@given(arguments=problems)
def test_duplicated_rows_never_lower_logme(arguments: dict[str, float]) -> None:
    """They halve the price of complexity per voxel and leave the fit as it is."""
    problem = make_problem(**arguments)
    doubled = duplicate_rows(problem, np.random.default_rng(0))
    assert doubled.score(LogME()) >= problem.score(LogME()) - 1e-12


@few
@given(arguments=problems, factor=st.floats(1e-3, 1e3))
def test_logme_of_scaled_regression_target(arguments: dict[str, float], factor: float) -> None:
    """The evidence is a density of y, so a factor comes off as its logarithm."""
    problem = make_problem(**arguments)
    y = np.random.default_rng(arguments["seed"]).normal(size=len(problem.y))
    expected = LogME().score(problem.X, y) - np.log(factor)
    assert LogME().score(problem.X, factor * y) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert LogME().score(problem.X, -y) == pytest.approx(LogME().score(problem.X, y), rel=1e-12)


@few
@given(arguments=problems)
def test_leep_lies_between_entropy_and_zero(arguments: dict[str, float]) -> None:
    problem = make_problem(LEEP(), **arguments)
    share = np.bincount(problem.y) / len(problem.y)
    entropy = -(share * np.log(share)).sum()
    assert -entropy - 1e-12 <= problem.score(LEEP()) <= 0.0


@few
@given(arguments=problems)
def test_leep_of_logits_is_leep_of_their_softmax(arguments: dict[str, float]) -> None:
    problem = make_problem(**arguments)
    probabilities = problem.of(X=softmax(problem.X, axis=1))
    assert problem.score(LEEP(input="logits")) == pytest.approx(probabilities.score(LEEP()))


@pytest.mark.parametrize("covariance", ["diagonal", "full", "spherical"])
@few
@given(arguments=problems)
def test_gbc_range_and_logarithm(covariance: str, arguments: dict[str, float]) -> None:
    problem = make_problem(**arguments)
    n_pairs = arguments["n_classes"] * (arguments["n_classes"] - 1)
    plain = problem.score(GBC(covariance=covariance))
    logarithm = problem.score(GBC(covariance=covariance, log=True))
    assert -n_pairs - 1e-12 <= plain <= 0.0
    assert plain == pytest.approx(-np.exp(-logarithm), rel=1e-12)


@few
@given(arguments=problems, factor=st.floats(1e-2, 1e2))
def test_transrate_trades_scale_for_distortion(arguments: dict[str, float], factor: float) -> None:
    problem = make_problem(**arguments)
    scaled = problem.of(X=factor * problem.X)
    expected = problem.score(TransRate(eps=1e-4 / factor**2))
    assert scaled.score(TransRate(eps=1e-4)) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@few
@given(arguments=problems)
def test_transrate_of_duplicated_channels(arguments: dict[str, float]) -> None:
    """Two copies of each channel are one channel of twice the variance."""
    problem = make_problem(**arguments)
    doubled = duplicate_channels(problem, np.random.default_rng(0))
    expected = problem.score(TransRate(eps=5e-5))
    assert doubled.score(TransRate(eps=1e-4)) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@few
@given(arguments=problems)
def test_transrate_is_not_negative(arguments: dict[str, float]) -> None:
    assert make_problem(**arguments).score(TransRate()) >= 0.0


@few
@given(arguments=problems)
def test_nce_is_leep_of_decisions(arguments: dict[str, float]) -> None:
    problem = make_problem(NCE(), **arguments)
    decisions = np.eye(problem.X.shape[1])[problem.X.argmax(axis=1)]
    assert problem.score(NCE()) == pytest.approx(LEEP().score(decisions, problem.y), abs=1e-12)


@few
@given(arguments=problems, factor=st.floats(1e-2, 1e2))
def test_sfda_sees_scale_through_shrinkage_alone(
    arguments: dict[str, float], factor: float
) -> None:
    problem = make_problem(**arguments)
    scaled = problem.of(X=factor * problem.X)
    expected = problem.score(SFDA(a=5.0 * factor**2))
    assert scaled.score(SFDA(a=5.0)) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@few
@given(arguments=problems)
def test_rcfv_of_duplicated_cases(arguments: dict[str, float]) -> None:
    """A copy of every case adds pairs at distance zero to the mean over cases, in each class."""
    problem = suited_problem("RCFV", arguments)
    n = arguments["n_cases"]
    doubled = Problem(
        np.concatenate([problem.X, problem.X]),
        np.concatenate([problem.y, problem.y]),
        np.concatenate([problem.groups, problem.groups + n]),
    )
    expected = problem.score(RCFV(min_distance=0)) + np.log((2 * n - 1) / (2 * n - 2))
    # Equal Gaussians cancel down to the square root of rounding.
    assert doubled.score(RCFV(min_distance=0)) == pytest.approx(expected, abs=1e-5)


@few
@given(arguments=problems)
def test_ranges_of_pairs_neighbours_and_ranks(arguments: dict[str, float]) -> None:
    problem = make_problem(**arguments)
    assert -1.0 <= problem.score(PARC()) <= 1.0
    assert 0.0 <= problem.score(KNN()) <= 1.0
    assert 1.0 <= problem.score(RankMe()) <= min(problem.X.shape) * (1 + 1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_scores_respond_to_the_labels(name: str) -> None:
    """Laws of invariance alone would be met by a constant."""
    problem = make_problem(VARIANTS[name], n_rows=20)
    order = np.random.default_rng(0).permutation(len(problem.y))
    shuffled = problem.of(y=problem.y[order]).score(VARIANTS[name])
    if not VARIANTS[name].tags.labels:
        assert shuffled == problem.score(VARIANTS[name])
    elif name in ("CCFV-kl", "CCFV-bhattacharyya"):  # wider Gaussians are closer by these
        assert shuffled != problem.score(VARIANTS[name])
    else:
        assert shuffled < problem.score(VARIANTS[name])
