"""Which voxels are drawn: by the region of interest, and where the image is not constant."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter, minimum_filter

from skte.datasets import Case
from skte.exceptions import DatasetError
from skte.extraction import SegmentationFeatureExtractor, sampled_voxels
from skte.extraction._windows import plan_windows  # the plan shows in no result


def make_case(shape=(60, 48, 40), ignore_label=None):
    """Noise with two structures, the second of them a single voxel."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    label = np.zeros(shape, dtype=np.int64)
    label[30:40, 20:30, 10:20] = 2
    label[25:26, 25:26, 15:16] = 7
    label[0, 0, 0] = 9
    return Case(
        "a", torch.from_numpy(image), torch.from_numpy(label), np.eye(4), (1, 1, 1), ignore_label
    )


def draw(case, samples="roi", **kwargs):
    settings = {"n_class_samples": 10**6, "n_case_samples": 100, **kwargs}
    sample = sampled_voxels(SegmentationFeatureExtractor(samples=samples, **settings), case)
    at = tuple(sample.voxels[: len(sample.labels)].T)
    np.testing.assert_array_equal(case.label.numpy()[at], sample.labels)
    return sample


def by_class(sample):
    n = len(sample.labels)
    return {k: sample.voxels[:n][sample.labels == k] for k in np.unique(sample.labels).tolist()}


class TestRegionOfInterest:
    def test_background_comes_from_the_windows_that_the_foreground_needs(self):
        """Foreground spans 15, 10 and 10 voxels; a window of 16 keeps 12 away from its faces."""
        case = make_case(ignore_label=9)
        found = by_class(draw(case, window_size=16, overlap=0.25))
        lowest, highest = found[0].min(axis=0), found[0].max(axis=0)
        # Two windows along the first axis (24 voxels), one along the others (12).
        assert (highest + 1 - lowest).tolist() == [24, 12, 12]
        for k in (2, 7):
            assert (found[k] >= lowest).all()
            assert (found[k] <= highest).all()
        sample = draw(case, window_size=16, overlap=0.25)
        plan = plan_windows(sample.voxels, (60, 48, 40), (16, 16, 16), 0.25)
        assert len(plan.starts) == 2
        assert sample.class_voxels[0] == 24 * 12 * 12 - 1000 - 1

    def test_other_classes_are_drawn_as_from_the_whole_volume(self):
        case = make_case()
        here, there = (by_class(draw(case, samples, window_size=16)) for samples in ("roi", "all"))
        foreground = by_class(draw(case, "foreground"))
        assert set(here) == {0, 2, 7, 9}
        assert set(foreground) == {2, 7, 9}
        for k in (2, 7, 9):
            np.testing.assert_array_equal(here[k], there[k])
            np.testing.assert_array_equal(here[k], foreground[k])

    @pytest.mark.parametrize("shape", [(60, 48, 40), (33, 48, 1), (41, 31, 21)])
    @pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
    def test_no_window_is_added_by_the_background(self, shape, overlap):
        rng = np.random.default_rng(0)
        for size in (1, 4, 9, 20):
            low = rng.integers(0, np.maximum(np.array(shape) - size, 0) + 1)
            label = np.zeros(shape, dtype=np.int64)
            label[tuple(slice(a, a + size) for a in low)] = 1
            image = torch.from_numpy(rng.normal(size=(1, *shape)).astype(np.float32))
            case = Case("a", image, torch.from_numpy(label), np.eye(4), (1, 1, 1))
            window = (16, 12, min(8, shape[2]))
            every = {"window_size": window, "overlap": overlap, "n_class_samples": 10**6}
            found = plan_windows(draw(case, **every).voxels, shape, window, overlap)
            needed = plan_windows(np.argwhere(label), shape, window, overlap)
            assert found.n_planned <= needed.n_planned

    def test_a_volume_that_fits_into_one_window_is_looked_at_whole(self):
        case = make_case((16, 16, 16))
        case = replace(case, label=(torch.arange(16) == 3).long().expand(16, 16, 16).contiguous())
        found = by_class(draw(case, window_size=16))
        assert len(found[0]) > 3 * len(found[1])
        np.testing.assert_array_equal(by_class(draw(case, "all", window_size=16))[0], found[0])

    def test_without_background_there_is_none(self):
        case = make_case((8, 8, 8))
        case = replace(case, label=torch.full((8, 8, 8), 3))
        assert set(by_class(draw(case))) == {3}


@pytest.mark.parametrize("samples", ["all", "roi", "foreground"])
def test_a_constant_image_is_refused(samples):
    case = make_case((8, 8, 8))
    image = torch.tensor([1.0, 2.0])[:, None, None, None].expand(2, 8, 8, 8).contiguous()
    with pytest.raises(DatasetError, match="'a': the image is constant everywhere"):
        draw(replace(case, image=image), samples)
    image[1, 0, 0, 0] = 3.0  # one channel that varies is enough
    assert len(draw(replace(case, image=image), samples).labels)


def test_sample_depends_on_seed_and_case_alone():
    case = make_case()
    few = {"n_class_samples": 60, "window_size": 16}
    first, again = draw(case, **few), draw(case, **few)
    np.testing.assert_array_equal(first.voxels, again.voxels)
    assert (first.voxels != draw(case, **few, random_state=1).voxels).any()
    renamed = replace(case, case_id="b")
    assert (first.voxels != draw(renamed, **few).voxels).any()


def informative(image):
    """Voxels that see another value among their neighbours, in any channel."""
    size = (1, 3, 3, 3)
    values = image.numpy()
    return (maximum_filter(values, size) > minimum_filter(values, size)).any(axis=0)


def whole_case(image, n, **kwargs):
    case = Case("a", image, torch.zeros(image.shape[1:], dtype=torch.int64), np.eye(4), (1, 1, 1))
    sample = draw(case, "all", n_case_samples=n, **kwargs)
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
