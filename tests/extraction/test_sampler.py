"""The sampler: same voxels for everyone, in proportion, never where nothing is."""

import numpy as np
import pytest
import torch

from skte.datasets import Case
from skte.exceptions import DatasetError
from skte.extraction import SegmentationFeatureExtractor, sampled_voxels


def make_case(label, image=None, case_id="a", ignore_label=None):
    label = torch.as_tensor(label, dtype=torch.int64)
    if image is None:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, *label.shape, generator=generator)
    return Case(case_id, image, label, np.eye(4), (1.0, 1.0, 1.0), ignore_label, {})


def draw(case, n_class=100, n_case=100, seed=0):
    counts = {"n_class_samples": n_class, "n_case_samples": n_case}
    return sampled_voxels(SegmentationFeatureExtractor(**counts, random_state=seed), case)


@pytest.fixture
def label():
    label = np.zeros((20, 20, 20), dtype=int)
    label[:10] = 2  # 4000 voxels
    label[10:12, 10:, 10:] = 7  # 200 voxels
    label[19, 19, :8] = 9  # 8 voxels
    return label


def test_labels_are_those_of_the_voxels(label):
    sample = draw(make_case(label))
    at = tuple(sample.voxels[: len(sample.labels)].T)
    np.testing.assert_array_equal(label[at], sample.labels)


def test_counts_are_a_share_between_floor_and_cap(label):
    sample = draw(make_case(label), n_class=300)
    values, counts = np.unique(sample.labels, return_counts=True)
    # a quarter of 3792, 4000, 200 and 8, at least 50, at most 300 and what there is
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0: 300, 2: 300, 7: 50, 9: 8}
    assert dict(
        zip(*np.unique(draw(make_case(label), n_class=5).labels, return_counts=True), strict=True)
    ) == {0: 5, 2: 5, 7: 5, 9: 5}


def test_no_voxel_twice(label):
    sample = draw(make_case(label), n_case=8000)
    for voxels in (sample.voxels[: len(sample.labels)], sample.voxels[len(sample.labels) :]):
        assert len(np.unique(voxels, axis=0)) == len(voxels)
    assert len(sample.voxels) - len(sample.labels) == 8000


def test_sample_depends_on_seed_case_and_label_alone(label):
    reference = draw(make_case(label))
    again = draw(make_case(label, image=torch.randn(3, 20, 20, 20)))
    np.testing.assert_array_equal(reference.voxels, again.voxels)
    assert (draw(make_case(label), seed=1).voxels != reference.voxels).any()
    assert (draw(make_case(label, case_id="b")).voxels != reference.voxels).any()
    # dropping one class leaves the voxels of the others where they are
    without = np.where(label == 7, 2, label)
    kept = draw(make_case(without))
    for value in (0, 9):
        rows, others = reference.labels == value, kept.labels == value
        np.testing.assert_array_equal(
            reference.voxels[: len(rows)][rows], kept.voxels[: len(others)][others]
        )


def test_draw_is_uniform_over_the_class():
    label = np.zeros((10, 10, 10), dtype=int)
    label[:, :, :4] = 3
    counts = np.zeros(label.shape)
    for seed in range(400):
        sample = draw(make_case(label), n_class=50, seed=seed)
        counts[tuple(sample.voxels[: len(sample.labels)][sample.labels == 3].T)] += 1
    hits = counts[label == 3]  # each expects 400 * 50 / 400 = 50, binomial
    chi2 = ((hits - 50) ** 2 / (50 * (1 - 50 / 400))).sum()
    assert 300 < chi2 < 510  # 400 degrees of freedom: mean 400, sd 28


def test_ignored_voxels_are_in_no_class(label):
    sample = draw(make_case(label, ignore_label=7))
    assert 7 not in sample.labels
    assert set(sample.labels.tolist()) == {0, 2, 9}


@pytest.mark.parametrize("ignore", [-1, -100_000])
def test_the_ignore_label_may_be_negative(label, ignore):
    reference = draw(make_case(label, ignore_label=7))
    sample = draw(make_case(np.where(label == 7, ignore, label), ignore_label=ignore))
    np.testing.assert_array_equal(reference.labels, sample.labels)
    np.testing.assert_array_equal(reference.voxels, sample.voxels)


def test_whole_case_sample_leaves_constant_voxels_out():
    image = torch.zeros(1, 12, 12, 12)
    image[:, 4:8, 4:8, 4:8] = torch.rand(4, 4, 4)
    sample = draw(make_case(np.zeros((12, 12, 12)), image), n_case=2000)
    voxels = sample.voxels[len(sample.labels) :]
    assert voxels.min() == 3  # one voxel around the texture sees it
    assert voxels.max() == 8
    assert len(voxels) == 6**3


def test_one_informative_channel_is_enough():
    image = torch.stack([torch.zeros(6, 6, 6), torch.rand(6, 6, 6)])
    sample = draw(make_case(np.zeros((6, 6, 6)), image), n_case=1000)
    assert len(sample.voxels) - len(sample.labels) == 216


def test_constant_image_is_an_error_that_names_the_case():
    with pytest.raises(DatasetError, match="Case 'a': the image is constant"):
        draw(make_case(np.zeros((4, 4, 4)), torch.ones(1, 4, 4, 4)))


def test_coarser_layers_use_a_prefix_of_each_class(label):
    sample = draw(make_case(label), n_class=300, n_case=200)
    all_rows, all_case = sample.rows(1.0)
    np.testing.assert_array_equal(all_rows, np.arange(len(sample.labels)))
    np.testing.assert_array_equal(all_case, np.arange(len(sample.labels), len(sample.voxels)))
    rows, case_rows = sample.rows(0.25)
    assert len(case_rows) == 50
    for value, kept in {0: 75, 2: 75, 7: 50, 9: 8}.items():
        of_class = np.flatnonzero(sample.labels == value)
        np.testing.assert_array_equal(rows[sample.labels[rows] == value], of_class[:kept])


def test_large_label_values_and_slabs(monkeypatch, label):
    monkeypatch.setattr("skte.extraction._sampler._SLAB", 37)
    reference = draw(make_case(label))
    monkeypatch.undo()
    np.testing.assert_array_equal(reference.voxels, draw(make_case(label)).voxels)
    big = draw(make_case(np.where(label == 2, 100_000, label)))
    assert 100_000 in big.labels
