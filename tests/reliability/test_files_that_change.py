"""A file that changes while it is in use is noticed, and spoils no later run."""

import os
import shutil

import numpy as np
import pytest
import torch

from skte import CCFV, BankEntry, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import case_stamp, check_unchanged, load_dataset, make_phantoms
from skte.demo import small_unet, write_msd
from skte.exceptions import BankError, DatasetError
from skte.extraction import FeatureCache
from tests.reliability.models import Faulty, Meddling

EXTRACTOR = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60)


@pytest.fixture
def data(tmp_path):
    return write_msd(tmp_path / "data", make_phantoms(3, size=(16, 16, 16)), "tiny")


@pytest.fixture
def other(data, tmp_path):
    """The image of another case, which fits the label as well."""
    return shutil.copy2(image_of(data, 2), tmp_path / "other.nii.gz")


def image_of(data, index):
    return sorted((data / "imagesTr").iterdir())[index]


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("error_score", ["raise", np.nan])
def test_a_case_that_changes_ends_the_run(cached, error_score, data, other, tmp_path):
    cache = tmp_path / "cache" if cached else None
    changed = image_of(data, 1)
    entries = [
        BankEntry("first", Faulty),
        BankEntry("meddling", Meddling, arguments={"new": str(other), "old": str(changed)}),
        BankEntry("last", Faulty, arguments={"seed": 1}),
    ]
    selector = ModelBankSelector(CCFV(), extractor=EXTRACTOR, cache=cache, error_score=error_score)
    with pytest.raises(DatasetError, match=rf"changed while.*{changed.name}"):
        selector.fit(entries, data)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 2])  # while the model is looked at, while it runs
def test_features_of_a_new_content_are_not_kept_for_the_old(after, data, other, tmp_path):
    """The digest is made, the file changes, the network runs: the old content must miss."""
    cache, old = tmp_path / "cache", image_of(data, 0)
    kept = shutil.copy2(old, tmp_path / "kept.nii.gz")
    meddling = {"new": str(other), "old": str(old), "after": after}
    extractor = SegmentationFeatureExtractor(
        BankEntry("a", Meddling, arguments=meddling), **settings(), cache=cache
    )
    with pytest.raises(DatasetError, match="changed while"):
        extractor.fit_transform(data)
    shutil.copy2(kept, old)
    expected = SegmentationFeatureExtractor(BankEntry("a", Faulty), **settings()).fit_transform(
        data
    )
    found = extractor.fit_transform(data)
    for one, two in zip(found, expected, strict=True):
        for layer in one.layers:
            np.testing.assert_array_equal(one.layers[layer].X, two.layers[layer].X)


def settings():
    given = EXTRACTOR.get_params()
    return {name: given[name] for name in ("n_class_samples", "n_case_samples")}


def test_weights_that_change_are_not_cached(data, tmp_path):
    weights, cache = tmp_path / "w.pt", tmp_path / "cache"
    torch.save(small_unet(widths=(4, 8)).state_dict(), weights)

    def build():
        network = small_unet(widths=(4, 8))
        network.register_forward_pre_hook(lambda *_: os.utime(weights, (1, 1)))
        return network

    extractor = SegmentationFeatureExtractor(cache=cache, **settings())
    entry = BankEntry("a", "skte.demo:small_unet", arguments={"widths": (4, 8)}, weights=weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BankEntry, "load", lambda self: build())
        with pytest.raises(BankError, match=r"'a'.*w\.pt changed while"):
            extractor.set_params(entry=entry).fit_transform(data)
    assert FeatureCache(cache).describe()["n_entries"] == 0
    assert len(extractor.fit_transform(data)) == 3


def test_a_stamp_names_what_changed(data):
    subject = load_dataset(data)[0]
    stamp = case_stamp(subject)
    assert sorted(os.path.basename(file) for file in stamp) == [image_of(data, 0).name] * 2
    check_unchanged(subject, stamp)
    label = next(file for file in stamp if "labelsTr" in file)
    os.remove(label)
    with pytest.raises(DatasetError, match="labelsTr"):
        check_unchanged(subject, stamp)


def test_a_header_stands_for_the_file_beside_it(tmp_path):
    import torchio as tio

    (subject,) = make_phantoms(1, size=(8, 8, 8))
    for name in ("image", "label"):
        subject[name].save(tmp_path / f"{name}.mhd")
    on_disk = tio.Subject(
        image=tio.ScalarImage(tmp_path / "image.mhd"), label=tio.LabelMap(tmp_path / "label.mhd")
    )
    found = {os.path.basename(file) for file in case_stamp(on_disk)}
    assert {"image.mhd", "label.mhd"} < found
    assert len(found) == 4
