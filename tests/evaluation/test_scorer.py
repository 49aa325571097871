"""Scorers: scikit-learn's searches with the ranking itself as the criterion."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from torch import nn

from skte import CCFV, LogME, SegmentationFeatureExtractor
from skte.bank import load_bank
from skte.datasets import make_phantoms
from skte.evaluation import make_bank_scorer
from skte.metrics import weighted_kendall_score


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(4, size=(12, 12, 12))


@pytest.fixture(scope="module")
def bank():
    torch.manual_seed(0)
    return load_bank(
        {
            name: nn.Sequential(nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 2, 1))
            for name in "abcd"
        }
    )


def make_pipeline(bank, score=None):
    extract = SegmentationFeatureExtractor(
        bank["a"], layers=("0",), window_size=12, n_class_samples=50, n_case_samples=50
    )
    return Pipeline([("extract", extract), ("score", CCFV() if score is None else score)])


@pytest.mark.slow
def test_grid_search_over_a_pipelines_parameters(cases, bank):
    pipeline = make_pipeline(bank)

    def scores(**params):
        result = []
        for entry in bank:
            pipeline.set_params(extract__entry=entry, **params)
            result.append(pipeline.fit(cases).score(cases))
        return np.array(result)

    performance = scores(score__s=2.0)  # so that s=2 must win, with correlation one
    scorer = make_bank_scorer(bank, performance)
    search = GridSearchCV(
        make_pipeline(bank),
        {"score__s": [0.5, 2.0]},
        scoring=scorer,
        cv=[(range(4), range(4))],
    ).fit(cases)
    first = weighted_kendall_score(performance, scores(score__s=0.5))
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], [first, 1.0])
    assert search.best_score_ == pytest.approx(1.0)


@pytest.mark.slow
def test_grid_search_may_swap_the_estimator(cases, bank):
    scorer = make_bank_scorer(bank, dict(zip("dcba", range(4), strict=True)))
    search = GridSearchCV(
        make_pipeline(bank), {"score": [CCFV(), LogME()]}, scoring=scorer, cv=2, error_score="raise"
    ).fit(cases)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_bank_scorer_pickles_and_names_missing_models(bank):
    scorer = pickle.loads(pickle.dumps(make_bank_scorer(bank, range(4))))
    assert scorer.keywords["bank"].names == bank.names
    with pytest.raises(ValueError, match=r"lacks the models \['d'\]"):
        make_bank_scorer(bank, {"a": 1, "b": 2, "c": 3})
