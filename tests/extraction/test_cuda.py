"""A GPU gives what the CPU gives: the same voxels, features and scores."""

import numpy as np
import pytest
import torch

from skte import CCFV, LEEP, BankEntry, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

FULL = {"overlap": 0.375}
PLANS = [
    FULL,
    {"samples": "roi"},
    {"batch_size": 3},
]


def entry_of(seed=0, name="unet"):
    torch.manual_seed(seed)
    return BankEntry.from_module(name, small_unet(), window_size=(24, 24, 24))


def extract(entry, device, **params):
    cases = make_phantoms(3, size=(36, 40, 33), random_state=0)
    extractor = SegmentationFeatureExtractor(entry, device=device, random_state=0, **params)
    return extractor.fit_transform(cases)


@pytest.mark.parametrize("params", PLANS, ids=str)
def test_same_voxels_and_features(params):
    here, there = (extract(entry_of(), device, **params) for device in ("cpu", "cuda"))
    for a, b in zip(here, there, strict=True):
        assert a.info["n_windows"] == b.info["n_windows"]
        for name, sample in a.layers.items():
            other = b.layers[name]
            np.testing.assert_array_equal(sample.y, other.y)
            np.testing.assert_allclose(sample.X, other.X, atol=1e-5 * np.abs(sample.X).max())


@pytest.mark.parametrize("estimator", [CCFV(), LogME(), LEEP()], ids=str)
def test_same_ranking(estimator):
    bank = [entry_of(seed, f"unet {seed}") for seed in range(4)]
    cases = make_phantoms(3, size=(32, 32, 32), random_state=0)
    scores = []
    for device in ("cpu", "cuda"):
        extractor = SegmentationFeatureExtractor(device=device, random_state=0)
        selector = ModelBankSelector(estimator, extractor=extractor).fit(bank, cases)
        scores.append(selector.scores_)
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)


def test_the_network_goes_back_and_memory_is_bounded():
    network = small_unet()
    entry = BankEntry.from_module("unet", network, window_size=(24, 24, 24))
    peaks, left = [], []
    for params in ({"overlap": 0.0}, {"overlap": 0.5}):
        torch.cuda.reset_peak_memory_stats()
        extract(entry, "cuda", **params)
        peaks.append(torch.cuda.max_memory_allocated())
        left.append(torch.cuda.memory_allocated())  # what cuBLAS keeps to work in
    assert peaks[1] < 1.1 * peaks[0]
    assert left[1] == left[0]
    assert next(network.parameters()).device.type == "cpu"
