"""Plots of few and of many, with long names: nothing is cut off, and names can be told apart."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skte import SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.report import (
    CaseDistanceDisplay,
    CorrelationDisplay,
    LayerScoreDisplay,
    RankingDisplay,
    SampledVoxelsDisplay,
    StabilityDisplay,
)
from skte.report._drawing import plot_names  # properties need thousands of names
from tests.selection.test_confidence import confidence, means_without

agg = pytest.importorskip("matplotlib.backends.backend_agg")

LONG = "nnUNetTrainer__nnUNetPlans__3d_fullres__Dataset{:03d}_SomethingLong/fold_0"
SHORT = "m{}"


def ranking(names):
    scores = -np.arange(len(names), dtype=float)
    intervals = np.stack([scores - 1, scores + 1], axis=1)
    groups = np.arange(len(names)) // 3 + 1
    return RankingDisplay(names, scores, intervals=intervals, groups=groups).plot()


def layers(n_layers):
    def draw(names):
        scores = np.arange(len(names) * n_layers).reshape(-1, n_layers) - 0.123
        return LayerScoreDisplay(names, list(scores)).plot()

    return draw


def stability(names):
    import dataclasses

    values = np.random.default_rng(0).normal(size=(len(names), 6))
    found = confidence(*means_without(values), n_resamples=100)
    return StabilityDisplay(dataclasses.replace(found, names=names)).plot()


def distances(names):
    n = len(names)
    matrix = np.abs(np.arange(n)[:, None] - np.arange(n)).astype(float)
    return CaseDistanceDisplay(names, matrix).plot()


def correlation(names):
    x = np.random.default_rng(0).normal(size=(2, len(names)))
    return CorrelationDisplay.from_scores(*x, names=names)


@pytest.mark.parametrize("name", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("n", [2, 20, 200])
@pytest.mark.parametrize(
    "draw",
    [ranking, layers(1), layers(5), stability, distances, correlation],
    ids=["ranking", "1 layer", "5 layers", "stability", "distances", "correlation"],
)
@pytest.mark.slow
@pytest.mark.no_cover
def test_nothing_is_cut_off(draw, n, name):
    figure = draw([name.format(i) for i in range(n)]).figure_
    agg.FigureCanvasAgg(figure).draw()  # would warn where there is no room for the axes
    needed, there = figure.get_tightbbox(), figure.bbox_inches
    assert needed.x0 >= -0.02
    assert needed.y0 >= -0.02
    assert needed.x1 <= there.x1 + 0.02
    assert needed.y1 <= there.y1 + 0.02
    (ax, *_) = figure.axes
    assert ax.get_position().width * there.width > 0.5
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert len(set(labels)) == len(labels)


@pytest.mark.slow
@given(
    start=st.text("abc_", max_size=60),
    end=st.text("abc_", max_size=60),
    middles=st.lists(st.text("0123456789", min_size=1, max_size=6), min_size=2, unique=True),
    length=st.integers(12, 40),
)
@example(start="_____", end="______", middles=["0", "00"], length=12)
def test_names_that_differ_in_the_middle_stay_different(start, end, middles, length):
    names = [f"{start}{middle}{end}" for middle in middles]
    shown = plot_names(names, length)
    assert max(map(len, shown)) <= length
    assert len(set(shown)) == len(names)
    for name, text in zip(names, shown, strict=True):
        assert text.replace("…", "") in name
        if len(name) <= length:
            assert text == name


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16, 16, 1), (40, 10, 1), (10, 40, 1), (16, 16, 16)])
@pytest.mark.parametrize("n_classes", [2, 6])
def test_slices_and_their_legend_have_room(size, n_classes):
    case = make_phantoms(1, size=size, n_classes=n_classes)[0]
    case["label_names"] = {k: f"a structure called {k}" for k in range(1, n_classes)}
    display = SampledVoxelsDisplay.from_case(SegmentationFeatureExtractor(), case)
    page = display.figure_
    renderer = agg.FigureCanvasAgg(page).get_renderer()
    page.draw(renderer)
    (legend,) = page.legends
    room = legend.get_window_extent(renderer)
    assert room.x0 >= 0
    assert room.x1 <= page.bbox.width
    assert room.y0 >= 0
    for ax in display.ax_:
        assert room.y1 <= ax.get_window_extent(renderer).y0
        height = ax.get_window_extent(renderer).height / page.dpi
        assert height > 0.4
