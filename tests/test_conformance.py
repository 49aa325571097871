"""The contract of every estimator: scikit-learn's own checks, and ours."""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from skte.estimators import CCFV, LEEP, NCE, CrossCaseProbe, TransferabilityEstimator
from skte.features import FeatureSet
from tests.estimator_problems import (
    ESTIMATOR_NAMES,
    ESTIMATORS,
    VARIANTS,
    as_feature_set,
    make_problem,
    wants_probabilities,
)

Estimator = TransferabilityEstimator
Check = Callable[[Estimator], None]


class ProbeOfThirds(CrossCaseProbe):
    """The probe with cases made up where none are given, for sklearn's arrays."""

    def fit(self, X, y=None, *, groups=None):  # type: ignore[no-untyped-def]
        return super().fit(X, y, groups=_thirds(X) if groups is None else groups)

    def score(self, X=None, y=None, *, groups=None):  # type: ignore[no-untyped-def]
        if X is not None and groups is None:
            groups = _thirds(X)
        return super().score(X, y, groups=groups)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def _thirds(X: object) -> NDArray[np.intp] | None:
    try:
        return np.arange(len(X)) // 2 % 3  # type: ignore[arg-type]
    except TypeError:  # what sklearn's checks expect to be refused
        return None


# By default LEEP and NCE take probabilities only, so their tags keep sklearn's random
# arrays away; with logits the same classes go through all of them.
SKLEARN_CHECKED = [
    *(cls() for cls in ESTIMATORS.values()),
    ProbeOfThirds(),
    LEEP(input="logits"),
    NCE(input="logits"),
]

with warnings.catch_warnings():
    # sklearn says at collection that it has next to nothing to check for LEEP() and NCE().
    warnings.simplefilter("ignore")
    sklearn_checks = parametrize_with_checks(SKLEARN_CHECKED)


# sklearn's random labels give some checks a class with one row, or coinciding features.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::skte.exceptions.SkteWarning")
@pytest.mark.no_cover
@sklearn_checks
def test_sklearn_check(estimator: Estimator, check: Callable[[Estimator], None]) -> None:
    check(estimator)


def check_score_equals_fitted_score(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    fitted = clone(estimator).fit(problem.X, problem.y, groups=problem.groups)
    assert problem.score(estimator) == fitted.score_ == fitted.score()
    assert problem.score(fitted) == fitted.score_


def check_fitted_attributes(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    fitted = clone(estimator).fit(problem.X, problem.y, groups=problem.groups)
    assert type(fitted.score_) is float
    assert fitted.layer_scores_.dtype == np.float64
    assert fitted.layer_scores_.tolist() == [fitted.score_]
    assert len(fitted.layer_names_) == 1
    assert fitted.n_features_in_ == problem.X.shape[1]


def check_scoring_does_not_change_the_fit(estimator: Estimator) -> None:
    problem, other = make_problem(estimator), make_problem(estimator, seed=1)
    fitted = clone(estimator).fit(problem.X, problem.y, groups=problem.groups)
    before = fitted.score_
    assert other.score(fitted) != before
    assert fitted.score() == before


def check_score_needs_a_fit_or_features(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    with pytest.raises(NotFittedError, match="call fit"):
        clone(estimator).score()
    with pytest.raises(ValueError, match="without X"):
        clone(estimator).score(None, problem.y)
    if not estimator.tags.labels:
        return
    with pytest.raises(ValueError, match="requires y"):
        clone(estimator).score(problem.X)


def check_feature_doors_agree(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    expected = problem.score(estimator)
    assert estimator.score(problem.block()) == expected
    if estimator.tags.source_head and not wants_probabilities(estimator):
        return  # a FeatureSet holds probabilities, the array logits
    features = as_feature_set(estimator, problem)
    if getattr(estimator, "max_samples", np.inf) >= len(problem.y):  # else they draw other rows
        assert estimator.score(features) == pytest.approx(expected, rel=1e-12)
    assert estimator.score(list(features)) == estimator.score(features)
    fitted = clone(estimator).fit(features)
    assert fitted.score_ == estimator.score(features)
    assert not hasattr(fitted, "n_features_in_")


def check_layers_are_joined(estimator: Estimator) -> None:
    if not estimator.tags.joined_layers:
        return
    problems = [make_problem(estimator, seed=s, n_channels=4 + s) for s in range(2)]
    together = problems[0].of(X=np.hstack([p.X for p in problems]))
    fitted = clone(estimator).fit(as_feature_set(estimator, *problems))
    assert fitted.score_ == together.score(estimator)
    assert fitted.layer_names_ == ("up0 + up1",)
    assert fitted.layer_scores_.tolist() == [fitted.score_]


def check_layers_are_reduced(estimator: Estimator) -> None:
    if estimator.tags.joined_layers:
        return
    if estimator.tags.source_head:
        problems = [make_problem(LEEP())]
    else:
        problems = [make_problem(estimator, seed=s, n_channels=4 + s) for s in range(2)]
    features = as_feature_set(estimator, *problems)
    mean = clone(estimator).set_params(layer_reduction="mean").fit(features)
    last = clone(estimator).set_params(layer_reduction="last").fit(features)
    alone = [clone(estimator).fit(as_feature_set(estimator, p)).score_ for p in problems]
    assert mean.layer_scores_.tolist() == alone
    assert mean.score_ == pytest.approx(np.mean(alone), rel=1e-15)
    assert last.score_ == alone[-1]
    if not estimator.tags.source_head:
        assert mean.layer_names_ == features.layer_names == ("up0", "up1")


def check_feature_set_carries_its_labels(estimator: Estimator) -> None:
    problem = make_problem(LEEP() if estimator.tags.source_head else estimator)
    features = as_feature_set(estimator, problem)
    with pytest.raises(ValueError, match="carries its own labels"):
        clone(estimator).fit(features, problem.y)
    with pytest.raises(ValueError, match="carries its own labels"):
        clone(estimator).score(features, groups=problem.groups)


def check_bad_arrays_are_refused(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    with pytest.raises(ValueError, match=r"groups has 3 entries but X has 96 rows"):
        clone(estimator).fit(problem.X, problem.y, groups=problem.groups[:3])
    holed = problem.X.copy()
    holed[5, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        clone(estimator).fit(holed, problem.y, groups=problem.groups)
    with pytest.raises(ValueError, match=r"(?s)layer 'up3'.*NaN"):
        clone(estimator).fit(problem.of(X=holed).block("up3"))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clone(estimator).fit(problem.X, problem.y[:-1])


def check_labels_without_classes_are_refused(estimator: Estimator) -> None:
    if isinstance(estimator, CCFV) and estimator.background is None:
        return  # every label counts, so label 0 alone is a class like any other
    if not estimator.tags.labels:
        return
    problem = make_problem(estimator)
    with pytest.raises(ValueError, match="class"):
        clone(estimator).fit(problem.X, np.zeros_like(problem.y), groups=problem.groups)


def check_parameters(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    signature = inspect.signature(type(estimator).__init__).parameters
    assert all(p.kind is p.KEYWORD_ONLY for name, p in signature.items() if name != "self")
    assert set(estimator._parameter_constraints) == set(estimator.get_params())
    for name in estimator.get_params():
        broken = clone(estimator).set_params(**{name: object()})
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            broken.fit(problem.X, problem.y)
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            broken.score(problem.X, problem.y)


def check_input_is_left_alone(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    for array in (problem.X, problem.y, problem.groups):
        array.flags.writeable = False
    copy = problem.X.copy()
    problem.score(estimator)
    np.testing.assert_array_equal(problem.X, copy)


def check_labels_are_ignored_where_not_needed(estimator: Estimator) -> None:
    if estimator.tags.labels:
        return
    problem = make_problem(estimator)
    expected = problem.score(estimator)
    unfitted = clone(estimator)
    assert unfitted.score(problem.X) == clone(estimator).fit(problem.X).score_ == expected
    assert vars(unfitted) == vars(clone(estimator))
    assert problem.of(y=np.zeros_like(problem.y)).score(estimator) == expected
    assert problem.of(y=problem.y[::-1]).score(estimator) == expected


def check_pickle(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    fitted = clone(estimator).fit(problem.X, problem.y, groups=problem.groups)
    again = pickle.loads(pickle.dumps(fitted))
    assert again.score() == fitted.score_
    assert again.get_params() == fitted.get_params()


def check_score_is_deterministic(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    assert problem.score(clone(estimator)) == problem.score(clone(estimator))


def check_labels_of_any_kind(estimator: Estimator) -> None:
    problem = make_problem(estimator)
    expected = problem.score(estimator)
    if getattr(estimator, "background", None) is not None:
        estimator = clone(estimator).set_params(background="air")
    names = np.array(["air", "liver", "spleen"])
    assert problem.of(y=names[problem.y]).score(estimator) == pytest.approx(expected, rel=1e-12)


def check_collapsed_features_rank_last(estimator: Estimator) -> None:
    healthy = make_problem(estimator)
    collapsed = healthy.of(X=np.tile(healthy.X.mean(axis=0), (len(healthy.X), 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = collapsed.score(estimator)
    assert not np.isnan(score)
    assert score < healthy.score(estimator)


def check_healthy_features_give_no_warning(estimator: Estimator) -> None:
    problem = make_problem(estimator, n_rows=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(problem.score(estimator))


def check_documented(estimator: Estimator) -> None:
    doc = inspect.getdoc(type(estimator)) or ""
    assert "Higher is better" in " ".join(doc.split())
    for heading in ("Parameters", "Attributes", "References", "Examples"):
        assert f"{heading}\n{'-' * len(heading)}" in doc
    for name in estimator.get_params():
        assert f"\n{name} : " in doc


def skte_checks(estimator: Estimator) -> Iterator[Check]:
    """Checks of our own contract, for any estimator of the family."""
    yield check_score_equals_fitted_score
    yield check_fitted_attributes
    yield check_scoring_does_not_change_the_fit
    yield check_score_needs_a_fit_or_features
    yield check_feature_doors_agree
    yield check_layers_are_reduced
    yield check_layers_are_joined
    yield check_feature_set_carries_its_labels
    yield check_bad_arrays_are_refused
    yield check_labels_without_classes_are_refused
    yield check_labels_are_ignored_where_not_needed
    yield check_parameters
    yield check_input_is_left_alone
    yield check_pickle
    yield check_score_is_deterministic
    yield check_labels_of_any_kind
    yield check_collapsed_features_rank_last
    yield check_healthy_features_give_no_warning
    yield check_documented


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{name}-{check.__name__}")
        for name, estimator in VARIANTS.items()
        for check in skte_checks(estimator)
    ],
)
def test_skte_check(estimator: Estimator, check: Check) -> None:
    check(estimator)


def test_sklearn_runs_its_full_suite() -> None:
    """A tag set by mistake would make sklearn skip an estimator in silence."""
    checked = {type(e).__name__: 0 for e in SKLEARN_CHECKED}
    # Made anew: those above may be an iterator that is used up.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = list(parametrize_with_checks(SKLEARN_CHECKED).args[1])
    for estimator, _ in pairs:
        checked[type(estimator).__name__] += 1
    # Without cases for sklearn's arrays, the probe itself is checked by its subclass.
    del checked["CrossCaseProbe"]
    assert set(checked) == {*ESTIMATORS, "ProbeOfThirds"} - {"CrossCaseProbe"}
    assert min(checked.values()) >= 40


@pytest.mark.parametrize("name", ESTIMATOR_NAMES)
def test_exported_estimators_are_of_the_family(name: str) -> None:
    assert issubclass(ESTIMATORS[name], TransferabilityEstimator)


@pytest.mark.parametrize("estimator", [LEEP(), NCE()])
def test_source_head_scores_need_a_posterior(estimator: Estimator) -> None:
    features = FeatureSet.from_blocks([make_problem().block("up1")], name="unet")
    with pytest.raises(ValueError, match=r"'unet'.*no source head.*NLEEP"):
        estimator.fit(features)


def test_an_estimator_from_outside_may_leave_the_reduction_of_layers_out():
    class Spread(TransferabilityEstimator):
        def __init__(self, power=1.0):
            self.power = power

        def _score_block(self, block):
            return float(block.X.std() ** self.power)

    X, y = np.array([[0.0], [2.0], [0.0], [2.0]]), [0, 0, 1, 1]
    assert Spread(power=2).fit(2 * X, y).score_ == 4.0
    assert Spread().get_params() == {"power": 1.0}
