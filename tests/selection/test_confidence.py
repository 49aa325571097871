"""How sure a ranking is: errors, intervals, ranks, ties."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from sklearn.base import clone
from torch import nn

from skte import (
    CCFV,
    Ensemble,
    LogME,
    ModelBankSelector,
    RankMe,
    SegmentationFeatureExtractor,
    TransRate,
)
from skte.datasets import make_phantoms
from skte.exceptions import DatasetError, SkteWarning
from skte.selection import BankConfidence, Engine
from skte.selection._confidence import estimate_confidence


def build_net(seed=0, width=4):
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv3d(1, width, 3, padding=1), nn.ReLU(), nn.Conv3d(width, 2, 1))
    torch.random.set_rng_state(state)
    return network


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(5, size=(12, 12, 12))


@pytest.fixture(scope="module")
def bank():
    return {f"net{i}": build_net(i) for i in range(3)}


@pytest.fixture
def extractor():
    return SegmentationFeatureExtractor(layers=("1",), n_class_samples=40, n_case_samples=40)


def confidence(scores, jackknife, *, estimator=None, level=0.9, n_resamples=2000, **kwargs):
    scores = np.asarray(scores, dtype=float)
    jackknife = np.asarray(jackknife, dtype=float)
    failed = np.isnan(scores)
    return estimate_confidence(
        LogME() if estimator is None else estimator,
        [f"m{i}" for i in range(len(scores))],
        scores,
        [None if bad else {"score": s} for s, bad in zip(scores, failed, strict=True)],
        [None if bad else {"score": j} for j, bad in zip(jackknife, failed, strict=True)],
        n_cases=jackknife.shape[1],
        confidence_level=level,
        n_resamples=n_resamples,
        random_state=0,
        **kwargs,
    )


def means_without(values):
    """Scores that are means over cases, without each case."""
    values = np.asarray(values, dtype=float)
    n = values.shape[1]
    return values.mean(axis=1), (values.sum(axis=1, keepdims=True) - values) / (n - 1)


class TestOfMeans:
    """Where a score is a mean over cases, the textbook says what must come out."""

    def test_errors_and_intervals_are_those_of_a_mean(self):
        values = np.random.default_rng(0).normal(size=(3, 8))
        found = confidence(*means_without(values))
        errors = values.std(axis=1, ddof=1) / np.sqrt(8)
        np.testing.assert_allclose(found.standard_errors, errors)
        half = student.ppf(0.95, 7) * errors
        np.testing.assert_allclose(found.intervals[:, 1] - values.mean(axis=1), half)
        gaps = values[:, None] - values
        np.testing.assert_allclose(
            found.difference_errors, gaps.std(axis=2, ddof=1) / np.sqrt(8), atol=1e-12
        )

    def test_two_models_are_told_apart_as_by_a_paired_t_test(self):
        values = np.random.default_rng(0).normal(size=(2, 10))
        found = confidence(*means_without(values), n_resamples=40_000)
        assert found.critical_value == pytest.approx(student.ppf(0.95, 9), rel=0.02)

    def test_more_models_need_larger_differences(self):
        values = np.random.default_rng(0).normal(size=(12, 10))
        two = confidence(*means_without(values[:2])).critical_value
        assert confidence(*means_without(values)).critical_value > 1.5 * two

    def test_pairing_tells_apart_what_intervals_do_not(self):
        rng = np.random.default_rng(1)
        shared = 10 * rng.normal(size=8)
        values = np.stack([shared, shared - 1]) + 0.1 * rng.normal(size=(2, 8))
        found = confidence(*means_without(values))
        assert found.intervals[1, 1] > found.intervals[0, 0]  # they overlap
        assert found.told_apart("m0", "m1")
        np.testing.assert_array_equal(found.groups, [1, 2])
        np.testing.assert_array_equal(found.rank_intervals, [[1, 1], [2, 2]])
        assert found.first_share[0] > 0.99
        assert "ahead of all others" in found.verdict()

    def test_the_best_is_not_counted_among_those_it_cannot_be_told_from(self):
        values = np.random.default_rng(0).normal(size=(6, 7))
        values[4:] -= 100
        values = np.vstack([values, np.full((1, 7), np.nan)])  # nor is one that failed
        verdict = confidence(*means_without(values)).verdict()
        assert verdict.startswith("3 of the 5 other models cannot be distinguished from m")

    @pytest.mark.parametrize(("n", "who"), [(2, "m0 and m1"), (1, "m0")])
    def test_few_that_tie_are_named_best_first(self, n, who):
        values = np.random.default_rng(0).normal(size=(5, 7))
        values += np.array([1.2, 0.8, 2.0, -100, -100])[:, None]
        found = confidence(*means_without(values[[2, *range(n), 3, 4]]))
        names = ["best", *(f"m{i}" for i in range(n)), "far", "farther"]
        found = dataclasses.replace(found, names=names)
        assert found.groups[: n + 1].tolist() == [1] * (n + 1)
        assert found.verdict().startswith(f"{who} cannot be distinguished from best (at ")

    def test_a_low_score_that_varies_is_not_said_to_be_near(self):
        values = np.zeros((4, 8)) + np.array([[3.0], [1.0], [0.9], [0.0]])
        values += 0.01 * np.random.default_rng(0).normal(size=values.shape)
        values[3, 0] -= 40
        found = confidence(*means_without(values))
        assert found.groups.tolist()[:2] == [1, 2]
        assert found.groups[3] == 1
        assert found.verdict().endswith(
            "Of m3, that is because the scores of cases differ so much."
        )

    def test_equal_models_are_rarely_told_apart(self):
        """Familywise: in at most a tenth of the data sets is any of 15 pairs told apart."""
        rng = np.random.default_rng(0)
        wrong = 0
        for _ in range(200):
            shared = rng.normal(size=7)
            values = shared + rng.normal(size=(6, 7))
            found = confidence(*means_without(values), n_resamples=300)
            wrong += bool(found.groups.max() > 1 or (found.rank_intervals != [1, 6]).any())
        assert 0.05 < wrong / 200 < 0.15

    def test_probability_of_being_best_adds_up(self):
        values = np.random.default_rng(0).normal(size=(4, 6))
        values[2] = values[1]  # a tie is shared
        found = confidence(*means_without(values))
        assert found.first_share.sum() == pytest.approx(1)
        assert found.first_share[1] == pytest.approx(found.first_share[2])
        assert not found.told_apart("m1", "m2")


class TestWithoutScores:
    def test_collapsed_come_after_all_and_failed_last(self):
        values = np.random.default_rng(0).normal(size=(2, 6))
        scores, without = means_without(values)
        nothing = np.full((1, 6), np.nan)
        found = confidence(
            [*scores, -np.inf, -np.inf, np.nan],
            np.concatenate([without, np.full((2, 6), -np.inf), nothing]),
        )
        np.testing.assert_array_equal(found.rank_intervals[2:], [[3, 4], [3, 4], [5, 5]])
        assert found.groups[2] == found.groups[3] == found.groups[:2].max() + 1
        assert found.groups[4] == 0
        np.testing.assert_array_equal(found.first_share[2:], 0.0)
        assert np.isnan(found.standard_errors[2:]).all()
        assert (found.intervals[2] == -np.inf).all()
        assert np.isnan(found.intervals[4]).all()
        assert "m4" in str(found)

    def test_a_score_that_hangs_on_one_case_is_sure_of_nothing(self):
        values = np.random.default_rng(0).normal(size=(3, 6)) + np.array([[50], [0], [100]])
        scores, without = means_without(values)
        without[0, 2] = -np.inf
        with pytest.warns(SkteWarning, match=r"'m0'.*\[2\]"):
            found = confidence(scores, without)
        assert np.isnan(found.standard_errors[0])
        np.testing.assert_array_equal(found.intervals[0], [-np.inf, np.inf])
        np.testing.assert_array_equal(found.rank_intervals, [[1, 3], [2, 3], [1, 2]])
        assert np.isnan(found.first_share[0])

    def test_nothing_usable(self):
        found = confidence([-np.inf, np.nan], np.full((2, 4), np.nan))
        np.testing.assert_array_equal(found.groups, [1, 0])
        np.testing.assert_array_equal(found.first_share, 0)

    def test_unknown_model(self):
        found = confidence(*means_without(np.random.default_rng(0).normal(size=(2, 6))))
        with pytest.raises(ValueError, match="no model 'x'"):
            found.told_apart("x", "m0")


class TestSelector:
    @pytest.mark.slow
    def test_results_and_ranking_say_how_sure(self, cases, bank, extractor):
        selector = ModelBankSelector(LogME(), extractor=extractor, confidence_level=0.8)
        selector.fit(bank, cases)
        found = selector.confidence_
        assert isinstance(found, BankConfidence)
        results = selector.results_
        np.testing.assert_array_equal(results["standard_error"], found.standard_errors)
        inside = (results["interval_low"] < results["score"]) & (
            results["score"] < results["interval_high"]
        )
        assert inside.all()
        assert (results["rank_low"] <= results["rank"]).all()
        assert (results["rank"] <= results["rank_high"]).all()
        assert {"first_share", "group"} <= set(results)
        assert "80 % interval" in repr(selector.ranking_)
        assert "80 % interval" in selector.ranking_._repr_html_()
        plain = ModelBankSelector(LogME(), extractor=extractor).fit(bank, cases)
        assert plain.confidence_ is None
        assert "interval" not in repr(plain.ranking_)
        np.testing.assert_array_equal(plain.scores_, selector.scores_)

    @pytest.mark.slow
    def test_errors_are_those_of_leaving_cases_out(self, cases, bank, extractor):
        selector = ModelBankSelector(CCFV(), extractor=extractor, confidence_level=0.9)
        selector.fit(bank, cases)
        without = np.array(
            [
                ModelBankSelector(CCFV(), extractor=extractor)
                .fit(bank, [c for k, c in enumerate(cases) if k != left_out])
                .scores_
                for left_out in range(5)
            ]
        )
        gaps = without - without.mean(axis=0)
        errors = np.sqrt(4 / 5 * (gaps**2).sum(axis=0))
        np.testing.assert_allclose(selector.results_["standard_error"], errors, rtol=1e-6)

    @pytest.mark.slow
    @pytest.mark.usefixtures("forked_workers")
    def test_the_same_from_workers_and_for_each_estimator(self, cases, extractor):
        from skte import BankEntry

        entries = [BankEntry(f"n{i}", build_net, arguments={"seed": i}) for i in range(3)]
        estimators = {"logme": LogME(), "both": Ensemble(estimators={"a": LogME(), "b": RankMe()})}
        alone, parallel = (
            ModelBankSelector(
                estimators, extractor=extractor, confidence_level=0.9, n_jobs=n_jobs
            ).fit(entries, cases)
            for n_jobs in (1, 2)
        )
        for name in ("standard_error", "standard_error_logme", "standard_error_both", "group_both"):
            np.testing.assert_allclose(parallel.results_[name], alone.results_[name], rtol=1e-6)
        np.testing.assert_array_equal(
            alone.results_["standard_error"], alone.results_["standard_error_logme"]
        )
        low, high = alone.results_["interval_low_both"], alone.results_["interval_high_both"]
        assert (low >= -3).all()
        assert (high <= -1).all()  # mean ranks of three models

    @pytest.mark.slow
    def test_the_jackknife_agrees_with_a_bootstrap(self, cases, bank, extractor):
        estimator = LogME()
        selector = ModelBankSelector(estimator, extractor=extractor, confidence_level=0.9)
        known = selector.fit(bank, cases).results_["standard_error"]
        n = len(cases)
        weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=400)
        engine = Engine.from_settings(estimator, extractor=extractor)
        drawn = engine.resampled_scores(
            list(engine.run(list(selector.bank_), cases, weights=weights))
        )
        ratio = np.nanstd(drawn, axis=1) * np.sqrt(n / (n - 1)) / known
        assert ((ratio > 0.5) & (ratio < 1.6)).all()

    def test_cases_in_another_order_change_nothing(self, cases, bank, extractor):
        selector = ModelBankSelector(LogME(), extractor=extractor, confidence_level=0.9)
        a = selector.fit(bank, cases).results_["standard_error"]
        b = clone(selector).fit(bank, cases[::-1]).results_["standard_error"]
        np.testing.assert_allclose(a, b, rtol=1e-7)

    @pytest.mark.slow
    def test_two_cases_are_too_few_and_three_wide(self, cases, bank, extractor):
        selector = ModelBankSelector(CCFV(), extractor=extractor, confidence_level=0.9)
        with pytest.raises(DatasetError, match="confidence_level resamples cases"):
            selector.fit(bank, cases[:2])
        three = selector.fit(bank, cases[:3]).results_
        five = clone(selector).fit(bank, cases).results_
        width = [r["interval_high"] - r["interval_low"] for r in (three, five)]
        assert np.isfinite(width[0]).all()
        assert np.median(width[0] / width[1]) > 1.2

    @pytest.mark.parametrize(
        "params",
        [
            {"confidence_level": 1.0},
            {"confidence_level": 90},
            {"n_resamples": 10},
        ],
    )
    def test_parameters_are_named(self, cases, bank, params):
        selector = ModelBankSelector(CCFV()).set_params(**params)
        with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
            selector.fit(bank, cases)


def test_scores_that_fall_with_every_case_are_corrected():
    """A variance with n in place of n - 1 is too low by 1/n, and the jackknife knows it."""
    values = np.random.default_rng(0).normal(size=(2, 8)) * np.array([[1.0], [3.0]])
    resampled = [[np.delete(row, i).var() for i in range(8)] for row in values]
    scores = values.var(axis=1)
    found = estimate_confidence(
        TransRate(), ["a", "b"], scores, [{"score": s} for s in scores],
        [{"score": np.array(r)} for r in resampled], n_cases=8, confidence_level=0.9,
        n_resamples=20_000, random_state=0,
    )  # fmt: skip
    np.testing.assert_allclose(found.centres, values.var(axis=1, ddof=1), rtol=1e-9)
    np.testing.assert_allclose(found.intervals.mean(axis=1), found.centres)
    np.testing.assert_array_equal(found.scores, scores)
