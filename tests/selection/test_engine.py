"""The engine: what selectors, races and learning curves have in common."""

import dataclasses
import shutil
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import torchio as tio
from sklearn.exceptions import FitFailedWarning
from torch import nn

import skte
from skte import (
    CCFV,
    BankEntry,
    CrossCaseProbe,
    Ensemble,
    LogME,
    ModelBankSelector,
    SegmentationFeatureExtractor,
)
from skte.datasets import make_phantoms
from skte.exceptions import SkteError, SkteWarning
from skte.selection import Engine, extractor_for
from skte.selection._workers import ModelRecord

ROOT = str(Path(skte.__file__).parent)
SEEN = []  # of each forward pass, the rooms of the frames that led to it


class Net(nn.Sequential):
    def __init__(self, width=4):
        super().__init__(nn.Conv3d(1, width, 3, padding=1), nn.Conv3d(width, 2, 1))

    def forward(self, x):
        frame, rooms = sys._getframe(), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(ROOT):
                rooms.append(Path(frame.f_code.co_filename).parent.name)
            frame = frame.f_back
        SEEN.append(rooms)
        return super().forward(x)


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(3, size=(12, 12, 12))


@pytest.fixture
def extractor():
    return SegmentationFeatureExtractor(n_class_samples=40, n_case_samples=40)


def test_few_frames_stand_between_fit_and_the_network(cases, extractor):
    SEEN.clear()
    ModelBankSelector(LogME(), extractor=extractor).fit({"a": Net(), "b": Net(8)}, cases)
    assert SEEN
    depths = [rooms.count("selection") for rooms in SEEN]
    assert depths[0] == min(depths) == 3
    assert max(depths) == 4  # of untrained networks, which one function more compares
    assert max(map(len, SEEN)) <= 13
    assert max(len(rooms) for rooms in SEEN if rooms.count("selection") == 3) <= 12


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [LogME(), {"x": Ensemble(), "y": LogME()}], ids=["one", "two"]
)
def test_it_gives_what_the_selector_gives(cases, extractor, estimator):
    bank = [BankEntry("a", Net), BankEntry("b", Net, arguments={"width": 8})]
    engine = Engine.from_settings(estimator, extractor=extractor, random_state=3)
    assert engine.random_state == 3
    with closing(engine.run(bank, cases, weights=np.ones((2, 3), dtype=int))) as running:
        records = list(running)
    assert all(isinstance(record, ModelRecord) for record in records)
    selector = ModelBankSelector(estimator, extractor=extractor, random_state=3).fit(bank, cases)
    for record, part in zip(records, selector.parts_, strict=True):
        assert record.parts[next(iter(engine.estimators))] == part
    # Both resamples hold each case once.
    expected = np.stack([selector.scores_] * 2, axis=1)
    np.testing.assert_allclose(engine.resampled_scores(records), expected, rtol=1e-7)


def test_known_features_are_put_before_those_of_new_cases(cases, extractor):
    bank = [BankEntry("a", Net)]
    engine = Engine.from_settings(LogME(), extractor=extractor)
    (first,) = engine.run(bank, cases[:2], known={})
    assert len(first.features) == 2
    (second,) = engine.run(bank, cases[2:], known={"a": first.features})
    (whole,) = engine.run(bank, cases)
    assert len(second.features) == 3
    assert whole.features is None
    assert second.parts == whole.parts


def test_identical_networks_run_once_whatever_their_names(cases, extractor, tmp_path):
    weights = [tmp_path / f"{name}.pt" for name in ("a", "copy", "other")]
    torch.save(Net().state_dict(), weights[0])
    shutil.copy(weights[0], weights[1])
    torch.save(Net().state_dict(), weights[2])
    bank = [BankEntry(path.stem, Net, weights=path) for path in weights]
    engine = Engine.from_settings(LogME(), extractor=extractor, error_score=np.nan)
    SEEN.clear()
    list(engine.run([bank[0], bank[2]], cases, known={}))
    n_passes = len(SEEN)
    with pytest.warns(SkteWarning, match=r"'copy'.*same network as 'a'"):
        first, copy, other = engine.run(bank, cases, known={})
    assert len(SEEN) == 2 * n_passes
    assert (copy.name, copy.parts, copy.layers) == ("copy", first.parts, first.layers)
    assert copy.features.name == "copy"
    assert (copy.n_windows, copy.n_cached, copy.seconds) == (0, 3, 0.0)
    assert other.n_windows > 0
    assert [record.is_copy for record in (first, copy, other)] == [False, True, False]
    failed = dataclasses.replace(first, errors={"": "Entry 'a': Broken."})
    assert failed.under("copy", 3).errors == {"": "Entry 'copy': Broken."}


def test_a_file_whose_ending_is_wrong_takes_no_copy_with_it(cases, extractor, tmp_path):
    weights = [tmp_path / "a.safetensors", tmp_path / "b.pt"]
    torch.save(Net().state_dict(), weights[0])
    shutil.copy(weights[0], weights[1])
    bank = [BankEntry(path.stem, Net, weights=path) for path in weights]
    engine = Engine.from_settings(LogME(), extractor=extractor, error_score=np.nan)
    with pytest.warns(FitFailedWarning, match="'a' failed"):
        refused, copy = engine.run(bank, cases)
    assert refused.errors
    assert copy.parts


def test_models_of_one_preprocessing_prepare_each_case_once(cases, extractor):
    prepared = []
    step = tio.Lambda(lambda data: prepared.append(1) or data)
    bank = [BankEntry(name, Net, preprocessing=[step]) for name in "ab"]
    engine = Engine.from_settings(LogME(), extractor=extractor)
    list(engine.run(bank, cases))
    assert len(prepared) == len(cases)


def test_settings_are_checked_before_any_model_runs(extractor):
    with pytest.raises(SkteError, match="device"):
        Engine.from_settings(LogME(), extractor=extractor, device="nowhere")
    with pytest.raises(TypeError, match="mapping"):
        Engine.from_settings({})


def test_a_change_of_the_extraction_leaves_the_engine_alone(extractor):
    engine = Engine.from_settings(LogME(), extractor=extractor)
    other = engine.with_extraction(overlap=0.0)
    assert (engine.extractor.overlap, other.extractor.overlap) == (extractor.overlap, 0.0)
    assert other.with_extraction(batch_size=2).extractor.overlap == 0.0


def test_whole_cases_are_sampled_where_an_estimator_looks_at_them():
    probe, variety = CrossCaseProbe(), CCFV()
    assert extractor_for({"probe": probe}).samples == "roi"
    assert extractor_for({"probe": probe, "ccfv": variety}).samples == "all"
    assert extractor_for({"ccfv": CCFV(feature_variety=False)}).samples == "roi"
    assert extractor_for({"probe": probe}, samples="all").samples == "all"
