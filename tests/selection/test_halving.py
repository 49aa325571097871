"""Races: who is dropped when, what is run, and what is told of it."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning
from torch import nn

from skte import KNN, Ensemble, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.evaluation import rank_learning_curve
from skte.evaluation._learning_curve import _curve, _draws
from skte.exceptions import DatasetError, SkteError
from skte.report import RankingDisplay, SeenTable, write_report
from skte.selection import HalvingModelBankSelector
from skte.selection._confidence import estimate_confidence
from skte.selection._halving import outpaced, rung_sizes

SEEN = Counter()  # windows, by seed: not in the network, whose content is its identity


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        self.up = nn.Conv3d(1, 4, 3, padding=1)
        self.head = nn.Conv3d(4, 2, 1)
        torch.random.set_rng_state(state)
        self.seed = seed

    def forward(self, x):
        SEEN[self.seed] += len(x)
        return self.head(torch.relu(self.up(x)))


class Angry(Net):
    def forward(self, x):
        raise RuntimeError("no thanks")


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(8, size=(12, 12, 12))


@pytest.fixture
def extractor():
    return SegmentationFeatureExtractor(layers=("up",), n_class_samples=40, n_case_samples=40)


def make_bank(n=4):
    return {f"net{i}": Net(seed=i) for i in range(n)}


class TestStep:
    def test_paired_t_test_against_the_leader(self):
        rng = np.random.default_rng(0)
        values = rng.normal(size=(2, 6)) + np.array([[0.9], [0.0]])
        scores = values.mean(axis=1)
        without = (values.sum(axis=1, keepdims=True) - values) / 5
        step = outpaced(scores, without, n_total=None, n_keep=1, confidence_level=0.9)
        gaps = values[0] - values[1]
        error = gaps.std(ddof=1) / np.sqrt(6)
        assert step.gap_error[1] == pytest.approx(error)
        assert step.dropped[1] == (gaps.mean() > student.ppf(0.9, 5) * error)
        # Half of the cases are known already.
        half = outpaced(scores, without, n_total=12, n_keep=1, confidence_level=0.9)
        assert half.gap_error[1] == pytest.approx(error * np.sqrt(0.5))

    @pytest.mark.slow
    def test_false_drops_are_as_rare_as_stated(self):
        """Two models, twelve cases, three of them seen: the winner is lost in 1 of 10 at most."""
        rng = np.random.default_rng(0)
        lost = 0
        for _ in range(3000):
            values = rng.normal(size=(2, 12))
            seen = values[:, :3]
            scores = seen.mean(axis=1)
            without = (seen.sum(axis=1, keepdims=True) - seen) / 2
            step = outpaced(scores, without, n_total=12, n_keep=1, confidence_level=0.9)
            lost += step.dropped[values.mean(axis=1).argmax()]
        assert 0.02 < lost / 3000 < 0.1

    def test_failed_and_collapsed_models_are_out(self):
        scores = np.array([1.0, 0.9, -np.inf, np.nan])
        without = np.tile(scores[:, None], 4) + np.array([[0, 1, 0, 1]] * 2 + [[0] * 4] * 2)
        step = outpaced(scores, without, n_total=8, n_keep=1, confidence_level=0.95)
        np.testing.assert_array_equal(step.dropped, [False, True, True, True])
        alone = outpaced(scores[2:], without[2:], n_total=8, n_keep=1, confidence_level=0.95)
        np.testing.assert_array_equal(alone.dropped, [False, True])

    def test_the_best_few_are_never_out(self):
        scores = np.arange(5.0)
        without = np.tile(scores[:, None], 4)
        step = outpaced(scores, without, n_total=8, n_keep=3, confidence_level=0.95)
        np.testing.assert_array_equal(step.dropped, [True, True, False, False, False])

    def test_an_unknown_error_drops_no_one(self):
        without = np.array([[1.0, 1.1, 0.9], [np.nan, 0.0, 0.0]])
        step = outpaced(np.array([1.0, 0.0]), without, n_total=9, n_keep=1, confidence_level=0.9)
        assert not step.dropped.any()

    @pytest.mark.parametrize(
        ("args", "expected"),
        [
            ((30, 4, 2), [4, 8, 16, 30]),
            ((4, 4, 2), [4]),
            ((5, 4, 2), [5]),
            ((40, 4, 3), [4, 12, 40]),
        ],
    )
    def test_rungs(self, args, expected):
        assert rung_sizes(*args) == expected


class TestRace:
    @pytest.mark.slow
    def test_the_winner_has_the_score_of_the_full_evaluation(self, cases, extractor):
        race = HalvingModelBankSelector(
            LogME(), extractor=extractor, min_cases=3, factor=2, elimination="halving"
        ).fit(make_bank(), cases)
        full = ModelBankSelector(LogME(), extractor=extractor).fit(make_bank(), cases)
        # Three of eight cases, then six would be hardly fewer than all.
        assert race.n_resources_ == [3, 8]
        assert race.n_candidates_ == [4, 2]
        assert race.n_iterations_ == 2
        position = race.names_.index(race.best_name_)
        assert race.scores_[position] == pytest.approx(full.scores_[position], rel=1e-9)
        assert sorted(race.ranking_) == sorted(full.ranking_)
        np.testing.assert_array_equal(race.ranks_[position], 1)
        assert race.cost_ == pytest.approx((4 * 3 + 2 * 5) / (4 * 8))
        frame = pd.DataFrame(race.rung_results_)
        assert len(frame) == 6
        assert frame["n_windows"].sum() == 4 * 3 + 2 * 5
        assert frame.groupby("iter")["dropped"].sum().tolist() == [2, 0]

    @pytest.mark.slow
    def test_the_first_of_several_estimators_decides(self, cases, extractor, tmp_path):
        several = {"logme": LogME(), "knn": KNN()}
        race = HalvingModelBankSelector(
            several, extractor=extractor, min_cases=3, factor=2, elimination="halving",
            reference=False,
        )  # fmt: skip
        alone = clone(race).set_params(estimator=LogME())
        race, alone = race.fit(make_bank(), cases), alone.fit(make_bank(), cases)
        assert race.ranking_ == alone.ranking_
        np.testing.assert_array_equal(race.scores_, alone.scores_)
        results = race.results_.to_frame().sort_values("rank")
        assert results["name"].tolist() == list(race.ranking_)
        assert results["n_cases"].tolist() == [8, 8, 3, 3]
        assert results["n_windows"].tolist() == [8, 8, 3, 3]  # of both rungs
        full = ModelBankSelector(KNN(), extractor=extractor).fit(make_bank(), cases)
        by_name = dict(zip(full.names_, full.scores_, strict=True))
        expected = [*(by_name[name] for name in race.ranking_[:2]), np.nan, np.nan]
        np.testing.assert_allclose(results["score_knn"], expected, rtol=1e-9)
        # A dropped model may score higher on its few cases: places are those of the race.
        assert results["rank_logme"].tolist() == [1, 2, 3, 4]
        assert [row[2].split()[1] for row in race.ranking_.rows()] == ["(1)", "(2)", "(3)", "(4)"]
        assert [row[3] for row in race.ranking_.rows()[2:]] == ["-", "-"]
        assert RankingDisplay.from_selector(race).names == race.ranking_.names
        rungs = "halving, 0.95: 4 models on 3 cases, 2 models on 8 cases"
        assert SeenTable.from_selector(race).facts["race"] == rungs
        page = write_report(race, tmp_path / "race.html", n_cases=0, explain=False)
        assert rungs in page.read_text("utf-8")

    @pytest.mark.slow
    @pytest.mark.parametrize("kept", ["on disk", "in memory"])
    def test_no_case_is_run_twice(self, cases, extractor, monkeypatch, kept):
        if kept == "in memory":
            monkeypatch.setattr("skte.selection._halving.entry_digest", lambda entry: None)
        race = HalvingModelBankSelector(
            LogME(), extractor=extractor, min_cases=3, factor=1.5, confidence_level=0.999
        )
        SEEN.clear()
        race.fit(make_bank(2), cases)
        assert race.n_resources_ == [3, 4, 8]
        raced = dict(SEEN)
        SEEN.clear()
        full = ModelBankSelector(LogME(), extractor=extractor).fit(make_bank(2), cases)
        for seed, seen in SEEN.items():
            # A look for layers in each rung, where nothing is kept of the model: a trace and
            # seven passes of the probe.
            assert seen <= raced[seed] <= seen + (2 * 8 if kept == "in memory" else 0)
        np.testing.assert_allclose(race.scores_, full.scores_, rtol=1e-7)
        windows = pd.DataFrame(race.rung_results_).groupby("iter")["n_windows"].sum()
        assert windows.tolist() == [6, 2, 8]

    def test_a_decided_race_ends(self, cases, extractor):
        race = HalvingModelBankSelector(LogME(), extractor=extractor, min_cases=3, n_keep=3)
        race.fit(make_bank(3), cases)
        assert race.n_resources_ == [3]
        assert race.cost_ == pytest.approx(3 / 8)
        assert "The race was decided after 3 of 8 cases." in " ".join(race.answer_.certainty)
        assert race.diagnose("net1", "logme").layers[0][0] == "up"

    def test_twins_are_compared_at_the_level_of_a_full_ranking(self, cases, monkeypatch):
        levels = []

        def spy(*args, confidence_level, **kwargs):
            levels.append(confidence_level)
            return estimate_confidence(*args, confidence_level=confidence_level, **kwargs)

        monkeypatch.setattr("skte.selection._reference.estimate_confidence", spy)
        for selector in (HalvingModelBankSelector(LogME()), ModelBankSelector(LogME())):
            selector.fit(make_bank(1), cases[:4])
        assert levels == [0.9, 0.9]

    @pytest.mark.slow
    def test_the_same_race_from_the_same_seed(self, cases, extractor):
        race = HalvingModelBankSelector(LogME(), extractor=extractor, min_cases=3)
        a, b = (clone(race).fit(make_bank(), cases) for _ in range(2))
        assert list(a.ranking_) == list(b.ranking_)
        np.testing.assert_array_equal(a.rung_results_["gap"], b.rung_results_["gap"])

    def test_failures_are_last_and_told(self, cases, extractor):
        bank = {"angry": Angry(), **make_bank(2)}
        race = HalvingModelBankSelector(
            LogME(), extractor=extractor, min_cases=3, error_score=np.nan
        )
        with pytest.warns(FitFailedWarning, match="angry"):
            race.fit(bank, cases)
        assert race.ranking_[-1] == "angry"
        assert np.isnan(race.ranks_).tolist() == [True, False, False]
        assert "  -  angry" in repr(race.ranking_)
        assert "no thanks" in race.rung_results_["error"][0]
        with pytest.warns(FitFailedWarning), pytest.raises(SkteError, match="Every model"):
            clone(race).fit({"angry": Angry()}, cases)
        with pytest.raises(SkteError, match="no thanks"):
            clone(race).set_params(error_score="raise").fit(bank, cases)

    def test_what_cannot_race(self, cases, extractor):
        with pytest.raises(DatasetError, match="min_cases=4"):
            HalvingModelBankSelector(LogME(), extractor=extractor).fit(make_bank(), cases[:3])
        with pytest.raises(SkteError, match="Ensemble scores models relative to the bank"):
            HalvingModelBankSelector(Ensemble()).fit(make_bank(), cases)

    @pytest.mark.parametrize(
        "params",
        [{"min_cases": 2}, {"factor": 1}, {"n_keep": 0}, {"elimination": "luck"},
         {"confidence_level": 95}],
        ids=str,
    )  # fmt: skip
    def test_parameters_are_named(self, cases, params):
        race = HalvingModelBankSelector(LogME()).set_params(**params)
        with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
            race.fit(make_bank(), cases)


class TestLearningCurve:
    def test_scores_are_those_of_parts_of_the_cases(self, cases, extractor):
        curve = rank_learning_curve(
            LogME(), make_bank(3), cases, n_cases=[2, 4, 8], n_draws=3, extractor=extractor
        )
        full = ModelBankSelector(LogME(), extractor=extractor).fit(make_bank(3), cases)
        np.testing.assert_allclose(curve.scores, full.scores_, rtol=1e-7)
        np.testing.assert_allclose(curve.score_mean[:, 2], full.scores_, rtol=1e-7)
        np.testing.assert_allclose(curve.score_std[:, 2], 0)
        assert curve.kendall_to_all[2] == 1.0
        assert np.isnan(curve.kendall_apart[2])
        assert "cases" in str(curve)

    def test_clear_differences_are_stable_from_few_cases_on(self):
        weights, rows = _draws(12, [2, 4, 6, 12], 20, 0)
        values = np.arange(4.0)[:, None] + 0.01 * np.random.default_rng(0).normal(size=(4, 12))
        scores = values @ weights.T / weights.sum(axis=1)
        curve = _curve(list("abcd"), scores, [2, 4, 6, 12], rows, 0.9)
        assert curve.suggested_n_cases == 2
        assert "2 of the 12 cases" in curve.suggestion
        np.testing.assert_allclose(curve.top1_apart[:3], 1.0)

    def test_noise_needs_more_cases_than_there_are(self):
        rng = np.random.default_rng(0)
        weights, rows = _draws(12, [2, 6, 12], 60, 0)
        values = 0.5 * np.arange(6.0)[:, None] + 2 * rng.normal(size=(6, 12))
        scores = values @ weights.T / weights.sum(axis=1)
        curve = _curve(list("abcdef"), scores, [2, 6, 12], rows, 0.95)
        assert curve.suggested_n_cases > 12
        assert "may take about" in curve.suggestion
        # Draws that share cases with all of them agree more than separate ones.
        assert curve.kendall_to_all[1] > curve.kendall_apart[1]
        # Spearman-Brown, by hand.
        r = curve.reliability
        longer = curve.suggested_n_cases / 6
        assert longer * r / (1 + (longer - 1) * r) == pytest.approx(0.95, abs=0.01)

    def test_alike_models_on_top_are_named_and_no_number_is_promised(self):
        weights, rows = _draws(12, [2, 6, 12], 60, 0)
        values = np.repeat([0.0, 1, 2, 3, 4, 5, 5], 12).reshape(7, 12)
        values[-2:] += 0.1 * np.random.default_rng(0).normal(size=(2, 12))
        scores = values @ weights.T / weights.sum(axis=1)
        curve = _curve(list("abcdefg"), scores, [2, 6, 12], rows, 0.95)
        assert curve.kendall_apart[1] < 0.95 < curve.reliability
        assert curve.suggested_n_cases is None
        assert "first places" in curve.suggestion

    def test_separate_draws_share_no_case(self):
        weights, rows = _draws(9, [2, 4, 9], 5, 0)
        for size in (2, 4):
            for i, j in rows[size]:
                assert weights[i].sum() == weights[j].sum() == size
                assert not (weights[i] & weights[j]).any()
        assert rows[9] == [(len(weights) - 1,)]

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"n_draws": 1}, "n_draws"),
            ({"target": 1.5}, "target"),
            ({"n_cases": [1, 2]}, "from 2 to 8"),
            ({"n_cases": [2, 2]}, "distinct"),
            ({"n_cases": [5, 8]}, "half"),
        ],
    )
    def test_parameters_are_named(self, cases, kwargs, message):
        with pytest.raises(ValueError, match=message):
            rank_learning_curve(LogME(), make_bank(2), cases, **kwargs)

    def test_too_few_cases(self, cases):
        with pytest.raises(DatasetError, match="at least four"):
            rank_learning_curve(LogME(), make_bank(2), cases[:3])

    def test_a_broken_case_is_refused_before_any_model_runs(self, cases):
        image = np.zeros((12, 12, 12))
        odd = {"id": "odd", "image": image, "label": image[:8]}
        with pytest.raises(DatasetError, match=r"cannot be used:\n- Case 'odd'"):
            rank_learning_curve(LogME(), {"never": Refuses()}, [*cases[:4], odd])


class Refuses(nn.Module):
    def forward(self, x):
        raise AssertionError("run")


@pytest.mark.parametrize("n_total", [None, 12, 40])
def test_a_gap_of_means_has_the_textbook_error_of_a_sample_without_replacement(n_total):
    values = np.random.default_rng(0).normal(size=(2, 8)) + np.array([[3.0], [0.0]])
    n = values.shape[1]
    without = (values.sum(axis=1, keepdims=True) - values) / (n - 1)
    step = outpaced(values.mean(axis=1), without, n_total=n_total, n_keep=1, confidence_level=0.9)
    difference = values[0] - values[1]
    correction = 1.0 if n_total is None else 1 - n / n_total
    expected = np.sqrt(difference.var(ddof=1) / n * correction)
    np.testing.assert_allclose(step.gap_error[1], expected, rtol=1e-12)
