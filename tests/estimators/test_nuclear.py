"""Nuclear norms of products: those of a singular value decomposition."""

import numpy as np
import pytest

from skte.estimators._nuclear import nuclear_norms


def check(factors, rel):
    pairs = np.stack(np.triu_indices(len(factors), 1), axis=1)
    expected = [np.linalg.svd(factors[i] @ factors[j].T, compute_uv=False).sum() for i, j in pairs]
    np.testing.assert_allclose(nuclear_norms(factors, pairs), expected, rtol=rel)


@pytest.mark.parametrize(
    ("height", "n_channels"), [(1, 1), (3, 7), (23, 30), (24, 30), (64, 64), (40, 30), (99, 320)]
)
def test_flat_spectra(height, n_channels):
    check(np.random.default_rng(0).normal(size=(5, height, n_channels)), 1e-8)


@pytest.mark.parametrize("power", [0.5, 1, 2, 4, 8])
@pytest.mark.parametrize("height", [8, 48])
def test_graded_spectra(height, power):
    factors = np.random.default_rng(0).normal(size=(5, height, 64))
    check(factors * np.arange(1, 65.0) ** -power, 1e-6)


@pytest.mark.parametrize("rank", [1, 2, 10])
def test_low_rank(rank):
    rng = np.random.default_rng(0)
    check(rng.normal(size=(4, 40, rank)) @ rng.normal(size=(rank, 50)), 1e-6)


@pytest.mark.parametrize("factor", [1e-60, 1e60])
def test_scale(factor):
    check(factor * np.random.default_rng(0).normal(size=(4, 32, 40)), 1e-8)


def test_zero_matrices():
    factors = np.random.default_rng(0).normal(size=(3, 32, 40))
    factors[1] = 0.0
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    norms = nuclear_norms(factors, pairs)
    assert norms[0] == norms[2] == 0.0
    assert norms[1] > 0


def test_chosen_pairs_are_those_of_all_pairs():
    """Some pairs are gathered, all pairs are read in place; many batches, too."""
    factors = np.random.default_rng(0).normal(size=(30, 26, 26))
    every = np.stack(np.triu_indices(30, 1), axis=1)
    norms = nuclear_norms(factors, every)
    chosen = np.sort(np.random.default_rng(1).permutation(len(every))[:50])
    np.testing.assert_allclose(nuclear_norms(factors, every[chosen]), norms[chosen], rtol=1e-9)
