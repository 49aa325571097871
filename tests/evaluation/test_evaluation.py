"""Evaluation cards and comparisons of estimators, from scores."""

import json

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr, weightedtau
from sklearn.exceptions import NotFittedError

from skte import GBC, LogME, ModelBankSelector
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.evaluation import compare_scores, evaluate_ranking
from skte.metrics import weighted_kendall_test
from skte.selection import Ranking

REACHED = {"a": 0.6, "b": 0.7, "c": 0.75, "d": 0.8, "e": 0.9, "f": 0.65}
SCORES = {"a": -5.0, "b": -2.0, "c": -3.0, "d": -1.0, "e": -1.5, "f": -4.0}


class TestCard:
    def test_numbers_are_those_of_scipy(self):
        row = evaluate_ranking(SCORES, performance=REACHED).rows[0]
        x, y = np.array(list(REACHED.values())), np.array(list(SCORES.values()))
        assert row.weighted_kendall == pytest.approx(weightedtau(x, y).statistic)
        assert row.pearson == pytest.approx(pearsonr(x, y).statistic)
        assert row.spearman == pytest.approx(spearmanr(x, y).statistic)
        assert row.pvalue == weighted_kendall_test(x, y).pvalue
        assert row.regret == pytest.approx({1: 0.1, 3: 0.0})
        assert row.interval[0] <= row.weighted_kendall <= row.interval[1]

    def test_interval_is_wide_with_few_models_and_narrow_with_many(self):
        rng = np.random.default_rng(0)
        truth = rng.normal(size=50)
        scores = truth + rng.normal(size=50)
        few, many = (
            evaluate_ranking(scores[:n], performance=truth[:n], n_resamples=300) for n in (8, 50)
        )
        width = [np.subtract(*card.rows[0].interval[::-1]) for card in (few, many)]
        assert width[0] > 2 * width[1]

    def test_few_models_have_no_interval(self):
        """Draws of three models give -1 to 1, or one number twice."""
        card = evaluate_ranking([1.0, 2.0, 3.0], performance=[0.1, 0.2, 0.3])
        assert np.isnan(card.rows[0].interval).all()
        assert "3 models are too few for an interval: it takes 6." in str(card)
        assert card.to_dict()["rows"][0]["interval"] == [None, None]
        assert "too few" not in str(evaluate_ranking(range(6), performance=range(6)))

    def test_names_decide_not_the_order(self):
        backwards = dict(reversed(SCORES.items()))
        ranking = Ranking.from_scores(list(SCORES), list(SCORES.values()))
        cards = [
            evaluate_ranking(s, performance=REACHED).rows[0] for s in (SCORES, backwards, ranking)
        ]
        for card in cards[1:]:
            assert card.weighted_kendall == pytest.approx(cards[0].weighted_kendall)

    def test_baselines_and_architectures(self):
        card = evaluate_ranking(
            {"ccfv": SCORES, "logme": list(SCORES.values())},
            performance=REACHED,
            size={name: i for i, name in enumerate(REACHED)},
            zero_shot={**REACHED, "e": np.nan},
            architecture=["U", "U", "U", "T", "T", "T"],
        )
        assert [row.method for row in card.rows] == ["ccfv", "logme", "size", "zero-shot"]
        assert card["zero-shot"].regret[1] == pytest.approx(0.1)  # the best has no head
        assert np.isnan(card["zero-shot"].pearson)
        within = {(one.method, one.architecture): one for one in card.within}
        expected = weightedtau([0.6, 0.7, 0.75], [-5.0, -2.0, -3.0]).statistic
        assert within["ccfv", "U"].weighted_kendall == pytest.approx(expected)
        assert within["ccfv", "U"].n_models == 3
        with pytest.raises(KeyError, match="leep"):
            card["leep"]

    def test_models_without_score_or_performance_are_told(self):
        card = evaluate_ranking({**SCORES, "g": 1.0, "a": np.nan}, performance=REACHED)
        assert card.n_models == 5
        assert card.excluded == ["a", "g"]
        assert "left out" in str(card)

    def test_a_score_that_tells_nothing_apart_has_no_correlation(self):
        card = evaluate_ranking(
            {"flat": [1.0] * 4, "up": [1, 2, 3, 4]}, performance=[0.1, 0.2, 0.3, 0.4]
        )
        assert np.isnan(card["flat"].weighted_kendall)
        assert card["up"].weighted_kendall == pytest.approx(1.0)
        assert json.loads(card.to_json())["rows"][0]["weighted_kendall"] is None

    def test_collapsed_models_have_a_place_but_no_size(self):
        row = evaluate_ranking([-np.inf, 1, 2, 3], performance=[0.1, 0.2, 0.3, 0.4]).rows[0]
        assert row.weighted_kendall == pytest.approx(1.0)
        assert np.isnan(row.pearson)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"confidence_level": 95}, "confidence_level"),
            ({"n_resamples": 5}, "n_resamples"),
            ({"ks": [0]}, "ks"),
            ({"ks": []}, "ks"),
            ({"size": [1, 2]}, "size has shape"),
            ({"architecture": ["U"]}, "architecture"),
            ({"architecture": {"a": "U"}}, "architecture lacks"),
            ({"names": ["a"]}, "at least 3"),
            ({"zero_shot": {"x": 1}}, "zero-shot names none"),
        ],
    )
    def test_parameters_are_named(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            evaluate_ranking(SCORES, performance=REACHED, **kwargs)

    @pytest.mark.slow
    def test_a_fitted_selector_gives_a_row_an_estimator(self):
        bank = {f"m{i}": small_unet(widths=(2, 2 + i)) for i in range(3)}
        cases = make_phantoms(3, size=(12, 12, 12))
        for estimator in (LogME(), {"first": LogME(), "second": GBC()}):
            selector = ModelBankSelector(estimator).fit(bank, cases)
            card = evaluate_ranking(selector, performance=[0.3, 0.2, 0.1])  # in bank order
            names = list(estimator) if isinstance(estimator, dict) else ["LogME"]
            assert [row.method for row in card.rows] == names
            expected = weightedtau([0.3, 0.2, 0.1], selector.scores_).statistic
            assert card.rows[0].weighted_kendall == pytest.approx(expected)
        with pytest.raises(NotFittedError):
            evaluate_ranking(ModelBankSelector(GBC()), performance=REACHED)
        with pytest.raises(TypeError, match="got GBC"):
            evaluate_ranking(GBC(), performance=REACHED)

    def test_too_few_or_nothing(self):
        with pytest.raises(ValueError, match="at least 3"):
            evaluate_ranking([1, 2], performance=[0.1, 0.2])
        with pytest.raises(ValueError, match="empty"):
            evaluate_ranking({}, performance=REACHED)
        with pytest.raises(ValueError, match="name of a baseline"):
            evaluate_ranking({"size": SCORES}, performance=REACHED, size=[1, 2, 3, 4, 5, 6])


class TestComparison:
    def test_agreement_and_differences(self):
        rng = np.random.default_rng(0)
        reached = {f"t{i}": rng.normal(size=8) for i in range(6)}
        scores = {
            t: {"best": p, "noisy": p + rng.normal(size=8), "random": rng.normal(size=8)}
            for t, p in reached.items()
        }
        found = compare_scores(scores, performance=reached, n_resamples=200)
        np.testing.assert_allclose(found.weighted_kendall[0], 1.0)
        expected = weightedtau(reached["t2"], scores["t2"]["noisy"]).statistic
        assert found.weighted_kendall[1, 2] == pytest.approx(expected)
        pair = next(p for p in found.pairs if (p.first, p.second) == ("best", "random"))
        assert pair.difference > 0.5
        assert pair.adjusted_pvalue < 0.05
        assert pair.interval[0] > 0
        lines = str(found).splitlines()
        assert [line.split()[0] for line in lines[1:4]] == ["best", "noisy", "random"]

    def test_swap_test_holds_its_level(self):
        """Two equally noisy estimators: small p-values are as rare as they say."""
        rng = np.random.default_rng(0)
        small = 0
        for _ in range(60):
            truth = rng.normal(size=6)
            scores = {"t": {"a": truth + rng.normal(size=6), "b": truth + rng.normal(size=6)}}
            found = compare_scores(scores, performance={"t": truth}, n_resamples=100)
            small += found.pairs[0].pvalue <= 0.2
        assert small <= 20  # 12 expected, sd 3.1

    def test_identical_estimators_do_not_differ(self):
        scores = {"t": {"a": [1, 2, 3], "b": [10, 20, 30]}}
        found = compare_scores(scores, performance={"t": [1, 2, 4]}, n_resamples=100)
        assert found.pairs[0].difference == 0.0
        assert found.pairs[0].pvalue == 1.0

    def test_holm_multiplies_by_the_pairs_left(self):
        rng = np.random.default_rng(1)
        truth = rng.normal(size=9)
        names = {"a": truth, "b": rng.normal(size=9), "c": rng.normal(size=9)}
        pairs = compare_scores({"t": names}, performance={"t": truth}, n_resamples=200).pairs
        ordered = sorted(pairs, key=lambda p: p.pvalue)
        assert ordered[0].adjusted_pvalue == pytest.approx(min(1, 3 * ordered[0].pvalue))
        adjusted = [p.adjusted_pvalue for p in ordered]
        assert adjusted == sorted(adjusted)

    @pytest.mark.parametrize(
        ("scores", "performance", "message"),
        [
            ({"t": {"a": [1, 2], "b": [2, 1]}}, {"u": [1, 2]}, "must be the same"),
            ({"t": {"a": [1, 2]}}, {"t": [1, 2]}, "two or more"),
            ({"t": {"a": [1, 2], "b": [2, 2]}}, {"t": [1, 2]}, "all equal"),
        ],
    )
    def test_what_cannot_be_compared(self, scores, performance, message):
        with pytest.raises(ValueError, match=message):
            compare_scores(scores, performance=performance)

    @pytest.mark.slow
    def test_fitted_selectors_are_taken(self):
        bank = {f"m{i}": small_unet(widths=(2, 2 + i)) for i in range(3)}
        cases = make_phantoms(3, size=(12, 12, 12))
        selector = ModelBankSelector({"logme": LogME(), "gbc": GBC(log=True)}).fit(bank, cases)
        reached = {"m2": 0.3, "m0": 0.1, "m1": 0.2}
        found = compare_scores({"t": selector}, performance={"t": reached}, n_resamples=100)
        assert found.names == ("logme", "gbc")
        scores = dict(zip(selector.names_, selector.results_["score_gbc"], strict=True))
        expected = weightedtau(list(reached.values()), [scores[name] for name in reached])
        assert found.weighted_kendall[1, 0] == pytest.approx(expected.statistic)


def test_kendall_without_weights_is_not_what_is_told():
    """The card tells the weighted one: they differ."""
    x, y = list(REACHED.values()), list(SCORES.values())
    assert evaluate_ranking(y, performance=x).rows[0].weighted_kendall != kendalltau(x, y).statistic


def test_many_lists_at_once_are_as_by_scipy():
    from skte.metrics import weighted_kendall_rows

    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 6, size=(2, 40, 7)).astype(float)
    expected = [weightedtau(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(weighted_kendall_rows(x, y), expected, atol=1e-12)
    np.testing.assert_allclose(
        weighted_kendall_rows(-x, -y)[0], weightedtau(-x[0], -y[0]).statistic
    )
    assert np.isnan(weighted_kendall_rows(np.ones(4), np.arange(4.0))).all()
