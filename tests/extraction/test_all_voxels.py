"""Moments of all voxels: equal to upsampling everything, and every voxel counted once."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch.nn import functional

from skte.exceptions import ExtractionError
from skte.extraction import _all_voxels
from skte.extraction._all_voxels import LabelBox, MomentAccumulator, label_boxes
from skte.extraction._windows import axis_starts, plan_windows

IDS = np.array([0, 2, 7])


def whole_box(labels, positions=None, ignore_label=None):
    positions = positions or [np.arange(float(n)) for n in labels.shape]
    return LabelBox(labels, tuple(positions), labels.shape, ignore_label)


def random_labels(shape, seed=0):
    return IDS[np.random.default_rng(seed).integers(0, 3, shape)]


def upsampled(feature, window):
    mode = "trilinear" if len(window) == 3 else "bilinear"
    full = functional.interpolate(
        feature[None].double(), size=window, mode=mode, align_corners=False
    )
    return full[0].numpy()


def assert_describes(moments, X, y, rel):
    """Of the rows X with labels y, up to a relative error of means and scatters."""
    np.testing.assert_array_equal(moments.classes, np.unique(y))
    for k, label in enumerate(moments.classes):
        rows = X[y == label]
        centred = rows - rows.mean(axis=0)
        scatter = centred.T @ centred
        assert moments.counts[k] == len(rows)
        mean = moments.pivot + moments.offsets[k]
        np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=rel, atol=rel)
        size = max(np.trace(scatter) / len(scatter), 1e-12)
        # Voxels beyond the last centre are alike: their scatter is rounding of the sums.
        rounding = 1e-14 * np.sum((rows - moments.pivot) ** 2)
        np.testing.assert_allclose(moments.scatters[k], scatter, rtol=0, atol=rel * size + rounding)


@pytest.fixture(params=["default", "thin slabs", "gathered", "weighted"])
def path(request, monkeypatch):
    """Every way of summing must give the same."""
    if request.param == "thin slabs":
        monkeypatch.setattr(_all_voxels, "_CPU_SLAB", 40)
    elif request.param != "default":
        monkeypatch.setattr(_all_voxels, "_GATHER", 0 if request.param == "gathered" else 1e9)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize(
    ("window", "native"),
    [
        ((12, 10, 8), (12, 10, 8)),
        ((12, 10, 8), (6, 5, 4)),
        ((12, 12, 8), (3, 3, 2)),
        ((13, 9, 7), (7, 5, 4)),
        ((12, 10, 8), (12, 5, 8)),
        ((12, 10, 8), (3, 10, 4)),
        ((6, 7, 5), (9, 16, 5)),
        ((6, 6, 6), (1, 1, 1)),
        ((12, 10), (12, 10)),
        ((13, 10), (7, 5)),
    ],
)
def test_equals_upsampling(window, native, dtype, rel):
    torch.manual_seed(0)
    feature = (torch.randn(5, *native, dtype=torch.float64) + 2).to(dtype)
    labels = random_labels(window)
    accumulator = MomentAccumulator(["up"])
    accumulator.add("up", feature, whole_box(labels.reshape((*window, 1)[:3])))
    X = upsampled(feature, window).reshape(5, -1).T
    moments = accumulator.moments("up")
    assert moments.name == "up"
    assert_describes(moments, X, labels.ravel(), rel)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_large_mean_costs_no_digits(dtype):
    torch.manual_seed(0)
    feature = (torch.randn(4, 6, 5, 4) + 1e4).to(dtype)
    labels = random_labels((12, 10, 8))
    accumulator = MomentAccumulator(["up"])
    accumulator.add("up", feature, whole_box(labels))
    X = upsampled(feature, (12, 10, 8)).reshape(4, -1).T
    assert_describes(accumulator.moments("up"), X, labels.ravel(), 1e-9)


def test_constant_channels_and_single_voxels_have_no_scatter():
    torch.manual_seed(0)
    feature = torch.randn(3, 4, 4, 4)
    feature[1] = 0.1
    labels = np.zeros((8, 8, 8), dtype=int)
    labels[3, 2, 5] = 9
    accumulator = MomentAccumulator(["up"])
    accumulator.add("up", feature, whole_box(labels))
    moments = accumulator.moments("up")
    assert moments.counts.tolist() == [511, 1]
    assert not moments.scatters[0][1].any()
    assert not moments.scatters[1].any()
    expected = upsampled(feature, (8, 8, 8))[:, 3, 2, 5]
    np.testing.assert_allclose(moments.pivot + moments.offsets[1], expected, rtol=1e-6)


def test_ignored_voxels_count_for_nothing():
    labels = random_labels((6, 6, 6))
    feature = torch.randn(3, 3, 3, 3)
    accumulator = MomentAccumulator(["up"])
    accumulator.add("up", feature, whole_box(labels, ignore_label=2))
    moments = accumulator.moments("up")
    kept = labels.ravel() != 2
    X = upsampled(feature, (6, 6, 6)).reshape(3, -1).T
    assert_describes(moments, X[kept], labels.ravel()[kept], 1e-6)


def test_labels_far_apart_and_negative():
    labels = random_labels((6, 6, 6))
    far = np.where(labels == 7, 10**9, labels) - 5
    accumulators = [MomentAccumulator(["up"]) for _ in range(2)]
    feature = torch.randn(3, 3, 3, 3)
    for accumulator, one in zip(accumulators, (labels, far), strict=True):
        accumulator.add("up", feature, whole_box(one))
    near, moved = (accumulator.moments("up") for accumulator in accumulators)
    assert moved.classes.tolist() == [-5, -3, 10**9 - 5]
    np.testing.assert_array_equal(near.scatters, moved.scatters)


@given(
    st.lists(st.floats(-2, 14), min_size=1, max_size=9),
    st.integers(1, 12),
    st.floats(0.2, 2.5),
    st.integers(0, 3),
)
@example([0.0], 11, 0.5, 0)  # several voxels of a class beyond the last centre
def test_fractional_positions(first, native, step, seed):
    rng = np.random.default_rng(seed)
    along = np.sort(np.array(first))
    positions = [along, np.arange(5) * step - 0.3, np.arange(4.0)]
    size = (native, 4, 3)
    feature = torch.from_numpy(rng.normal(size=(3, *size)))
    labels = IDS[rng.integers(0, 3, (len(along), 5, 4))]
    accumulator = MomentAccumulator(["up"])
    accumulator.add("up", feature, LabelBox(labels, tuple(positions), (12, 10, 4)))
    at = [(p + 0.5) * n / w - 0.5 for p, n, w in zip(positions, size, (12, 10, 4), strict=True)]
    grid = np.stack([g.ravel() for g in np.meshgrid(*at, indexing="ij")])
    X = [map_coordinates(f, grid, order=1, mode="nearest") for f in feature.numpy()]
    assert_describes(accumulator.moments("up"), np.stack(X, axis=1), labels.ravel(), 1e-9)


def test_unusable_features_are_errors():
    box = whole_box(random_labels((4, 4, 4)))
    accumulator = MomentAccumulator(["up"])
    with pytest.raises(ExtractionError, match="no labelled voxel"):
        accumulator.moments("up")
    with pytest.raises(ExtractionError, match="3 spatial axes"):
        accumulator.add("up", torch.zeros(3, 4, 4), box)
    with pytest.raises(ExtractionError, match="layer 'up' holds NaN"):
        accumulator.add("up", torch.full((2, 2, 2, 2), torch.nan), box)
    accumulator.add("up", torch.zeros(3, 2, 2, 2), box)
    with pytest.raises(ExtractionError, match="2 channels in one window and 3"):
        accumulator.add("up", torch.zeros(2, 2, 2, 2), box)


# A case cut into windows.

MAPS = {
    "identity": (np.eye(4), (20, 13, 9)),
    "flipped and permuted": (
        np.array([[0, -1, 0, 12], [1, 0, 0, 0], [0, 0, -1, 8], [0, 0, 0, 1.0]]),
        (13, 20, 9),
    ),
    "resampled": (
        np.array([[0.61, 0, 0, 0.2], [0, -1.7, 0, 20.4], [0, 0, 1.31, 0], [0, 0, 0, 1]]),
        (12, 22, 12),
    ),
    "cropped": (
        np.array([[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1.0]]),
        (18, 13, 12),
    ),
}
SHAPE = (20, 13, 9)


def geometry(image_shape, window, overlap, n_axes=3):
    missing = [max(0, w - n) for n, w in zip(image_shape, window, strict=True)]
    padding = [(n // 2, n - n // 2) for n in missing]
    grid = [
        axis_starts(n + m, w, overlap) for n, m, w in zip(image_shape, missing, window, strict=True)
    ]
    return {
        "image_shape": image_shape,
        "padding": padding,
        "grid": grid,
        "window_size": window,
        "n_axes": n_axes,
    }


def carried(to_image, image_shape, n_axes=3):
    """Every voxel's position in the image, one by one."""
    voxels = np.argwhere(np.ones(SHAPE, dtype=bool))
    points = (np.column_stack([voxels, np.ones(len(voxels))]) @ to_image.T)[:, :3]
    points = np.where(abs(points - points.round()) < 1e-6, points.round(), points)
    points = np.clip(points, 0, np.array(image_shape) - 1)
    points[:, n_axes:] = np.round(points[:, n_axes:])
    return points


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(
    ("window", "overlap", "n_axes"),
    [((8, 8, 8), 0.5, 3), ((32, 32, 16), 0.5, 3), ((6, 10, 16), 0.0, 3), ((8, 8, 1), 0.5, 2)],
)
def test_every_voxel_is_in_the_window_that_sampling_gives_it(name, window, overlap, n_axes):
    to_image, image_shape = MAPS[name]
    label = torch.arange(np.prod(SHAPE)).reshape(SHAPE)  # a voxel's label is its number
    where = geometry(image_shape, window, overlap, n_axes)
    boxes = list(label_boxes(label, to_image, **where))
    starts = np.stack([a.ravel() for a in np.meshgrid(*where["grid"], indexing="ij")], axis=1)
    points = carried(to_image, image_shape, n_axes)
    plan = plan_windows(points, image_shape, window, overlap)
    assert len(boxes) == len(starts)
    used = [k for k, box in enumerate(boxes) if box is not None]
    np.testing.assert_array_equal(starts[used], plan.starts)
    seen = []
    for k, start, owned in zip(used, plan.starts, plan.owned, strict=True):
        box = boxes[k]
        np.testing.assert_array_equal(np.sort(box.labels.ravel()), np.sort(owned))
        at = np.stack([g.ravel() for g in np.meshgrid(*box.positions, indexing="ij")], axis=1)
        np.testing.assert_allclose(at, plan.positions[box.labels.ravel()] - start, atol=1e-9)
        assert all((np.diff(p) >= 0).all() for p in box.positions)
        for at, edge in zip(box.positions, window, strict=True):
            assert at.min() >= -0.5
            assert at.max() <= edge - 0.5
        seen.append(box.labels.ravel())
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(label.numel()))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize(
    ("window", "strides", "n_axes"),
    [((8, 8, 8), (2, 4, 2), 3), ((32, 32, 16), (1, 1, 1), 3), ((8, 8, 1), (2, 2, 1), 2)],
)
def test_a_case_of_many_windows_equals_brute_force(name, window, strides, n_axes):
    to_image, image_shape = MAPS[name]
    label = torch.from_numpy(random_labels(SHAPE))
    where = geometry(image_shape, window, 0.5, n_axes)
    native = tuple(w // s for w, s in zip(window, strides, strict=True))
    points = carried(to_image, image_shape, n_axes)
    plan = plan_windows(points, image_shape, window, 0.5)
    features = {tuple(s): torch.randn(3, *native[:n_axes]).double() for s in plan.starts}
    accumulator = MomentAccumulator(["up"])
    starts = itertools.product(*where["grid"])
    for start, box in zip(starts, label_boxes(label, to_image, **where), strict=True):
        if box is not None:
            accumulator.add("up", features[start], box)
    X = np.empty((len(points), 3))
    for start, owned in zip(plan.starts, plan.owned, strict=True):
        at = (plan.positions[owned] - start + 0.5) * (np.array(native) / window) - 0.5
        feature = features[tuple(start)].reshape(3, *native).numpy()
        X[owned] = np.stack([map_coordinates(f, at.T, order=1, mode="nearest") for f in feature], 1)
    assert_describes(accumulator.moments("up"), X, label.numpy().ravel(), 1e-9)


def test_windows_without_a_labelled_voxel_own_nothing():
    label = torch.full((16, 8, 8), -1)
    label[12:, :, :] = 3
    where = geometry((16, 8, 8), (8, 8, 8), 0.0)
    boxes = list(label_boxes(label, np.eye(4), ignore_label=-1, **where))
    assert boxes[0] is None
    assert list(boxes[1].classes) == [3]
    assert boxes[1].classes[3].count == 4 * 8 * 8


@pytest.mark.parametrize("angle", [0.3, np.pi / 4])
def test_a_rotation_is_an_error_with_a_remedy(angle):
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    with pytest.raises(ExtractionError, match=r"moments='all' needs.*moments='sample'"):
        label_boxes(torch.zeros(8, 8, 8), turned, **geometry((8, 8, 8), (8, 8, 8), 0.5))
