"""The window plan: every point in one window, the one where it lies deepest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# The plan shows in no result: it decides which window a voxel is read in.
from skte.extraction._windows import default_window_size, plan_windows

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
    corners = np.array([[1.0, 1, 1], [62, 62, 62]])
    plan = plan_windows(corners, (64, 64, 64), (16, 16, 16), 0.5)
    assert plan.n_planned == 7**3
    np.testing.assert_array_equal(plan.starts, [[0, 0, 0], [48, 48, 48]])


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


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(*[st.integers(1, 90)] * 3),
    window=st.tuples(*[st.integers(1, 40)] * 3),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]),
    n=st.integers(1, 60),
)
def test_points_keep_a_margin_from_the_faces_that_are_not_the_volumes(
    seed, shape, window, overlap, n
):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, rng.uniform(0.1, 1), (n, 3)) * (np.array(shape) - 1)
    plan = plan_windows(points, shape, window, overlap)
    padded = np.array(shape) + np.array(plan.padding).sum(axis=1)
    assert (plan.starts >= 0).all()
    assert (plan.starts + np.array(window) <= padded).all()
    margin = np.floor(0.5 * overlap * np.array(window))
    for start, owned in zip(plan.starts, plan.owned, strict=True):
        end, at = start + np.array(window), plan.positions[owned]
        # Starts and the places of points between windows are rounded to whole voxels.
        assert ((at - start >= margin - 1.5) | (start == 0)).all()
        assert ((end - 1 - at >= margin - 1.5) | (end == padded)).all()


def test_the_grid_lies_over_the_points_alone():
    rng = np.random.default_rng(0)
    points = rng.integers(60, 100, (500, 3)).astype(float)
    shape, window = (160, 160, 128), (48, 48, 48)
    assert len(plan_windows(points, shape, (64, 64, 64), 0.25).starts) == 1
    assert len(plan_windows(points, shape, window, 0.25).starts) == 8
    (start,) = plan_windows(points[:1], shape, window, 0.25).starts
    assert (np.abs(start + 23.5 - points[0]) <= 1).all()  # in the middle of its window
