"""Sets of stages by name, and all layers at the same voxels."""

import numpy as np
import pytest
import torch
from torch import nn

from skte import BankEntry, CrossCaseProbe, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet

ENCODER = ["encoder.2", "encoder.1", "encoder.0"]
DECODER = ["decoder.0", "decoder.1"]


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(3, size=(24, 24, 24), random_state=0)


def entry(**kwargs):
    torch.manual_seed(0)
    network = small_unet(widths=(4, 6, 8), n_classes=3)
    return BankEntry.from_module("net", network, window_size=(24, 24, 24), **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("auto", DECODER),
        ("decoder", DECODER),
        ("encoder", ENCODER),
        ("all", [*ENCODER, *DECODER]),
        ("bottleneck+decoder", [*ENCODER[:1], *DECODER]),
    ],
)
def test_stages_of_a_set(cases, layers, expected):
    extractor = SegmentationFeatureExtractor(entry(), layers=layers).fit(cases)
    assert [layer.name for layer in extractor.layers_] == expected


def test_an_entry_of_an_encoder_alone_gives_no_decoder(cases):
    extractor = SegmentationFeatureExtractor(entry(layers="encoder"), layers="all").fit(cases)
    assert [layer.name for layer in extractor.layers_] == ENCODER


def test_a_network_without_resolutions_has_every_stage_once(cases):
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    flat = BankEntry.from_module("flat", network)
    found = SegmentationFeatureExtractor(flat, layers="all").fit(cases).layers_
    assert [layer.name for layer in found] == ["0"]


@pytest.mark.slow
def test_without_taper_all_layers_hold_the_sample_of_the_finest(cases):
    tapered = SegmentationFeatureExtractor(entry(), layers="all").fit_transform(cases)
    whole = SegmentationFeatureExtractor(entry(), layers="all", taper=False).fit_transform(cases)
    for few, many in zip(tapered, whole, strict=True):
        sizes = {name: len(sample.X) for name, sample in few.layers.items()}
        assert sizes["encoder.2"] < sizes["encoder.0"]
        assert {len(sample.X) for sample in many.layers.values()} == {sizes["encoder.0"]}
        np.testing.assert_array_equal(many.layers["decoder.1"].X, few.layers["decoder.1"].X)


@pytest.mark.slow
def test_layers_are_joined_at_the_voxels_that_all_hold(cases):
    tapered = SegmentationFeatureExtractor(entry(), layers="all").fit_transform(cases)
    whole = SegmentationFeatureExtractor(entry(), layers="all", taper=False).fit_transform(cases)
    block, full = tapered.joined_block(), whole.joined_block()
    assert block.name == " + ".join([*ENCODER, *DECODER])
    assert block.n_channels == 8 + 6 + 4 + 6 + 4
    assert block.n_voxels == sum(len(case.layers["encoder.2"].X) for case in tapered)
    rows = {row.tobytes() for row in full.X}
    assert all(row.tobytes() in rows for row in block.X)  # whole vectors of single voxels


def test_probe_of_a_feature_set_is_that_of_the_joined_array(cases):
    features = SegmentationFeatureExtractor(entry(), layers="all", taper=False).fit_transform(cases)
    block = features.joined_block()
    probe = CrossCaseProbe().fit(features)
    assert probe.score_ == CrossCaseProbe().score(block.X, block.y, groups=block.groups)
    assert probe.case_names_ == features.case_ids
    weights = np.array([[1, 1, 1], [0, 2, 1]])
    scores = probe.resample_cases(features, weights)["score"]
    expected = [probe.case_scores_.mean(), np.average(probe.case_scores_, weights=[0, 2, 1])]
    np.testing.assert_allclose(scores, expected)


def test_layers_of_different_voxels_are_refused():
    from skte import FeatureBlock, FeatureSet

    X, groups = np.zeros((4, 1)), np.array([0, 0, 1, 1])
    blocks = [FeatureBlock(X, y, groups) for y in (np.array([0, 1, 0, 1]), np.array([1, 0, 0, 1]))]
    with pytest.raises(ValueError, match=r"Case '0'.*different orders"):
        CrossCaseProbe().fit(FeatureSet.from_blocks(blocks))
