"""Moments: those of numpy, whatever the parts, the pivot and the scale."""

import numpy as np
import pytest

from skte.features import ClassMoments, FeatureBlock


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
    X, y = problem(n=5000)
    assert_describes(ClassMoments.from_arrays(X, y), X, y)


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
