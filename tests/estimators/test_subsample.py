"""The canonical subsample: its contract."""

from __future__ import annotations

import numpy as np
import pytest

from skte.estimators._samples import canonical_subsample


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    return rng.normal(size=(500, 4)), rng.choice(3, size=500, p=[0.9, 0.08, 0.02])


def chosen(X, strata, max_samples=50, random_state=0):
    rows = canonical_subsample(X, strata, max_samples=max_samples, random_state=random_state)
    assert (np.diff(rows) > 0).all()
    return rows


@pytest.mark.parametrize("max_samples", [500, 501, 10**6])
def test_all_rows_where_they_fit(sample, max_samples):
    assert chosen(*sample, max_samples).tolist() == list(range(500))


def test_strata_keep_their_shares_and_at_least_a_row(sample):
    X, strata = sample
    kept = np.bincount(strata[chosen(X, strata)])
    assert kept.tolist() == (50 * np.bincount(strata) // 500).clip(1).tolist()
    assert chosen(X, np.arange(500)).tolist() == list(range(500))


def test_order_of_rows_and_channels_does_not_matter(sample):
    X, strata = sample
    rng = np.random.default_rng(1)
    expected = np.sort(X[chosen(X, strata)], axis=0)
    order = rng.permutation(500)
    again = X[order][chosen(X[order], strata[order])]
    np.testing.assert_array_equal(np.sort(again, axis=0), expected)
    channels = rng.permutation(4)
    np.testing.assert_array_equal(chosen(X[:, channels], strata), chosen(X, strata))


def test_names_and_scale_do_not_matter(sample):
    X, strata = sample
    names = np.array(["z", "b", "k"])
    np.testing.assert_array_equal(chosen(X, names[strata]), chosen(X, strata))
    np.testing.assert_array_equal(chosen(2.0**80 * X, strata), chosen(X, strata))


def test_seed_matters(sample):
    assert chosen(*sample, random_state=1).tolist() != chosen(*sample).tolist()


def test_draw_is_not_ordered_by_content(sample):
    """Not the smallest rows of each stratum: the mean of many draws is that of all."""
    X, strata = sample
    means = [X[chosen(X, strata, random_state=s)].mean(axis=0) for s in range(200)]
    np.testing.assert_allclose(np.mean(means, axis=0), X.mean(axis=0), atol=0.06)
