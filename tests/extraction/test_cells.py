"""Two-stage samples: bounded in number of windows, unbiased, the same for every model."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from skte.datasets import Case
from skte.extraction._sampler import Lattice, SamplePlan, draw_informative, is_informative
from skte.extraction._windows import plan_windows


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
    settings = {"n_class_samples": 200, "n_case_samples": 100, "cell_size": (16, 16, 16)}
    settings |= kwargs
    return SamplePlan(random_state=seed, max_windows=max_windows, **settings).draw(case)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(60, 48, 40), (17, 50, 1), (8, 16, 90)])
def test_cells_are_what_windows_of_the_grid_own(shape, overlap):
    """Every voxel by brute force: its cell is that of its deepest window."""
    size = (16, 16, 1) if shape[2] == 1 else (16, 16, 16)
    lattice = Lattice(shape, size, overlap)
    voxels = np.argwhere(np.ones(shape))
    plan = plan_windows(voxels, shape, size, overlap)
    owner = np.empty(len(voxels), dtype=int)
    for k, owned in enumerate(plan.owned):
        owner[owned] = k
    cells = np.array([lattice.index(v) for v in voxels])
    assert len(set(zip(owner.tolist(), cells.tolist(), strict=True))) == len(plan.starts)
    for index in np.unique(cells):
        inside = np.zeros(shape, dtype=bool)
        inside[lattice.cell(index)] = True
        np.testing.assert_array_equal(inside.reshape(-1), cells == index)


@pytest.mark.parametrize("max_windows", [1, 2, 4, 7])
def test_windows_are_bounded(max_windows):
    for seed in range(5):
        case = make_case(seed=seed)
        sample = draw(case, max_windows, seed)
        plan = plan_windows(sample.voxels, case.label.shape, (16, 16, 16), 0.5)
        assert len(plan.starts) <= max_windows
        cover = plan_windows(sample.voxels, case.label.shape, (16, 16, 16), 0.5, "cover")
        assert len(cover.starts) <= max_windows


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


def test_whole_case_sample_leaves_air_out_and_mixes_cells():
    case = make_case(air=0.5)
    sample = draw(case, 4, n_case_samples=40)
    whole = sample.voxels[len(sample.labels) :]
    assert is_informative(case.image, whole).all()
    assert whole[:, 0].min() >= 29
    cells = [Lattice((60, 48, 40), (16, 16, 16), 0.5).index(v) for v in whole]
    assert len(set(cells[:10])) == len(set(cells)) == 2


class TestInformative:
    @pytest.mark.parametrize("n_channels", [1, 2])
    def test_neighbourhoods_by_brute_force(self, n_channels):
        rng = np.random.default_rng(0)
        image = torch.from_numpy((rng.random((n_channels, 9, 8, 7)) < 0.03).astype(np.float32))
        values = image.numpy()
        expected = np.zeros((9, 8, 7), dtype=bool)
        for x, y, z in np.ndindex(9, 8, 7):
            around = values[:, max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2, max(z - 1, 0) : z + 2]
            expected[x, y, z] = any(len(np.unique(a)) > 1 for a in around)
        at = np.argwhere(np.ones((9, 8, 7)))
        np.testing.assert_array_equal(is_informative(image, at), expected.reshape(-1))
        region = (slice(2, 8), slice(0, 5), slice(1, 7))
        drawn = draw_informative(image, region, 10_000, np.random.default_rng(0))
        inside = np.zeros_like(expected)
        inside[region] = expected[region]
        assert {tuple(v) for v in drawn.tolist()} == {
            tuple(v) for v in np.argwhere(inside).tolist()
        }

    def test_large_regions_are_drawn_one_by_one(self):
        """The same law either way; a volume that is nearly all air falls back to looking."""
        image = torch.zeros(1, 70, 70, 70)
        image[:, 60:] = torch.randn(1, 10, 70, 70)
        region = (slice(0, 70),) * 3
        drawn = draw_informative(image, region, 300, np.random.default_rng(0))
        assert len(np.unique(drawn, axis=0)) == 300
        assert is_informative(image, drawn).all()
        nearly = torch.zeros(1, 70, 70, 70)
        nearly[0, 3, 4, 5] = 1.0
        few = draw_informative(nearly, region, 300, np.random.default_rng(0))
        assert len(few) == 27
        assert (
            len(draw_informative(torch.zeros(1, 70, 70, 70), region, 5, np.random.default_rng(0)))
            == 0
        )

    def test_slabs_see_their_neighbours(self, monkeypatch):
        monkeypatch.setattr("skte.extraction._sampler._SLAB", 100)
        image = torch.zeros(1, 12, 8, 8)
        image[0, 5, 4, 4] = 1.0
        region = (slice(0, 12), slice(0, 8), slice(0, 8))
        drawn = draw_informative(image, region, 100, np.random.default_rng(0))
        assert sorted(set(drawn[:, 0].tolist())) == [4, 5, 6]
