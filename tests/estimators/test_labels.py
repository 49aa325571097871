"""Labels as indices, and scaling helpers."""

from __future__ import annotations

import numpy as np
import pytest

from skte.estimators._samples import centred, encode_labels, unit_range


@pytest.mark.parametrize("y", [[7, 0, 2, 7], [-1, 5, 5, 3], ["b", "a", "c", "a"], [0.0, 2.0, 2.0]])
def test_labels_round_trip(y):
    classes, codes = encode_labels(np.array(y))
    assert classes[codes].tolist() == y
    assert sorted(set(codes.tolist())) == list(range(len(set(y))))


def test_one_class_names_the_remedy():
    with pytest.raises(ValueError, match=r"one class only.*3.*Sample another class"):
        encode_labels(np.array([3, 3, 3]))


@pytest.mark.parametrize("factor", [1.0, 1e300, 1e-300, 5e-324])
def test_unit_range_is_exact(factor):
    X = factor * np.array([[1.0, -3.0], [0.0, 2.0]])
    scaled, exponent = unit_range(X)
    assert 0.5 <= np.abs(scaled).max() < 1
    np.testing.assert_array_equal(np.ldexp(scaled, exponent), X)


def test_unit_range_of_zeros():
    scaled, exponent = unit_range(np.zeros((2, 2)))
    assert exponent == 0
    assert not scaled.any()


def test_centring_drops_constants_exactly():
    X = np.column_stack([np.full(7, 1e150 / 3), np.arange(7.0), np.full(7, 0.1)])
    Z, exponent = centred(X)
    assert Z.shape == (7, 1)
    np.testing.assert_allclose(np.ldexp(Z[:, 0], exponent), np.arange(7.0) - 3, atol=1e-15)


def test_centring_far_from_zero():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 3)) + 1e9
    Z, _ = centred(X)
    assert np.abs(Z.mean(axis=0)).max() < 1e-16
