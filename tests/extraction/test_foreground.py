"""Foreground alone: the same voxels of it, fewer windows, and scores that need more say so."""

import numpy as np
import pytest
import torch
import torchio as tio
from sklearn.base import clone
from torch import nn

from skte import (
    CCFV,
    GBC,
    KNN,
    LEEP,
    NCE,
    NLEEP,
    PARC,
    RCFV,
    SFDA,
    BankEntry,
    Ensemble,
    HScore,
    LogME,
    ModelBankSelector,
    RankMe,
    SegmentationFeatureExtractor,
    TransRate,
)
from skte.demo import small_unet

SHAPE, WINDOW = (48, 40, 24), (16, 16, 16)


def make_case(name, labels=(2, 7), at=(6, 8, 5), seed=0):
    """A case of noise whose structures lie in a corner."""
    rng = np.random.default_rng(seed)
    label = np.zeros((1, *SHAPE), dtype=np.int32)
    x, y, z = at
    for i, value in enumerate(labels):
        label[0, x + 3 * i : x + 3 * i + 3, y : y + 7, z : z + 6] = value
    image = rng.normal(size=(1, *SHAPE)).astype(np.float32) + label
    return tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(image)),
        label=tio.LabelMap(tensor=torch.from_numpy(label)),
        case_id=name,
    )


def make_entry(name="net", seed=0, **kwargs):
    torch.manual_seed(seed)
    network = small_unet(widths=(4, 8, 8), n_classes=3)
    return BankEntry.from_module(name, network, window_size=WINDOW, **kwargs)


@pytest.fixture(scope="module")
def cases():
    return [make_case(f"c{i}", at=(6 + i, 8, 5), seed=i) for i in range(3)]


PLANS = [{}, {"overlap": 0.0}, {"overlap": 0.5}]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_the_foreground_gives_the_same_voxels_and_features(cases, plan):
    # The input itself is the layer: a window cannot matter.
    network = nn.Sequential(nn.Identity(), nn.Conv3d(1, 3, 1))
    entry = BankEntry.from_module("copy", network, layers=("0",), window_size=WINDOW)
    whole, part = (
        SegmentationFeatureExtractor(entry, samples=samples, **plan).fit_transform(cases)
        for samples in ("all", "foreground")
    )
    for everything, foreground in zip(whole, part, strict=True):
        before, after = everything.layers["0"], foreground.layers["0"]
        labelled = before.y != 0
        assert labelled.any()
        np.testing.assert_array_equal(after.y, before.y[labelled])
        np.testing.assert_array_equal(after.X, before.X[labelled])
        assert after.X_case.shape == (0, 1)
        np.testing.assert_array_equal(
            foreground.posterior.X, everything.posterior.X[everything.posterior.y != 0]
        )


def test_windows_without_foreground_are_not_run(cases):
    extractor = SegmentationFeatureExtractor(make_entry(), overlap=0.25)
    whole = extractor.fit_transform(cases)
    part = clone(extractor).set_params(samples="foreground").fit_transform(cases)
    for everything, foreground in zip(whole, part, strict=True):
        assert foreground.info["n_windows"] == 1 < everything.info["n_windows"]


def test_every_estimator_scores_it_or_says_what_it_lacks(cases):
    extractor = SegmentationFeatureExtractor(make_entry(), samples="foreground")
    features = extractor.fit_transform(cases)
    able = [CCFV(feature_variety=False), GBC(), HScore(), KNN(), LEEP(), LogME(), NCE()]
    for estimator in [*able, NLEEP(), PARC(), SFDA(), TransRate()]:
        assert not estimator.tags.case_sample
        assert np.isfinite(estimator.fit(features).score_), estimator
    for estimator in (CCFV(), CCFV(class_consistency=False), RankMe(), RCFV()):
        assert estimator.tags.case_sample
        with pytest.raises(ValueError, match=r"whole-case sample is empty.*samples='all'"):
            estimator.fit(features)


def test_one_class_is_too_few_to_compare():
    cases = [make_case(f"c{i}", labels=(2,), seed=i) for i in range(2)]
    extractor = SegmentationFeatureExtractor(make_entry(), samples="foreground")
    features = extractor.fit_transform(cases)
    assert np.isfinite(CCFV(feature_variety=False).fit(features).score_)
    for estimator in (LogME(), GBC(), TransRate(), HScore(), LEEP(), KNN(), NCE()):
        with pytest.raises(ValueError, match=r"one class only \(2\).*samples='all'"):
            estimator.fit(features)


def test_collapse_is_seen_without_a_whole_case_sample(cases):
    class Dead(nn.Module):
        """Features of one direction, at lengths that differ: no distance is zero."""

        def __init__(self):
            super().__init__()
            self.up = nn.Conv3d(1, 4, 3, padding=1, bias=True)
            self.head = nn.Conv3d(4, 2, 1)

        def forward(self, x):
            return self.head(self.up(x))

    network = Dead()
    with torch.no_grad():
        network.up.weight.mul_(1e-3)
        network.up.bias.fill_(5.0)
    entry = BankEntry.from_module("dead", network, layers=("up",), window_size=WINDOW)
    extractor = SegmentationFeatureExtractor(entry, samples="foreground")
    features = extractor.fit_transform(cases)
    with pytest.warns(UserWarning, match="they collapsed"):
        assert CCFV(feature_variety=False).fit(features).score_ == -np.inf


@pytest.mark.parametrize("estimator", [CCFV(), Ensemble(estimators={"a": LogME(), "b": RankMe()})])
def test_a_selector_refuses_before_any_model_runs(cases, estimator, monkeypatch):
    extractor = SegmentationFeatureExtractor(samples="foreground")
    monkeypatch.setattr(SegmentationFeatureExtractor, "extract", None)
    selector = ModelBankSelector({"x": estimator}, extractor=extractor, error_score=np.nan)
    with pytest.raises(ValueError, match=r"samples='foreground', but (CCFV|Ensemble) looks at"):
        selector.fit([make_entry()], cases)


def test_a_selector_ranks_by_foreground(cases):
    bank = [make_entry(f"n{i}", seed=i) for i in range(2)]
    extractor = SegmentationFeatureExtractor(samples="foreground")
    selector = ModelBankSelector(CCFV(feature_variety=False), extractor=extractor).fit(bank, cases)
    assert np.isfinite(selector.scores_).all()
    assert selector.results_["n_windows"].tolist() == [3, 3]


@pytest.mark.slow
def test_it_is_part_of_cache_keys(cases, tmp_path):
    kept = {}
    for samples in ("all", "foreground", "all", "foreground"):
        extractor = SegmentationFeatureExtractor(make_entry(), samples=samples, cache=tmp_path)
        features = extractor.fit_transform(cases)
        assert ("seconds_forward" in features[0].info) == (samples not in kept)
        rows = len(features[0].layers["decoder.1"].X)
        assert kept.setdefault(samples, rows) == rows
    assert kept["foreground"] < kept["all"]
