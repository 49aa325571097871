"""Moments: those of numpy, whatever the parts, the pivot and the scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skte.features import ClassMoments, FeatureBlock
from skte.features._moments import _CHUNK  # no door says where a second chunk begins


def problem(seed=0, n=200, d=4, shift=0.0):
    rng = np.random.default_rng(seed)
    y = rng.choice([0, 2, 7], n)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + y[:, None] + shift, y


def assert_describes(moments, X, y, rtol=1e-10):
    scale = 2.0**moments.exponent
    np.testing.assert_array_equal(moments.classes, np.unique(y))
    for k, label in enumerate(moments.classes):
        rows = X[y == label] / scale
        assert moments.counts[k] == len(rows)
        np.testing.assert_allclose(moments.pivot + moments.offsets[k], rows.mean(0), rtol=1e-9)
        expected = np.cov(rows, rowvar=False, ddof=0) * len(rows)
        size = np.abs(expected).max()
        np.testing.assert_allclose(moments.scatters[k], expected, rtol, rtol * size)
    total = np.cov(X / scale, rowvar=False, ddof=0) * len(X)
    np.testing.assert_allclose(moments.total, total, rtol, rtol * np.abs(total).max())


def test_moments_are_those_of_numpy():
    X, y = problem(n=8 * _CHUNK)
    assert np.unique(y, return_counts=True)[1].min() > 2 * _CHUNK  # three chunks of each class
    assert_describes(ClassMoments.from_arrays(X, y), X, y)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 199), min_size=1, max_size=5, unique=True))
def test_parts_merge_to_the_whole(seed, cuts):
    X, y = problem(seed)
    parts = [
        ClassMoments.from_arrays(a, b)
        for a, b in zip(np.split(X, sorted(cuts)), np.split(y, sorted(cuts)), strict=True)
    ]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert_describes(merged, X, y)
    backwards = parts[-1]
    for part in parts[-2::-1]:
        backwards = backwards.merge(part)
    assert_describes(backwards, X, y)


def test_means_far_from_zero_cost_no_digits():
    """Raw second moments would have none left: 1e8 squared is 1e16."""
    X, y = problem(shift=1e8)
    centred = X - 1e8
    assert_describes(ClassMoments.from_arrays(X, y), X, y, rtol=1e-6)
    plain = ClassMoments.from_arrays(centred, y)
    np.testing.assert_allclose(
        ClassMoments.from_arrays(X, y).total, plain.total, rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("factor", [1e-200, 1e-150, 1e150, 1e200])
def test_squares_that_would_overflow_or_vanish(factor):
    X, y = problem()
    moments = ClassMoments.from_arrays(X * factor, y)
    assert moments.exponent != 0
    assert np.isfinite(moments.scatters).all()
    assert_describes(moments, X * factor, y)
    assert_describes(ClassMoments.from_arrays(X[:50], y[:50]), X[:50], y[:50])


def test_parts_of_different_scale_merge():
    X, y = problem()
    X[100:] *= 1e150
    merged = ClassMoments.from_arrays(X[:100], y[:100]).merge(
        ClassMoments.from_arrays(X[100:], y[100:])
    )
    assert_describes(merged, X, y)


def test_constant_channels_have_a_scatter_of_exactly_zero():
    X, y = problem(n=999)
    X[:, 1] = 1e3 / 7
    moments = ClassMoments.from_arrays(X, y)
    assert not moments.total[1].any()
    assert not moments.centres[:, 1].any()


def test_float32_is_accumulated_in_float64():
    X, y = problem(n=5000, shift=1e4)
    single = X.astype(np.float32)
    assert_describes(ClassMoments.from_arrays(single, y), single.astype(np.float64), y)


def test_blocks_compute_them_once():
    X, y = problem()
    block = FeatureBlock(X, y, name="up1")
    assert block.moments is block.moments
    assert block.moments.name == "up1"


def test_bad_input_is_refused():
    X, y = problem()
    with pytest.raises(ValueError, match="one label per voxel"):
        ClassMoments.from_arrays(X, y[:-1])
    with pytest.raises(ValueError, match="one label per voxel"):
        ClassMoments.from_arrays(X[:0], y[:0])
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"layer 'up'.*NaN"):
        ClassMoments.from_arrays(X, y, name="up")
    narrow = ClassMoments.from_arrays(X[:3, :2], y[:3])
    with pytest.raises(ValueError, match="4 and of 2 channels"):
        ClassMoments.from_arrays(X[:3], y[:3]).merge(narrow)
    with pytest.raises(ValueError, match="offsets has shape"):
        ClassMoments(np.arange(2), np.ones(2, int), np.zeros(3), np.zeros((2, 2)), np.eye(3))
