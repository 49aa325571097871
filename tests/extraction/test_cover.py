"""Covering windows: every point in one, away from its faces, in few of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skte.extraction._windows import plan_windows


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
