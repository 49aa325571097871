"""Two-stage samples: bounded in number of windows, unbiased, the same for every model."""

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.stats import chisquare

from skte.datasets import Case
from skte.extraction import SegmentationFeatureExtractor, sampled_voxels


def make_case(shape=(60, 48, 40), seed=0, air=0.0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    image[:, : round(air * shape[0])] = -3.0
    label = np.zeros(shape, dtype=np.int64)
    label[40:50, 20:30, 10:20] = 2
    label[5, 5, 5] = 7
    return Case(
        f"case{seed}", torch.from_numpy(image), torch.from_numpy(label), np.eye(4), (1, 1, 1)
    )


def draw(case, max_windows, seed=0, **kwargs):
    settings = {"n_class_samples": 200, "n_case_samples": 100, "cell_size": (16, 16, 16), **kwargs}
    extractor = SegmentationFeatureExtractor(max_windows=max_windows, random_state=seed, **settings)
    return sampled_voxels(extractor, case)


def test_every_class_is_seen_where_windows_suffice():
    for seed in range(10):
        case = make_case(seed=seed)
        sample = draw(case, 4, seed)
        assert set(sample.labels.tolist()) == {0, 2, 7}
        label = case.label.numpy()
        n = len(sample.labels)
        np.testing.assert_array_equal(label[tuple(sample.voxels[:n].T)], sample.labels)


def test_more_windows_than_there_are_is_the_whole_volume():
    case = make_case()
    sample = draw(case, 10_000)
    assert (sample.labels == 2).sum() == 200
    assert (sample.labels == 7).sum() == 1
    assert len(sample.voxels) == len(sample.labels) + 100


def test_sample_depends_on_seed_and_case_alone():
    case = make_case()
    first, again, other = draw(case, 3), draw(case, 3), draw(case, 3, seed=1)
    np.testing.assert_array_equal(first.voxels, again.voxels)
    assert first.voxels.shape != other.voxels.shape or (first.voxels != other.voxels).any()


@pytest.mark.slow
def test_whole_case_voxels_are_equally_likely():
    """Over many seeds, slabs of the volume come up by their size: chi squared."""
    case = make_case(shape=(40, 16, 16))
    counts = np.zeros(8)
    for seed in range(600):
        sample = draw(case, 2, seed, n_case_samples=6, cell_size=(16, 16, 16))
        x = sample.voxels[len(sample.labels) :, 0]
        # One voxel a case: those of one cell are not independent.
        counts[x[0] // 5] += 1
    assert chisquare(counts).pvalue > 1e-3


def informative(image):
    """Voxels that see another value among their neighbours, in any channel."""
    size = (1, 3, 3, 3)
    values = image.numpy()
    return (maximum_filter(values, size) > minimum_filter(values, size)).any(axis=0)


def whole_case(image, n, **kwargs):
    case = Case("a", image, torch.zeros(image.shape[1:], dtype=torch.int64), np.eye(4), (1, 1, 1))
    sample = draw(case, None, n_case_samples=n, **kwargs)
    return sample.voxels[len(sample.labels) :]


class TestInformative:
    @pytest.mark.parametrize("n_channels", [1, 2])
    def test_every_voxel_that_is_not_in_air_can_be_drawn(self, n_channels):
        rng = np.random.default_rng(0)
        image = torch.from_numpy((rng.random((n_channels, 9, 8, 7)) < 0.03).astype(np.float32))
        expected = informative(image)
        assert 0 < expected.sum() < expected.size
        found = {tuple(v) for v in whole_case(image, 10_000).tolist()}
        assert found == {tuple(v) for v in np.argwhere(expected).tolist()}

    def test_large_volumes_are_drawn_one_by_one(self):
        """The same law either way; a volume that is nearly all air falls back to looking."""
        image = torch.zeros(1, 70, 70, 70)
        image[:, 60:] = torch.randn(1, 10, 70, 70)
        drawn = whole_case(image, 300)
        assert len(np.unique(drawn, axis=0)) == 300
        assert informative(image)[tuple(drawn.T)].all()
        nearly = torch.zeros(1, 70, 70, 70)
        nearly[0, 3, 4, 5] = 1.0
        assert len(whole_case(nearly, 300)) == 27

    def test_slabs_see_their_neighbours(self, monkeypatch):
        monkeypatch.setattr("skte.extraction._sampler._SLAB", 100)
        image = torch.zeros(1, 12, 8, 8)
        image[0, 5, 4, 4] = 1.0
        assert sorted(set(whole_case(image, 100)[:, 0].tolist())) == [4, 5, 6]
