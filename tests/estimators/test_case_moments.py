"""Scores of all voxels: moments that hold the sampled voxels change nothing, others do."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from skte.estimators import CCFV, GBC, LEEP, RCFV, HScore, LogME, TransRate
from skte.exceptions import UnusableClassWarning
from skte.features import CaseFeatures, ClassMoments, FeatureBlock, FeatureSet, LayerSample

USE_ALL = [
    LogME(),
    GBC(),
    GBC(covariance="full", n_components=3),
    TransRate(),
    TransRate(normalize="trace"),
    HScore(),
    CCFV(normalize=None),
    CCFV(normalize=None, distance="kl"),
    CCFV(normalize=None, distance="bhattacharyya"),
    CCFV(normalize=None, n_pairs=2),
    RCFV(),
]
each = pytest.mark.parametrize("estimator", USE_ALL, ids=str)


def make_set(n_rows=60, n_channels=5, n_more=0, drop=None):
    """Four cases; moments of the sampled voxels and of `n_more` others of other spread."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(4):
        y = np.array([0, 2, 7])[rng.integers(0, 3, n_rows + n_more)]
        if i == drop:
            y[y == 7] = 2
        X = rng.normal(size=(len(y), n_channels)) + np.eye(n_channels)[y % 4] + 0.3 * i
        X[n_rows:] *= 3
        moments = ClassMoments.from_arrays(X, y, name="up")
        sample = LayerSample(X[:n_rows], y[:n_rows], X[:n_rows:2], moments)
        cases.append(CaseFeatures(f"c{i}", {"up": sample}))
    return FeatureSet(cases)


def without(features):
    return FeatureSet(
        replace(case, layers={k: replace(s, moments=None) for k, s in case.layers.items()})
        for case in features
    )


@each
@pytest.mark.parametrize("drop", [None, 1])
def test_moments_of_the_sample_give_the_score_of_the_sample(estimator, drop):
    features = make_set(drop=drop)
    expected = estimator.fit(without(features)).score_
    assert estimator.fit(features).score_ == pytest.approx(expected, rel=1e-6)


@each
def test_all_voxels_count(estimator):
    features = make_set(n_more=200)
    assert abs(estimator.score(features) - estimator.score(without(features))) > 1e-3


@each
def test_all_voxels_count_also_with_fewer_rows_than_channels(estimator):
    few = make_set(n_rows=12, n_channels=80, n_more=400)
    if not isinstance(estimator, (CCFV, RCFV)):
        moments = few.blocks()[0].moments
        assert moments.n_voxels == 4 * 412
        assert estimator.score(few) == pytest.approx(estimator.score(moments), rel=1e-9)
    assert estimator.score(few) != pytest.approx(estimator.score(without(few)), rel=1e-3)


def test_ccfv_is_that_of_all_voxels():
    """The consistency from moments is the one of the voxels they are of."""
    all_rows = make_set(n_rows=260)
    some = FeatureSet(
        CaseFeatures(
            case.case_id,
            {
                k: LayerSample(s.X[::5], s.y[::5], s.X_case, s.moments)
                for k, s in case.layers.items()
            },
        )
        for case in all_rows
    )
    estimator = CCFV(normalize=None)
    expected = estimator.score(without(all_rows))
    assert estimator.score(some) == pytest.approx(expected, rel=1e-9)
    assert estimator.score(without(some)) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("estimator", [CCFV(), HScore(shrinkage="ledoit-wolf")], ids=str)
def test_what_moments_cannot_tell_is_told_by_the_sample(estimator):
    features = make_set(n_more=200)
    assert estimator.score(features) == estimator.score(without(features))


def test_regression_targets_and_probabilities_are_the_sample():
    features = make_set(n_more=50)
    block = features.blocks()[0]
    regression = replace(block, y=block.X[:, 0] + 0.1)
    plain = replace(regression, case_moments=None)
    assert LogME().score(regression) == LogME().score(plain)
    with pytest.raises(ValueError, match="no source-head probabilities"):
        LEEP().score(features)


@each
def test_order_of_cases_and_pickling(estimator):
    features = make_set(n_more=100)
    again = pickle.loads(pickle.dumps(features))
    assert estimator.score(again) == estimator.score(features)
    shuffled = features[[2, 0, 3, 1]]
    assert estimator.score(shuffled) == pytest.approx(estimator.score(features), rel=1e-9)


@pytest.mark.parametrize("distance", ["wasserstein", "kl"])
def test_a_single_voxel_is_a_point_mass(distance):
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(n, 3)) + 1e3 for n in (1, 40, 1, 2)]

    def distances(with_moments):
        cases = []
        for i, x in enumerate(X):
            y = np.full(len(x), 7)
            moments = ClassMoments.from_arrays(x, y) if with_moments else None
            cases.append(CaseFeatures(f"case {i}", {"up": LayerSample(x, y, x, moments)}))
        ccfv = CCFV(normalize=None, distance=distance, feature_variety=False)
        return ccfv.fit(FeatureSet(cases)).layer_details_[0]["distances"][7]

    np.testing.assert_allclose(distances(True), distances(False), rtol=1e-6)
    if distance == "wasserstein":
        assert distances(True)[0, 2] == pytest.approx(np.linalg.norm(X[0] - X[2]), rel=1e-9)


def test_a_class_in_one_case_is_left_out():
    cases = list(make_set())
    parts = [
        ClassMoments.from_arrays(s.X[s.y != 7], s.y[s.y != 7])
        for s in (case.layers["up"] for case in cases[1:])
    ]
    block = FeatureSet(cases).blocks()[0]
    block = replace(block, case_moments=[cases[0].layers["up"].moments, *parts])
    estimator = CCFV(normalize=None)
    with pytest.warns(UnusableClassWarning, match=r"classes \[7\]"):
        estimator.fit(block)
    assert list(estimator.layer_details_[0]["consistency"]) == [2]


def test_features_of_any_size():
    """Moments that were scaled to be representable are scaled back."""
    block = make_set().blocks()[0]
    parts = []
    for part in block.case_moments:
        scaled = {
            "pivot": np.ldexp(part.pivot, 3),
            "offsets": np.ldexp(part.offsets, 3),
            "scatters": np.ldexp(part.scatters, 6),
        }
        parts.append(replace(part, exponent=-3, **scaled))
    same = replace(block, case_moments=parts)
    estimator = CCFV(normalize=None)
    assert estimator.score(same) == pytest.approx(estimator.score(block), rel=1e-12)


def test_a_block_refuses_moments_that_do_not_belong_to_it():
    block = make_set().blocks()[0]
    with pytest.raises(ValueError, match="case_moments holds 3 cases, groups 4"):
        replace(block, case_moments=block.case_moments[1:])
    with pytest.raises(ValueError, match="case_moments needs groups"):
        FeatureBlock(block.X, block.y, case_moments=block.case_moments)
    with pytest.raises(ValueError, match=r"moments of \[5\] channels, X has shape \(240, 3\)"):
        FeatureBlock(block.X[:, :3], block.y, block.groups, case_moments=block.case_moments)


def test_sets_and_blocks_carry_moments():
    features = make_set(n_more=20)
    block = features[1:3].blocks()[0]
    assert [part.n_voxels for part in block.case_moments] == [80, 80]
    assert block.case_moments[0] is features[1].layers["up"].moments
    assert (block.moments.n_voxels, block.moments.name) == (160, "up")
    again = FeatureSet.from_blocks([block])
    assert again[1].layers["up"].moments is features[2].layers["up"].moments
    mixed = FeatureSet([features[0], *without(features)[1:]])
    assert mixed.blocks()[0].case_moments is None  # half of all voxels are none of all


def test_rcfv_says_when_moments_cannot_be_squared():
    features = make_set()
    huge = FeatureSet(
        replace(
            case,
            layers={
                k: LayerSample(
                    s.X * 1e80, s.y, s.X_case * 1e80,
                    ClassMoments.from_arrays(s.X * 1e80, s.y, name=k),
                )
                for k, s in case.layers.items()
            },
        )
        for case in features
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"cannot be squared.*moments='sample'"):
        RCFV().fit(huge)
    assert RCFV().fit(without(huge)).score_ == pytest.approx(RCFV().fit(without(features)).score_)
