"""How exactly the scores of all estimators repeat: the promises of `docs/tolerances.md`."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skte import BankEntry, ModelBankSelector, SegmentationFeatureExtractor, estimators
from skte.datasets import make_phantoms

NAMES = [name for name in estimators.__all__ if name != "TransferabilityEstimator"]
EXTRACTOR = SegmentationFeatureExtractor(
    layers=("down", "up"), window_size=(16, 16, 16), n_case_samples=40, n_class_samples=20
)


class Net(nn.Module):
    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.Conv3d(1, 6, 3, stride=2, padding=1)
            self.up = nn.Conv3d(6, 8, 3, padding=1)
            self.head = nn.Conv3d(8, 3, 1)

    def forward(self, x):
        y = torch.relu(self.up(torch.relu(self.down(x))))
        return self.head(nn.functional.interpolate(y, scale_factor=2))


BANK = [BankEntry(f"net{i}", Net, arguments={"seed": i}) for i in range(3)]


@pytest.fixture(scope="module")
def cases():
    # Three windows a case.
    return make_phantoms(4, size=(32, 16, 16), n_classes=3)


def scores(cases, *, bank=BANK, extractor=EXTRACTOR, **params):
    chosen = {name.lower(): getattr(estimators, name)() for name in NAMES}
    selector = ModelBankSelector(chosen, extractor=extractor, reference=False, **params)
    selector.fit(bank, cases)
    assert set(selector.results_["error"]) == {""}
    order = np.argsort(selector.results_["name"])
    return {name: selector.results_[f"score_{name}"][order] for name in chosen}


@pytest.fixture(scope="module")
def reference(cases):
    found = scores(cases)
    assert all(np.isfinite(values).all() for values in found.values())
    return found


def same(found, reference, **tolerance):
    for name, values in reference.items():
        np.testing.assert_allclose(found[name], values, **tolerance, err_msg=name)


@pytest.mark.slow
def test_a_second_run_is_equal(cases, reference):
    same(scores(cases), reference, rtol=0)


def test_order_of_models_changes_nothing(cases, reference):
    same(scores(cases, bank=BANK[::-1]), reference, rtol=1e-9)


def test_order_of_cases(cases, reference):
    same(scores([cases[i] for i in (2, 0, 3, 1)]), reference, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_processes(cases, reference):
    same(scores(cases, n_jobs=2), reference, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_batch_size(batch_size, cases, reference):
    extractor = clone(EXTRACTOR).set_params(batch_size=batch_size)
    same(scores(cases, extractor=extractor), reference, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_features_from_the_cache_are_equal(cases, reference, tmp_path):
    for _ in range(2):
        same(scores(cases, cache=tmp_path / "features"), reference, rtol=0)
