"""Ensemble: ranks of a bank, aggregated; no score for a model alone."""

import numpy as np
import pytest
from scipy.stats import rankdata, zscore
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skte import ModelBankSelector
from skte.estimators import CCFV, GBC, LEEP, Ensemble, LogME, TransRate
from tests.estimator_problems import make_problem

MEMBERS = {"ccfv": CCFV(), "logme": LogME(), "transrate": TransRate()}


def bank_of_parts(ensemble, n_models=5):
    problems = [make_problem(seed=s, separation=0.5 * s) for s in range(n_models)]
    parts = [clone(ensemble).fit(p.X, p.y, groups=p.groups).part_ for p in problems]
    scores = {k: np.array([p.score(m) for p in problems]) for k, m in MEMBERS.items()}
    return parts, scores


@pytest.mark.parametrize(
    ("method", "oracle"),
    [
        ("mean_rank", lambda s: -rankdata(-s)),
        ("z_mean", zscore),
    ],
)
def test_aggregates_as_defined(method, oracle):
    ensemble = Ensemble(estimators=MEMBERS, method=method)
    parts, scores = bank_of_parts(ensemble)
    expected = np.mean([oracle(s) for s in scores.values()], axis=0)
    np.testing.assert_allclose(ensemble.combine(parts), expected)


def test_ties_and_weights():
    ensemble = Ensemble(estimators={"a": CCFV(), "b": LogME()}, weights={"a": 3.0, "b": 1.0})
    a, b = [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]
    parts = [{"a": {"score": x}, "b": {"score": y}} for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(
        ensemble.combine(parts), [-(3 * 1.5 + 3) / 4, -(3 * 1.5 + 2) / 4, -(3 * 3 + 1) / 4]
    )


@pytest.mark.parametrize("method", ["mean_rank", "z_mean"])
def test_collapsed_models_come_last_and_constant_members_are_mute(method):
    ensemble = Ensemble(estimators={"a": CCFV(), "b": LogME()}, method=method)
    scores = [[-1.0, 0.1], [-np.inf, 0.1], [-2.0, 0.1]]
    parts = [{"a": {"score": a}, "b": {"score": b}} for a, b in scores]
    combined = ensemble.combine(parts)
    assert not np.isnan(combined).any()
    assert np.argsort(-combined).tolist() == [0, 2, 1]


def test_members_may_be_ensembles():
    inner = Ensemble(estimators={"ccfv": CCFV(), "logme": LogME()})
    outer = Ensemble(estimators={"two": inner, "transrate": TransRate()})
    parts, scores = bank_of_parts(outer)
    two = -(rankdata(-scores["ccfv"]) + rankdata(-scores["logme"])) / 2
    expected = -(rankdata(-two) + rankdata(-scores["transrate"])) / 2
    np.testing.assert_allclose(outer.combine(parts), expected)
    problem = make_problem()
    assert "two" in str(outer.fit(problem.X, problem.y, groups=problem.groups).diagnose())


def test_there_is_no_score_for_a_model_alone():
    problem = make_problem()
    ensemble = Ensemble().fit(problem.X, problem.y, groups=problem.groups)
    assert set(ensemble.estimators_) == {"logme", "hscore", "knn"}
    assert not hasattr(ensemble, "score_")
    assert not hasattr(ensemble, "score")
    # sklearn names the attribute, and our reason is its cause.
    with pytest.raises(AttributeError) as caught:
        ensemble.score()
    assert "ModelBankSelector(Ensemble" in str(caught.value.__cause__)
    pipeline = make_pipeline(StandardScaler(), Ensemble())
    assert not hasattr(pipeline, "score")
    assert "hscore" in str(ensemble.diagnose())


def test_unusable_members_are_named():
    problem = make_problem()
    with pytest.raises(TypeError, match=r"wrong: \['a'\]"):
        Ensemble(estimators={"a": 3}).fit(problem.X, problem.y)
    with pytest.raises(TypeError, match="non-empty"):
        Ensemble(estimators={}).fit(problem.X, problem.y)
    with pytest.raises(ValueError, match=r"Member 'leep' of the Ensemble: .*sum"):
        Ensemble(estimators={"leep": LEEP()}).fit(problem.X, problem.y)
    for weights in ({"a": 1.0}, {"ccfv": 0.0}, {"ccfv": -1.0}, {"ccfv": np.inf}, {"ccfv": "2"}):
        with pytest.raises(ValueError, match="positive"):
            Ensemble(estimators={"ccfv": CCFV()}, weights=weights).fit(problem.X, problem.y)
    for use in (lambda: Ensemble().part_, lambda: Ensemble().diagnose()):
        with pytest.raises(NotFittedError, match="not fitted"):
            use()
    with pytest.raises(ValueError, match="part without member 'ccfv'"):
        Ensemble(estimators={"ccfv": CCFV()}).combine([{"score": 1.0}])


def test_clones_do_not_share_members():
    ensemble = Ensemble(estimators={"gbc": GBC()})
    copy = clone(ensemble)
    copy.estimators["gbc"].set_params(n_components=3)
    assert ensemble.estimators["gbc"].n_components == 64


@pytest.mark.slow
def test_selector_combines_over_the_bank():
    torch = pytest.importorskip("torch")
    from skte.datasets import make_phantoms

    cases = make_phantoms(3, size=(16, 16, 16))
    nn = torch.nn
    bank = {
        f"w{w}": nn.Sequential(nn.Conv3d(1, w, 3, padding=1), nn.Conv3d(w, 2, 1)) for w in (4, 8, 6)
    }
    members = {"ccfv": CCFV(), "logme": LogME()}
    alone = ModelBankSelector(members).fit(bank, cases)
    selector = ModelBankSelector(Ensemble(estimators=members)).fit(bank, cases)
    ranks = alone.results_["rank_ccfv"] + alone.results_["rank_logme"]
    np.testing.assert_allclose(selector.scores_, -ranks / 2)
    # A smaller bank is another bank: ranks are among its own models.
    some = {name: bank[name] for name in ("w8", "w6")}
    assert set(selector.predict(some)) <= {-1.0, -1.5, -2.0}
