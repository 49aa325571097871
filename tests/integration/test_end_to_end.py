"""From folder to ranking, the ways a user goes."""

import json
import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline

from skte import (
    CCFV,
    GBC,
    LEEP,
    BankEntry,
    LogME,
    ModelBank,
    ModelBankSelector,
    SegmentationFeatureExtractor,
    TransRate,
)
from skte.datasets import load_dataset, load_msd, make_phantoms
from skte.demo import small_unet

ESTIMATORS = [CCFV(), LogME(), LEEP(), GBC(), TransRate()]


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(4, size=(16, 14, 12))


def unet_entry(name="unet", seed=0, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BankEntry.from_module(name, small_unet(widths=(4, 8, 8), **kwargs))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_pipeline(cases, estimator):
    pipeline = Pipeline(
        [("extract", SegmentationFeatureExtractor(unet_entry())), ("score", clone(estimator))]
    )
    score = pipeline.fit(cases).score(cases)
    assert np.isfinite(score)
    assert score == pytest.approx(pipeline[-1].score_)
    fewer = clone(pipeline).set_params(extract__n_class_samples=60, extract__n_case_samples=60)
    assert fewer.fit(cases)[-1].score_ != score
    assert pickle.loads(pickle.dumps(pipeline)).score(cases) == pytest.approx(score)
    assert pipeline.get_params()["extract__overlap"] == 0.375


def test_array_door_and_feature_set_give_the_same_score(cases):
    features = SegmentationFeatureExtractor(unet_entry()).fit_transform(cases)
    for estimator in (LogME(), GBC(), TransRate()):
        expected = [
            clone(estimator).fit(b.X, b.y, groups=b.groups).score_ for b in features.blocks()
        ]
        np.testing.assert_allclose(clone(estimator).fit(features).layer_scores_, expected)
    for block in features.blocks():
        assert CCFV().fit(block).score_ == pytest.approx(CCFV().score(block))


@pytest.mark.slow
def test_every_form_of_a_dataset_gives_the_same_score(cases, tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    dicts = []
    for case in cases:
        paths = {k: tmp_path / f"{k}s" / f"{case['case_id']}.nii.gz" for k in ("image", "label")}
        case["image"].save(paths["image"])
        case["label"].save(paths["label"])
        dicts.append({**{k: str(p) for k, p in paths.items()}, "case_id": case["case_id"]})
    pipeline = make_pipeline(SegmentationFeatureExtractor(unet_entry()), CCFV())
    expected = pipeline.fit(cases).score(cases)
    forms = [tio.SubjectsDataset(cases), dicts, tmp_path, str(tmp_path), load_dataset(tmp_path)]
    for form in forms:
        assert pipeline.fit(form)[-1].score_ == pytest.approx(expected, rel=1e-5)


def test_two_dimensional_networks_and_channels():
    cases = make_phantoms(4, size=(32, 32, 1), n_channels=2)
    bank = {
        f"net{i}": unet_entry(f"net{i}", seed=i, spatial_dims=2, in_channels=2) for i in range(3)
    }
    estimators = {type(e).__name__: e for e in ESTIMATORS}
    selector = ModelBankSelector(estimators, reference=False).fit(bank, cases)
    assert np.isfinite([selector.results_[f"score_{k}"] for k in estimators]).all()


@pytest.mark.slow
def test_manifest_from_file_to_ranking(cases, tmp_path):
    entries = []
    for i in range(3):
        torch.manual_seed(i)
        torch.save(
            {"model": {f"net.{k}": v for k, v in small_unet(widths=(4, 8)).state_dict().items()}},
            tmp_path / f"{i}.pt",
        )
        entries.append(
            {
                "name": f"net{i}",
                "factory": "skte.demo:small_unet",
                "arguments": {"widths": [4, 8]},
                "weights": f"{i}.pt",
                "state_key": "model",
                "prefix": "net.",
                "preprocessing": ["ZNormalization"],
            }
        )
    (tmp_path / "bank.json").write_text(json.dumps({"models": entries}))
    selector = ModelBankSelector(CCFV(), reference=False).fit(tmp_path / "bank.json", cases)
    assert sorted(selector.ranking_) == ["net0", "net1", "net2"]
    assert len(set(selector.scores_)) == 3
    again = ModelBankSelector(CCFV(), reference=False).fit(
        ModelBank.from_manifest(tmp_path / "bank.json"), cases
    )
    np.testing.assert_allclose(again.scores_, selector.scores_, rtol=1e-6)


@pytest.mark.slow
def test_real_images(data_dir):
    """Order of magnitude and finiteness on images nobody made for us."""
    cases = load_msd(data_dir / "Task04_Hippocampus")[:3]
    bank = {f"net{i}": unet_entry(f"net{i}", seed=i) for i in range(2)}
    estimators = {type(e).__name__: e for e in ESTIMATORS}
    selector = ModelBankSelector(estimators, reference=False).fit(bank, cases)
    for name in estimators:
        assert np.isfinite(selector.results_[f"score_{name}"]).all()
    assert (selector.results_["error"] == "").all()
