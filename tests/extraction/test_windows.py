"""The window plan: every point in one window, the one where it lies deepest."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# The plan shows in no result: it decides which window a voxel is read in.
from skte.extraction._windows import default_window_size, plan_windows
from tests.extraction.test_cells import draw, make_case

volumes = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=3, max_size=3).map(
    lambda pairs: tuple(zip(*pairs, strict=True))
)


def all_points(shape):
    return np.argwhere(np.ones(shape)).astype(float)


@settings(max_examples=40, deadline=None)
@given(volumes, st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_every_point_is_owned_once_and_lies_inside_its_window(volume, overlap):
    shape, window = volume
    rng = np.random.default_rng(0)
    points = np.stack([rng.integers(0, n, 200) for n in shape], axis=1).astype(float)
    plan = plan_windows(points, shape, window, overlap)
    owned = np.concatenate(plan.owned)
    np.testing.assert_array_equal(np.sort(owned), np.arange(200))
    padded = np.array(shape) + np.array(plan.padding).sum(axis=1)
    for start, rows in zip(plan.starts, plan.owned, strict=True):
        at = plan.positions[rows] - start
        assert (at >= 0).all()
        assert (at <= np.array(window) - 1).all()
        assert (start >= 0).all()
        assert (start + window <= padded).all()


def test_the_owner_is_the_window_where_the_point_is_farthest_from_every_face():
    shape, window, overlap = (23, 17, 9), (8, 6, 9), 0.5
    points = all_points(shape)
    plan = plan_windows(points, shape, window, overlap)
    depth = np.full((len(plan.starts), len(points)), -np.inf)
    for k, start in enumerate(plan.starts):
        at = points - start
        inside = (at >= 0).all(axis=1) & (at <= np.array(window) - 1).all(axis=1)
        # per axis: distance to the nearer face
        margin = np.minimum(at, np.array(window) - 1 - at)
        depth[k, inside] = margin[inside].sum(axis=1)
    for k, rows in enumerate(plan.owned):
        np.testing.assert_array_equal(depth[k, rows], depth[:, rows].max(axis=0))


def test_windows_without_points_are_not_planned():
    plan = plan_windows(np.array([[1.0, 1, 1]]), (64, 64, 64), (16, 16, 16), 0.5)
    assert len(plan.starts) == 1
    assert plan.n_planned == 7**3
    np.testing.assert_array_equal(plan.starts, [[0, 0, 0]])


def test_small_volumes_are_padded_on_both_sides_and_points_move_along():
    plan = plan_windows(np.array([[0.0, 2, 4]]), (1, 3, 10), (4, 8, 8), 0.0)
    assert plan.padding == ((1, 2), (2, 3), (0, 0))
    np.testing.assert_array_equal(plan.positions, [[1, 4, 4]])


def test_batches_cover_all_windows():
    plan = plan_windows(all_points((20, 20, 4)), (20, 20, 4), (8, 8, 4), 0.0)
    assert [list(b) for b in plan.batches(4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((300, 50, 14), (96, 64, 16)), ((96, 96, 16), (96, 96, 16)), ((17, 1, 33), (32, 1, 64))],
)
def test_default_window_fits_the_volume(shape, expected):
    assert default_window_size(shape) == expected


# Covering windows: every point in one, away from its faces, in few of them.


def depth(plan, shape):
    """Least distance of each point from those faces of its window that are not the volume's."""
    padded = np.array(shape) + np.array([sum(p) for p in plan.padding])
    result = np.full(len(plan.positions), np.inf)
    for start, owned in zip(plan.starts, plan.owned, strict=True):
        end = start + np.array(plan.window_size)
        below = np.where(start > 0, plan.positions[owned] - (start - 0.5), np.inf)
        above = np.where(end < padded, end - 0.5 - plan.positions[owned], np.inf)
        result[owned] = np.minimum(below, above).min(axis=1)
    return result


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(*[st.integers(1, 90)] * 3),
    window=st.tuples(*[st.integers(1, 40)] * 3),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]),
    n=st.integers(1, 60),
)
def test_every_point_is_deep_inside_one_window(seed, shape, window, overlap, n):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (n, 3)) * (np.array(shape) - 1)
    plan = plan_windows(points, shape, window, overlap, "cover")
    owned = np.sort(np.concatenate(plan.owned))
    np.testing.assert_array_equal(owned, np.arange(n))
    padded = np.array(shape) + np.array([sum(p) for p in plan.padding])
    assert (plan.starts >= 0).all()
    assert (plan.starts + np.array(window) <= padded).all()
    margin = np.minimum(np.floor(0.5 * overlap * np.array(window)), (np.array(window) - 1) // 2)
    assert (depth(plan, shape) >= margin.min() - 1e-9).all()
    grid = plan_windows(points, shape, window, overlap)
    assert len(plan.starts) <= len(grid.starts)


def test_clusters_need_a_window_each():
    rng = np.random.default_rng(0)
    centres = np.array([[30, 30, 30], [30, 170, 100], [170, 60, 160]])
    points = (centres[:, None] + rng.uniform(-10, 10, (3, 100, 3))).reshape(-1, 3)
    plan = plan_windows(points, (200, 200, 200), (48, 48, 48), 0.5, "cover")
    assert len(plan.starts) == 3
    assert len(plan_windows(points, (200, 200, 200), (48, 48, 48), 0.5).starts) > 10


def test_a_full_sample_needs_no_more_than_the_grid():
    points = np.argwhere(np.ones((10, 10, 10))) * 8.0
    for overlap in (0.0, 0.25, 0.5):
        grid = plan_windows(points, (73, 73, 73), (32, 32, 32), overlap)
        cover = plan_windows(points, (73, 73, 73), (32, 32, 32), overlap, "cover")
        assert len(cover.starts) <= len(grid.starts)


@pytest.mark.parametrize("windows", ["grid", "cover"])
def test_planned_windows_are_those_of_the_grid(windows):
    plan = plan_windows(np.array([[1.0, 1, 1]]), (64, 64, 64), (16, 16, 16), 0.5, windows)
    assert len(plan.starts) == 1
    assert plan.n_planned == 7**3


# Cells: what one window of the grid owns.


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(60, 48, 40), (17, 50, 1), (8, 16, 90)])
def test_windows_are_bounded(shape, overlap):
    """A cell that were one voxel larger than what its window owns would need another window."""
    size = (16, 16, min(shape[2], 16))
    for seed, max_windows in itertools.product(range(3), (1, 2, 4, 7)):
        case = make_case((60, 50, 90), seed)
        part = tuple(slice(n) for n in shape)
        case = replace(case, image=case.image[:, *part], label=case.label[part].contiguous())
        sample = draw(case, max_windows, seed, cell_size=size, overlap=overlap)
        for rule in ("grid", "cover"):
            plan = plan_windows(sample.voxels, shape, size, overlap, rule)
            assert len(plan.starts) <= max_windows


def test_whole_case_sample_leaves_air_out_and_mixes_cells():
    case = make_case(air=0.5)
    sample = draw(case, 4, n_case_samples=40)
    whole = sample.voxels[len(sample.labels) :]
    assert whole[:, 0].min() >= 29
    for voxels in (whole, whole[:10]):
        assert len(plan_windows(voxels, (60, 48, 40), (16, 16, 16), 0.25).starts) == 2
