"""Metrics of a ranking against scipy, hand-made lists and brute force."""

import itertools

import numpy as np
import pytest
from scipy import stats

from skte.metrics import (
    align_performance,
    pearson_score,
    regret_at_k,
    relative_top1,
    spearman_score,
    weighted_kendall_rows,
    weighted_kendall_score,
    weighted_kendall_test,
)

METRICS = [weighted_kendall_score, pearson_score, spearman_score]


def pairs(n_models, n_lists, seed=0, tied=False):
    rng = np.random.default_rng(seed)
    for _ in range(n_lists):
        a, b = rng.normal(size=(2, n_models))
        yield (np.round(a), np.round(b)) if tied else (a, b)


@pytest.mark.parametrize("n_models", [2, 3, 10, 25])
def test_weighted_kendall_is_scipys(n_models):
    for performance, scores in pairs(n_models, 20):
        expected = stats.weightedtau(performance, scores).statistic
        assert weighted_kendall_score(performance, scores) == pytest.approx(expected, abs=1e-12)


def test_weighted_kendall_by_hand():
    # ranks by either list: models 2, 1, 0 and 1, 2, 0; weights 1/(r + 1), pairs add
    def index(weight):
        signs = {(0, 1): 1, (0, 2): 1, (1, 2): -1}
        total = sum(weight[i] + weight[j] for i, j in signs)
        return sum(s * (weight[i] + weight[j]) for (i, j), s in signs.items()) / total

    by_first = index({2: 1, 1: 1 / 2, 0: 1 / 3})
    by_second = index({1: 1, 2: 1 / 2, 0: 1 / 3})
    assert weighted_kendall_score([1, 2, 3], [1, 3, 2]) == pytest.approx((by_first + by_second) / 2)


def test_collapsed_scores_are_an_ordinary_last_place():
    performance = [0.5, 0.9, 0.7, 0.8]
    assert weighted_kendall_score(performance, [-np.inf, 3, 1, 2]) == pytest.approx(1)
    assert spearman_score(performance, [-np.inf, 3, 1, 2]) == pytest.approx(1)
    expected = weighted_kendall_score(performance, [-9, -9, 1, 2])
    assert weighted_kendall_score(performance, [-np.inf, -np.inf, 1, 2]) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"scores of models \[0\] are \[-inf\]"):
        pearson_score(performance, [-np.inf, 3, 1, 2])


@pytest.mark.parametrize("tied", [False, True])
def test_vectorised_tau_is_scipys_on_every_order(tied):
    for performance, scores in pairs(5, 4, tied=tied):
        if len(set(performance)) == 1 or len(set(scores)) == 1:
            continue
        ranks = stats.rankdata(performance)
        orders = np.array(list(itertools.permutations(stats.rankdata(scores))))
        expected = [stats.weightedtau(ranks, order).statistic for order in orders]
        np.testing.assert_allclose(weighted_kendall_rows(ranks, orders), expected, atol=1e-12)


def test_pvalue_of_few_models_is_exact():
    performance, scores = next(pairs(5, 1, seed=3))
    orders = np.array(list(itertools.permutations(scores)))
    null = np.array([stats.weightedtau(performance, order).statistic for order in orders])
    result = weighted_kendall_test(performance, scores)
    assert result.pvalue == pytest.approx(np.mean(null >= result.statistic - 1e-12))
    assert result.null_std == pytest.approx(null.std())
    assert result.n_models == 5


@pytest.mark.parametrize(("n_models", "expected"), [(5, 0.44), (10, 0.29), (20, 0.21)])
def test_null_spread_is_the_documented_one(n_models, expected):
    result = weighted_kendall_test(np.arange(n_models), np.arange(n_models))
    assert result.null_std == pytest.approx(expected, abs=0.01)
    assert result.statistic == pytest.approx(1)


def test_pvalue_of_many_models_is_uniform_under_the_null():
    pvalues = [
        weighted_kendall_test(p, s, n_permutations=200, random_state=i).pvalue
        for i, (p, s) in enumerate(pairs(12, 200, seed=1))
    ]
    assert min(pvalues) >= 1 / 201
    assert stats.kstest(pvalues, "uniform").pvalue > 0.01
    assert weighted_kendall_test(np.arange(12), np.arange(12)).pvalue == pytest.approx(1 / 10_001)


def test_pearson_and_spearman_are_scipys():
    for performance, scores in pairs(9, 10):
        assert pearson_score(performance, scores) == pytest.approx(
            stats.pearsonr(performance, scores).statistic
        )
    for performance, scores in pairs(9, 10, tied=True):
        assert spearman_score(performance, scores) == pytest.approx(
            stats.spearmanr(performance, scores).statistic
        )


def test_regret_by_brute_force():
    for performance, scores in pairs(8, 10):
        order = np.argsort(-scores)
        for k in range(1, 9):
            expected = performance.max() - max(performance[i] for i in order[:k])
            assert regret_at_k(performance, scores, k) == pytest.approx(expected)
    assert regret_at_k([0.1, 0.9], [1.0, 1.0], 1) == pytest.approx(0.8)  # ties: list order
    assert regret_at_k([0.5, 0.5], [1.0, 2.0]) == 0
    assert relative_top1([0.4, 0.8], [2.0, 1.0]) == pytest.approx(0.5)


@pytest.mark.parametrize("metric", [*METRICS, regret_at_k])
def test_bad_lists_are_named(metric):
    with pytest.raises(ValueError, match=r"scores of models \[1\] are \[nan\]"):
        metric([0.1, 0.2, 0.3], [1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match=r"performance of models \[0\] are \[inf\]"):
        metric([np.inf, 0.2], [1.0, 2.0])
    with pytest.raises(ValueError, match="has 3 models, scores have 2"):
        metric([0.1, 0.2, 0.3], [1.0, 2.0])
    with pytest.raises(ValueError, match="needs two"):
        metric([0.1], [1.0])
    with pytest.raises(ValueError, match="1-D"):
        metric([[0.1, 0.2]], [1.0, 2.0])


@pytest.mark.parametrize("metric", METRICS)
def test_constant_lists_are_errors(metric):
    with pytest.raises(ValueError, match="performance are all equal"):
        metric([0.5, 0.5], [1.0, 2.0])
    with pytest.raises(ValueError, match="scores are all equal"):
        metric([0.5, 0.6], [2.0, 2.0])


def test_k_and_share_are_checked():
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"k={k} must lie between 1"):
            regret_at_k([0.1, 0.2], [1, 2], k)
    with pytest.raises(ValueError, match="no positive value"):
        relative_top1([-1.0, 0.0], [1, 2])


def test_align_performance():
    np.testing.assert_array_equal(align_performance({"b": 2, "a": 1, "c": 9}, ["a", "b"]), [1, 2])
    np.testing.assert_array_equal(align_performance([1, 2], ["a", "b"]), [1, 2])
    with pytest.raises(ValueError, match=r"lacks the models \['b'\]"):
        align_performance({"a": 1}, ["a", "b"])
    with pytest.raises(ValueError, match="bank has 2 models"):
        align_performance([1], ["a", "b"])


@pytest.mark.parametrize("position", [0, 1])
def test_mappings_are_refused_by_name(position):
    lists = [[0.1, 0.2], [0.3, 0.4]]
    lists[position] = {"a": 1, "b": 2}
    name = ["performance", "scores"][position]
    with pytest.raises(TypeError, match=f"^{name} is a mapping.*for name in names"):
        weighted_kendall_score(*lists)
