"""Scores of other choices of cases: those of fitting anew, and cheaper."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skte.estimators import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    NLEEP,
    PARC,
    SFDA,
    Ensemble,
    HScore,
    LogME,
    RankMe,
    TransferabilityEstimator,
    TransRate,
)
from skte.features import CaseFeatures, FeatureSet
from tests.estimator_problems import VARIANTS, as_feature_set, make_problem

N_CASES = 5
LEAVE_ONE_OUT = 1 - np.eye(N_CASES, dtype=int)
# Both change the sample on which something is decided once: where mixtures start, and
# which rows are looked at.
APPROXIMATE = {"NLEEP", "NLEEP-diag", "PARC-part"}
# A case that is not drawn is not judged; the heads that judge the others saw it.
APPROXIMATE |= {name for name in VARIANTS if name.startswith("CrossCaseProbe")}
# A FeatureSet holds probabilities always, so these are LEEP and NCE.
NAMES = [name for name in VARIANTS if not name.endswith("-logits")]


def problem_set(estimator: TransferabilityEstimator, **kwargs: int) -> FeatureSet:
    problems = [make_problem(estimator, seed=s, n_cases=N_CASES, **kwargs) for s in (0, 1)]
    return as_feature_set(estimator, *problems)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in APPROXIMATE])
def test_leaving_cases_out_is_fitting_without_them(name: str) -> None:
    estimator = clone(VARIANTS[name])
    features = problem_set(estimator, n_rows=6)
    pairs = np.array([[i in kept for i in range(N_CASES)] for kept in ((0, 3, 4), (1, 2))])
    weights = np.concatenate([LEAVE_ONE_OUT, pairs])
    scores = estimator.fit(features).resample_cases(features, weights)["score"]
    expected = [clone(estimator).fit(features[w.astype(bool)]).score_ for w in weights]
    # CC-FV of covariances with a ridge: relative to the mean variance over cases.
    tolerance = 2e-2 if name in ("CCFV-kl", "CCFV-bhattacharyya") else 1e-7
    if name == "CCFV-literal":
        tolerance = 1e-6  # the floor of distances is relative to all cases' norm
    np.testing.assert_allclose(scores, expected, rtol=tolerance, atol=1e-9)


@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
@pytest.mark.parametrize("name", NAMES)
def test_drawing_all_cases_once_is_the_score(name: str) -> None:
    estimator = clone(VARIANTS[name])
    features = problem_set(estimator)
    again = estimator.fit(features).resample_cases(features, np.ones((1, N_CASES)))
    np.testing.assert_allclose(again["score"], estimator.score_, rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
@pytest.mark.parametrize(
    "estimator",
    [GBC(), HScore(), HScore(shrinkage="ledoit-wolf"), LEEP(), LogME(), NCE(), RankMe(), SFDA(),
     TransRate()],
    ids=str,
)  # fmt: skip
def test_a_case_drawn_twice_is_its_rows_twice(estimator: TransferabilityEstimator) -> None:
    """Where cases are never compared, a resample is a sample with repeated rows."""
    features = problem_set(estimator)
    weights = np.array([[2, 0, 1, 1, 1], [0, 3, 0, 2, 0]])
    scores = estimator.fit(features).resample_cases(features, weights)["score"]
    for row, score in zip(weights, scores, strict=True):
        copies = FeatureSet(
            CaseFeatures(f"{case.case_id}-{copy}", case.layers, case.posterior)
            for case, times in zip(features, row, strict=True)
            for copy in range(times)
        )
        assert score == pytest.approx(clone(estimator).fit(copies).score_, rel=1e-7)


class TestPairsOfCases:
    """A case drawn twice is no second case that resembles the first one."""

    @pytest.fixture
    def fitted(self) -> tuple[CCFV, FeatureSet]:
        features = problem_set(CCFV())
        return CCFV(feature_variety=False).fit(features), features

    def test_weighted_mean_over_pairs_of_different_cases(
        self, fitted: tuple[CCFV, FeatureSet]
    ) -> None:
        ccfv, features = fitted
        weights = np.array([3, 0, 1, 1, 0])
        [score] = ccfv.resample_cases(features, [weights])["score"]
        draw = np.repeat(np.arange(N_CASES), weights)
        layers = []
        for details in ccfv.layer_details_:
            total = 0.0
            for D in details["distances"].values():
                kept = [D[i, j] for i, j in itertools.combinations(draw, 2) if i != j]
                total += float(np.mean(kept))
            layers.append(-np.log(total))
        assert score == pytest.approx(np.mean(layers))

    def test_resamples_are_not_biased_downwards(self, fitted: tuple[CCFV, FeatureSet]) -> None:
        """Pairs of copies would take 1/N of C_cons: log(5/4) = 0.22 of the score."""
        ccfv, features = fitted
        weights = np.random.default_rng(0).multinomial(N_CASES, [1 / N_CASES] * N_CASES, 4000)
        scores = ccfv.resample_cases(features, weights)["score"]
        assert abs(np.nanmean(scores) - ccfv.score_) < 0.02
        for draw in (np.repeat(np.arange(N_CASES), w) for w in weights[:3]):
            D = next(iter(ccfv.layer_details_[0]["distances"].values()))
            naive = np.mean([D[i, j] for i, j in itertools.combinations(draw, 2)])
            assert naive < np.mean([D[i, j] for i, j in itertools.combinations(draw, 2) if i != j])

    def test_a_single_case_many_times_has_no_consistency(
        self, fitted: tuple[CCFV, FeatureSet]
    ) -> None:
        ccfv, features = fitted
        assert np.isnan(ccfv.resample_cases(features, [[5, 0, 0, 0, 0]])["score"]).all()


def test_pairs_within_a_case_count_once_for_each_time_it_is_drawn() -> None:
    """PARC compares voxels: those of two copies of a case are no pair."""
    features = problem_set(PARC())
    parc = PARC().fit(features)
    [once, thrice] = parc.resample_cases(features, [[1, 1, 0, 0, 0], [3, 3, 0, 0, 0]])["score"]
    assert once == pytest.approx(PARC().fit(features[:2]).score_)
    block = features[:2].blocks()[1]
    last = PARC(layer_reduction="last").fit(features)
    [thrice] = last.resample_cases(features, [[3, 3, 0, 0, 0]])["score"]
    assert thrice == pytest.approx(brute_parc(block.X, block.y, block.groups, 3))


def brute_parc(X: np.ndarray, y: np.ndarray, groups: np.ndarray, times: int) -> float:
    from scipy.stats import spearmanr

    a, b = [], []
    for i, j in itertools.combinations(range(len(X)), 2):
        repeats = times if groups[i] == groups[j] else times * times
        a += [1 - np.corrcoef(X[i], X[j])[0, 1]] * repeats
        b += [float(y[i] != y[j])] * repeats
    return float(spearmanr(a, b).statistic)


@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
class TestNeighbors:
    def test_rows_with_few_kept_neighbours_are_searched_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        features = problem_set(KNN(), n_rows=6)
        knn = KNN(n_neighbors=2).fit(features)
        expected = knn.resample_cases(features, LEAVE_ONE_OUT)["score"]
        # So few that rows must be searched again: no sample of a test's size does.
        monkeypatch.setattr("skte.estimators._knn._KEPT", 3)
        monkeypatch.setattr("skte.estimators._knn.max", lambda *sizes: min(sizes), raising=False)
        np.testing.assert_allclose(
            knn.resample_cases(features, LEAVE_ONE_OUT)["score"], expected, rtol=1e-12
        )

    def test_repeated_cases_fill_places_but_are_no_neighbours_of_themselves(self) -> None:
        features = problem_set(KNN(), n_rows=6)
        knn = KNN(n_neighbors=4, layer_reduction="last").fit(features)
        weights = np.array([2, 2, 0, 2, 0])
        [score] = knn.resample_cases(features, [weights])["score"]
        half = KNN(n_neighbors=2, layer_reduction="last").fit(features[[0, 1, 3]]).score_
        assert score == pytest.approx(half)  # two copies of the two nearest

    def test_subsample_stays_that_of_all_cases(self) -> None:
        features = problem_set(KNN(), n_rows=20)
        knn = KNN(max_samples=60).fit(features)
        [score] = knn.resample_cases(features, np.ones((1, N_CASES)))["score"]
        assert score == pytest.approx(knn.score_)


@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
def test_nleep_keeps_the_mixture_of_all_cases() -> None:
    features = problem_set(NLEEP(), n_rows=30)
    nleep = NLEEP(n_components_per_class=2, variance=0.9).fit(features)
    scores = nleep.resample_cases(features, LEAVE_ONE_OUT)["score"]
    # Fits of their own jump between optima; these do not.
    own = [clone(nleep).fit(features[w.astype(bool)]).score_ for w in LEAVE_ONE_OUT]
    assert np.std(scores) < np.std(own)
    # Given the mixtures of the layers it is LEEP.
    layers = list(zip(features.blocks(), nleep.layer_details_, strict=True))
    for score, weights in zip(scores, LEAVE_ONE_OUT, strict=True):
        kept = [(one["posterior"][w], block.y[w]) for block, one in layers
                for w in [weights[block.groups] > 0]]  # fmt: skip
        assert score == pytest.approx(np.mean([LEEP().score(*rows) for rows in kept]))


@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
@pytest.mark.parametrize("estimator", [LogME(), GBC(), TransRate(), HScore(), RankMe()], ids=str)
def test_what_does_not_fit_into_memory_is_refitted(
    estimator: TransferabilityEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = problem_set(estimator)
    estimator.fit(features)
    expected = estimator.resample_cases(features, LEAVE_ONE_OUT)["score"]
    # A bound that only samples far larger than a test's reach.
    monkeypatch.setattr("skte.estimators._samples._MOST_BYTES", 0)
    monkeypatch.setattr("skte.estimators._rankme._MOST_BYTES", 0)
    monkeypatch.setattr("skte.estimators._samples._stack", None)
    refitted = estimator.resample_cases(features, LEAVE_ONE_OUT)["score"]
    np.testing.assert_allclose(refitted, expected, rtol=1e-7)


def test_chunks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = problem_set(LogME())
    logme = LogME().fit(features)
    weights = np.random.default_rng(0).multinomial(N_CASES, [1 / N_CASES] * N_CASES, 7)
    expected = logme.resample_cases(features, weights)["score"]
    monkeypatch.setattr("skte.estimators._samples._CHUNK_BYTES", 1)
    np.testing.assert_allclose(
        logme.resample_cases(features, weights)["score"], expected, rtol=1e-12
    )


def test_large_means_cost_no_digits() -> None:
    """Raw second moments of features at 1e5 would lose ten of sixteen digits."""
    rng = np.random.default_rng(0)
    y, groups = np.tile(np.repeat([0, 1], 20), 4), np.repeat(np.arange(4), 40)
    X = rng.normal(size=(160, 3)) + np.eye(3)[y] + 0.3 * rng.normal(size=(4, 3))[groups]
    blocks = [make_problem().of(X=X + shift, y=y, groups=groups).block("up") for shift in (0, 1e5)]
    near, far = (FeatureSet.from_blocks([block]) for block in blocks)
    leave = 1 - np.eye(4, dtype=int)
    for estimator in (GBC(), HScore(), TransRate()):
        expected = clone(estimator).fit(near).resample_cases(near, leave)["score"]
        scores = clone(estimator).fit(far).resample_cases(far, leave)["score"]
        np.testing.assert_allclose(scores, expected, rtol=1e-7)


class TestCollapse:
    def test_features_on_the_floor_stay_collapsed(self) -> None:
        problem = make_problem(n_cases=N_CASES)
        flat = FeatureSet.from_blocks([problem.of(X=np.ones_like(problem.X)).block("up")])
        with pytest.warns(match="collapsed"):
            ccfv = CCFV().fit(flat)
        scores = ccfv.resample_cases(flat, LEAVE_ONE_OUT)["score"]
        assert (scores == -np.inf).all()

    def test_a_single_direction_stays_collapsed(self) -> None:
        problem = make_problem(n_cases=N_CASES)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], len(problem.X))
        line = FeatureSet.from_blocks([problem.of(X=signs[:, None] * np.ones(5)).block("up")])
        with pytest.warns(match="collapsed"):
            ccfv = CCFV().fit(line)
        assert (ccfv.resample_cases(line, LEAVE_ONE_OUT)["score"] == -np.inf).all()


@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
@pytest.mark.parametrize(
    "estimator", [CCFV(), GBC(), KNN(), LEEP(), LogME(), NCE(), NLEEP(), PARC(), SFDA()], ids=str
)
def test_one_class_left_is_undefined_but_no_error(estimator: TransferabilityEstimator) -> None:
    """Class 1 is in the first two cases alone."""
    problem = make_problem(estimator, n_cases=N_CASES, n_rows=12)
    keep = (problem.y != 2) & ((problem.y == 0) | (problem.groups < 2))
    part = problem.of(X=problem.X[keep], y=problem.y[keep], groups=problem.groups[keep])
    features = as_feature_set(estimator, part)
    weights = [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    [whole, undefined] = estimator.fit(features).resample_cases(features, weights)["score"]
    assert np.isfinite(whole)
    assert np.isnan(undefined)


@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
def test_an_ensemble_resamples_its_members() -> None:
    features = problem_set(CCFV())
    members = {"ccfv": CCFV(), "logme": LogME()}
    found = Ensemble(estimators=members).fit(features).resample_cases(features, LEAVE_ONE_OUT)
    for name, member in members.items():
        alone = clone(member).fit(features).resample_cases(features, LEAVE_ONE_OUT)
        np.testing.assert_array_equal(found[name]["score"], alone["score"])
    with pytest.raises(NotFittedError):
        Ensemble().resample_cases(features, LEAVE_ONE_OUT)


class TestRefusals:
    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            (np.ones((2, 4)), r"shape \(n_resamples, 5\)"),
            (np.ones(5), r"shape \(n_resamples, 5\)"),
            (np.full((1, 5), 0.5), "whole numbers"),
            (np.full((1, 5), -1), "whole numbers"),
            (np.zeros((1, 5)), "at least one case"),
        ],
    )
    def test_unusable_weights(self, weights: np.ndarray, message: str) -> None:
        features = problem_set(LogME())
        with pytest.raises(ValueError, match=message):
            LogME().fit(features).resample_cases(features, weights)

    def test_before_fit_and_of_other_layers(self) -> None:
        features = problem_set(LogME())
        with pytest.raises(NotFittedError):
            LogME().resample_cases(features, LEAVE_ONE_OUT)
        other = FeatureSet.from_blocks(features.blocks()[:1])
        with pytest.raises(ValueError, match="not fitted on"):
            LogME().fit(other).resample_cases(features, LEAVE_ONE_OUT)

    @pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
    @pytest.mark.parametrize("name", NAMES)
    def test_of_other_cases(self, name: str) -> None:
        estimator = clone(VARIANTS[name])
        features = problem_set(estimator)
        estimator.fit(features)
        renamed = FeatureSet(
            CaseFeatures(f"other {case.case_id}", case.layers, case.posterior) for case in features
        )
        for others in (features[1:], features[::-1], renamed, problem_set(estimator, n_rows=5)):
            with pytest.raises(ValueError, match="Resample the FeatureSet that it was fitted on"):
                estimator.resample_cases(others, np.ones((1, len(others))))
