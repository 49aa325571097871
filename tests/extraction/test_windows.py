"""The window plan: every point in one window, the one where it lies deepest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
