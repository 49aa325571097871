"""The container: it counts cases, keeps labels inside and refuses what is broken."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from skte.features import CaseFeatures, FeatureBlock, FeatureSet, LayerSample


def make_case(case_id, n=6, channels=(3, 2), seed=0, posterior=True):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    layers = {
        f"up{i}": LayerSample(rng.normal(size=(n, c)), y, rng.normal(size=(n + 1, c)))
        for i, c in enumerate(channels)
    }
    probabilities = np.full((n, 2), 0.5)
    head = LayerSample(probabilities, y, probabilities[:0]) if posterior else None
    return CaseFeatures(case_id, layers, head)


def make_set(n_cases=3, **kwargs):
    return FeatureSet([make_case(f"c{i}", seed=i, **kwargs) for i in range(n_cases)], name="net")


def test_length_and_indexing_count_cases():
    features = make_set(4)
    assert len(features) == 4
    assert features[1].case_id == "c1"
    assert features[1:3].case_ids == ("c1", "c2")
    assert features[[3, 0]].case_ids == ("c3", "c0")
    assert features[np.array([True, False, False, True])].case_ids == ("c0", "c3")
    assert [case.case_id for case in features] == ["c0", "c1", "c2", "c3"]


def test_blocks_stack_cases_with_their_position_as_group():
    features = make_set(2)
    first, second = features.blocks()
    assert (first.name, first.n_channels, second.n_channels) == ("up0", 3, 2)
    np.testing.assert_array_equal(first.groups, np.repeat([0, 1], 6))
    np.testing.assert_array_equal(first.groups_case, np.repeat([0, 1], 7))
    np.testing.assert_array_equal(first.X[6:], features[1].layers["up0"].X)
    np.testing.assert_array_equal(second.X_case[7:], features[1].layers["up1"].X_case)


def test_from_blocks_is_the_inverse_of_blocks():
    features = make_set(3)
    again = FeatureSet.from_blocks(features.blocks(), posterior=features.posterior_block())
    for block, other in zip(features.blocks(), again.blocks(), strict=True):
        for field in ("X", "y", "groups", "X_case", "groups_case"):
            np.testing.assert_array_equal(getattr(block, field), getattr(other, field))
    np.testing.assert_array_equal(features.posterior_block().X, again.posterior_block().X)


def test_pickles():
    features = make_set()
    again = pickle.loads(pickle.dumps(features))
    assert again.case_ids == features.case_ids
    np.testing.assert_array_equal(again.blocks()[0].X, features.blocks()[0].X)


def test_repr_names_model_cases_and_layers():
    assert repr(make_set()) == "FeatureSet('net', 3 cases, layers {up0: 3, up1: 2})"


def test_missing_posterior_says_what_to_use_instead():
    features = make_set(posterior=False)
    assert not features.has_posterior
    with pytest.raises(ValueError, match=r"model 'net'.*no\s+source head.*NLEEP"):
        features.posterior_block()


def test_an_unusable_head_says_why():
    cases = list(make_set(posterior=False))
    cases[1] = replace(cases[1], no_posterior="its output is odd")
    with pytest.raises(ValueError, match=r"model 'net' .*in case 'c1', its output is odd.*NLEEP"):
        FeatureSet(cases, name="net").posterior_block()


def test_no_cases_and_repeated_ids_are_refused():
    with pytest.raises(ValueError, match="at least one case"):
        FeatureSet([])
    with pytest.raises(ValueError, match=r"repeated: \['a'\]"):
        FeatureSet([make_case("a"), make_case("b"), make_case("a")])
    with pytest.raises(TypeError, match="holds CaseFeatures"):
        FeatureSet(["a"])


def test_cases_must_share_layers():
    with pytest.raises(ValueError, match="Case 'b' has layers"):
        FeatureSet([make_case("a"), make_case("b", channels=(3, 4))])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["X", "X_case"])
def test_non_finite_features_name_case_and_layer(bad, field):
    arrays = {"X": np.zeros((2, 2)), "y": np.zeros(2, dtype=int), "X_case": np.zeros((2, 2))}
    arrays[field][0, 1] = bad
    with pytest.raises(ValueError, match=r"case 'a', layer 'up'.*NaN or Inf"):
        CaseFeatures("a", {"up": LayerSample(**arrays)})


def test_disagreeing_lengths_are_refused():
    X, y = np.zeros((3, 2)), np.zeros(2)
    with pytest.raises(ValueError, match="3 rows but 2 labels"):
        CaseFeatures("a", {"up": LayerSample(X, y, X)})
    with pytest.raises(ValueError, match="2 channels, whole-case sample 1"):
        CaseFeatures("a", {"up": LayerSample(X, np.zeros(3), X[:, :1])})
    with pytest.raises(ValueError, match="must be 2-D"):
        CaseFeatures("a", {"up": LayerSample(X[0], y, X)})
    with pytest.raises(ValueError, match="no layers"):
        CaseFeatures("a", {})


def test_block_lists_every_problem():
    with pytest.raises(ValueError, match=r"layer 'up'.*y has 2 rows.*groups has 1.*together"):
        FeatureBlock(np.zeros((3, 2)), np.zeros(2), np.zeros(1), X_case=np.zeros((3, 2)), name="up")
    with pytest.raises(ValueError, match=r"X_case has shape \(3, 1\).*groups_case has 2"):
        FeatureBlock(np.zeros((3, 2)), np.zeros(3), np.zeros(3), np.zeros((3, 1)), np.zeros(2))


def test_block_takes_lists():
    block = FeatureBlock([[1, 2], [3, 4]], [0, 1], ["a", "b"], [[5, 6]], ["a"])
    np.testing.assert_array_equal(block.X, [[1, 2], [3, 4]])
    assert block.case_sample[1].tolist() == ["a"]
    with pytest.raises(ValueError, match=r"X must be 2-D.*shape \(2,\).*y must be a list"):
        FeatureBlock([1, 2], 3)


def test_whole_case_sample_needs_cases_that_are_known():
    X, y, groups = np.eye(4), np.zeros(4), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="X_case needs groups"):
        FeatureBlock(X, y, None, X, groups)
    with pytest.raises(ValueError, match="shares no case with groups"):
        FeatureBlock(X, y, groups, X, groups + 10)


def test_case_sample_falls_back_to_the_rows():
    X, y = np.eye(4), np.zeros(4)
    groups = np.array([0, 0, 1, 1])
    assert FeatureBlock(X, y, groups).case_sample[1] is groups
    np.testing.assert_array_equal(FeatureBlock(X, y).case_sample[1], np.zeros(4))


def test_from_blocks_needs_the_same_cases_in_every_block():
    X, y = np.eye(4), np.zeros(4)
    a = FeatureBlock(X, y, np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="same groups"):
        FeatureSet.from_blocks([a, FeatureBlock(X, y, np.array([0, 0, 2, 2]))])
    with pytest.raises(ValueError, match="needs blocks with groups"):
        FeatureSet.from_blocks([FeatureBlock(X, y)])
    with pytest.raises(ValueError, match="at least one"):
        FeatureSet.from_blocks([])
