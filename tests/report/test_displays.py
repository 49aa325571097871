"""Plots: what is drawn, not how it looks."""

import numpy as np
import pytest
import torchio as tio

from skte import (
    CCFV,
    FeatureBlock,
    FeatureSet,
    LogME,
    ModelBankSelector,
    SegmentationFeatureExtractor,
)
from skte.datasets import make_phantoms, read_case
from skte.demo import small_unet
from skte.report import (
    CaseDistanceDisplay,
    CorrelationDisplay,
    FeatureEmbeddingDisplay,
    LayerScoreDisplay,
    RankingDisplay,
    SampledVoxelsDisplay,
)

matplotlib_figure = pytest.importorskip("matplotlib.figure")


def points(display):
    """Positions of all points, best first."""
    drawn = np.concatenate([c.get_offsets() for c in display.ax_.collections[-1:]])
    return drawn[np.argsort(drawn[:, 1])]


def ticks(display):
    return [t.get_text() for t in display.ax_.get_yticklabels()]


def test_ranking_points_stand_at_the_scores_best_on_top():
    display = RankingDisplay(["b", "c", "a"], [3.0, 2.0, 1.0]).plot()
    np.testing.assert_allclose(points(display), [[3, 0], [2, 1], [1, 2]])
    assert ticks(display) == ["1  b", "2  c", "3  a"]
    assert display.ax_.yaxis_inverted()
    assert display.ax_.get_legend() is None


@pytest.mark.parametrize(("n", "last"), [(6, "group 6"), (7, "other groups"), (60, "other groups")])
def test_more_groups_than_shapes_share_the_last_one(n, last):
    names = [f"m{i}" for i in range(n)]
    ax = RankingDisplay(names, -np.arange(n), groups=1 + np.arange(n)).plot().ax_
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["group 1: may be the best", *(f"group {i}" for i in range(2, 6)), last]
    assert [len(c.get_offsets()) for c in ax.collections] == [1] * 5 + [n - 5]


def test_intervals_and_groups_follow_their_models():
    intervals = [[2.5, 3.25], [np.nan, np.nan], [0.5, 1.25]]
    display = RankingDisplay(
        ["b", "c", "a"], [3.0, 2.0, 1.0], intervals=intervals, groups=[1, 1, 2]
    )
    ax = display.plot().ax_
    lines = [segment.tolist() for segment in ax.collections[0].get_segments()]
    assert lines == [[[2.5, 0], [3.25, 0]], [[0.5, 2], [1.25, 2]]]
    first, second = ax.collections[1:]
    assert first.get_offsets().tolist() == [[3, 0], [2, 1]]
    assert second.get_offsets().tolist() == [[1, 2]]
    # Told apart by colour and by shape, for print in grey.
    assert not np.allclose(first.get_facecolor(), second.get_facecolor())
    shapes = [c.get_paths()[0].vertices.shape for c in (first, second)]
    assert shapes[0] != shapes[1]
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts == ["group 1: may be the best", "group 2"]


def test_models_without_a_finite_score_get_a_word_and_no_point():
    display = RankingDisplay(["a", "b", "c"], [1.0, -np.inf, np.nan]).plot()
    assert [t.get_text() for t in display.ax_.texts] == ["collapsed", "failed"]
    assert len(points(display)) == 1
    only = RankingDisplay(["a"], [-np.inf]).plot()
    assert [t.get_text() for t in only.ax_.texts] == ["collapsed"]
    only.figure_.canvas.draw()


def test_of_two_hundred_models_the_best_are_drawn_and_the_rest_counted():
    scores = np.arange(200.0)[::-1]
    display = RankingDisplay([f"m{i}" for i in range(200)], scores).plot()
    assert len(ticks(display)) == len(points(display)) == 60
    assert "the best 60 of 200 models" in display.ax_.get_xlabel()
    assert display.figure_.get_size_inches()[1] < 17


def test_given_axes_are_used():
    ax = matplotlib_figure.Figure().subplots()
    display = RankingDisplay(["a"], [1.0]).plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_wrong_lengths_are_named():
    with pytest.raises(ValueError, match="2 names, but 1 groups"):
        RankingDisplay(["a", "b"], [1, 2], groups=[1])


@pytest.fixture(scope="module")
def fitted():
    bank = {name: small_unet(widths=(4, 8)) for name in ("x", "y")}
    extractor = SegmentationFeatureExtractor(n_class_samples=50, n_case_samples=50)
    estimators = {"c": CCFV(), "l": LogME()}
    selector = ModelBankSelector(estimators, extractor=extractor, confidence_level=0.9)
    return selector.fit(bank, make_phantoms(3, size=(12, 12, 12)))


def test_from_selector(fitted):
    display = RankingDisplay.from_selector(fitted)
    assert display.names == tuple(fitted.ranking_)
    assert display.ax_.get_xlabel() == "CCFV (higher is better)"
    order = [fitted.names_.index(name) for name in fitted.ranking_]
    np.testing.assert_array_equal(display.intervals, fitted.confidence_.intervals[order])
    np.testing.assert_array_equal(display.groups, fitted.confidence_.groups[order])
    other = RankingDisplay.from_selector(fitted, estimator="l")
    results = fitted.results_.to_frame().sort_values("rank_l", kind="stable")
    assert list(other.names) == results["name"].tolist()
    bounds = results[["interval_low_l", "interval_high_l"]].to_numpy()
    np.testing.assert_array_equal(other.intervals, bounds)
    with pytest.raises(ValueError, match="There is no estimator 'score_l': known: c, l"):
        RankingDisplay.from_selector(fitted, estimator="score_l")
    layers = LayerScoreDisplay.from_selector(fitted)
    best = fitted.names_.index(fitted.best_name_)
    np.testing.assert_array_equal(layers.matrix[0], fitted.results_["layer_scores"][best])


def test_names_that_look_like_formulas_or_hold_control_characters_are_drawn():
    names = ["a$b$c", "x\n\x07y", "$\\frac$", "a" * 200]
    display = RankingDisplay(names, [4, 3, 2, 1]).plot()
    display.figure_.canvas.draw()  # an unescaped formula raises here
    assert all("\n" not in text and len(text) < 50 for text in ticks(display))


def test_layers_of_models_stand_finest_last():
    display = LayerScoreDisplay(["a", "b", "c"], [[-1.0, -np.inf], [-3.0], []]).plot()
    expected = [[-1, -np.inf], [np.nan, -3], [np.nan, np.nan]]
    np.testing.assert_array_equal(display.matrix, expected)
    assert [t.get_text() for t in display.ax_.texts] == ["-1", "-∞", "-3"]
    assert [t.get_text() for t in display.ax_.get_xticklabels()] == ["2", "1"]
    assert display.ax_.images[0].get_array().compressed().tolist() == [-1, -3]
    with pytest.raises(ValueError, match="No model has scores of layers"):
        LayerScoreDisplay(["a"], [[]]).plot()


def test_layers_of_two_hundred_models_hold_no_numbers():
    display = LayerScoreDisplay([f"m{i}" for i in range(200)], np.ones((200, 5))).plot()
    assert display.ax_.images[0].get_array().shape == (60, 5)
    assert not display.ax_.texts


@pytest.fixture
def shifted():
    """Features of four cases and two layers; class 1 of case d lies elsewhere."""
    rng = np.random.default_rng(0)
    y, groups = np.tile([0, 1, 2], 80), np.repeat(list("abcd"), 60)
    X = rng.normal(size=(240, 4)) + 3 * np.eye(4)[y]
    X[(groups == "d") & (y == 1)] -= 6
    blocks = [FeatureBlock(X * k, y, groups, name=f"up{k}") for k in (1, 2)]
    return FeatureSet.from_blocks(blocks, name="net")


def test_distances_of_all_layers_and_classes_are_compared_with_their_median(shifted):
    estimator = CCFV().fit(shifted)
    display = CaseDistanceDisplay.from_estimator(estimator)
    assert display.case_ids[0] == "d"
    upper = np.triu_indices(4, 1)
    expected = np.mean(
        [
            D[0, 3] / np.median(D[upper])
            for details in estimator.layer_details_
            for D in details["distances"].values()
        ]
    )
    position = display.case_ids.index("a")
    assert display.distances[0, position] == pytest.approx(expected)
    assert display.ratios[0] > 1.2
    drawn = display.ax_.images[0].get_array()
    assert np.ma.getmaskarray(drawn).diagonal().all()
    assert drawn[0, position] == display.distances[0, position]
    assert ticks(display)[0] == f"d  {display.ratios[0]:.2f}"


def test_distances_that_are_not_there_are_named(shifted):
    with pytest.raises(ValueError, match="not fitted"):
        CaseDistanceDisplay.from_estimator(CCFV())
    with pytest.raises(ValueError, match="keeps no distances"):
        CaseDistanceDisplay.from_estimator(CCFV(class_consistency=False).fit(shifted))
    with pytest.raises(ValueError, match="square"):
        CaseDistanceDisplay(["a"], [[0, 1]])


def test_of_two_hundred_cases_the_farthest_are_drawn():
    D = np.ones((200, 200))
    D[7], D[:, 7] = 3, 3
    display = CaseDistanceDisplay([f"c{i}" for i in range(200)], D).plot()
    assert display.case_ids[0] == "c7"
    assert len(ticks(display)) == 60
    assert display.ax_.get_xlabel() == "the farthest 60 of 200 cases"


def test_embedding_is_that_of_principal_components(shifted):
    display = FeatureEmbeddingDisplay.from_features(shifted, layer="up1", label=1)
    X = np.concatenate([c.layers["up1"].X[c.layers["up1"].y == 1] for c in shifted])
    X /= np.linalg.norm(X, axis=1, keepdims=True)  # features are compared by their direction
    U, S, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(display.embedding), np.abs((U * S)[:, :2]), atol=1e-9)
    share = S[0] ** 2 / np.sum(S**2)
    assert display.ax_.get_xlabel() == f"component 1 ({share:.0%})"
    assert display.ax_.get_title() == "net, layer up1, class 1"
    drawn = [c.get_offsets() for c in display.ax_.collections]
    assert [len(d) for d in drawn] == [20, 20, 20, 20]
    np.testing.assert_array_equal(drawn[3], display.embedding[display.cases == "d"])
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == list("abcd")


def test_embedding_on_the_sphere_ignores_the_scale(shifted):
    one, two = (FeatureEmbeddingDisplay.from_features(shifted, layer=f"up{k}") for k in (1, 2))
    np.testing.assert_allclose(np.abs(one.embedding), np.abs(two.embedding), atol=1e-9)


def test_many_cases_leave_the_farthest_in_colour():
    rng = np.random.default_rng(0)
    cases = np.repeat([f"c{i}" for i in range(40)], 5)
    embedding = rng.normal(size=(200, 2))
    embedding[cases == "c3"] += 50
    display = FeatureEmbeddingDisplay(embedding, cases).plot()
    texts = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert texts[:2] == ["34 other cases", "c3"]
    assert sum(len(c.get_offsets()) for c in display.ax_.collections) == 200


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layer": "up9"}, "There is no layer 'up9'"),
        ({"label": 7}, r"Class 7 has 0 voxels.*Classes are \[0, 1, 2\]"),
    ],
)
def test_embedding_refuses_what_is_not_there(shifted, wrong, message):
    with pytest.raises(ValueError, match=message):
        FeatureEmbeddingDisplay.from_features(shifted, **wrong)


def test_one_channel_and_constant_features_have_a_plane():
    y, groups = np.ones(8, dtype=int), np.repeat([0, 1], 4)
    for X in (np.arange(8.0)[:, None], np.ones((8, 3))):
        features = FeatureSet.from_blocks([FeatureBlock(X, y, groups)])
        display = FeatureEmbeddingDisplay.from_features(features)
        assert np.isfinite(display.embedding).all()


def test_slices_show_the_voxels_of_the_sample():
    extractor = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=40, random_state=3)
    subject = make_phantoms(1, size=(24, 20, 9), spacing=(1, 1, 4))[0]
    display = SampledVoxelsDisplay.from_case(extractor, subject)
    assert display.axis == 2
    label = read_case(subject).label.numpy()
    assert display.thickness == 0
    for ax, z in zip(display.ax_, display.slices, strict=True):
        assert (label[:, :, z] != 0).any()
        np.testing.assert_array_equal(
            ax.images[0].get_array(), read_case(subject).image[0, :, :, z].T
        )
        classes, whole = display.points(z)
        for k, xy in classes.items():
            assert (label[xy[:, 0], xy[:, 1], z] == k).all()
        drawn = {c.get_label(): c.get_offsets() for c in ax.collections if len(c.get_offsets())}
        if len(whole):
            np.testing.assert_array_equal(drawn["whole case"], whole)
    shown = sum(len(xy) for z in range(9) for xy in display.points(z)[0].values())
    assert shown == len(display.sample.labels)


def test_a_flat_case_has_one_slice():
    subject = make_phantoms(1, size=(20, 20, 1), spacing=(1, 1, 1))[0]
    display = SampledVoxelsDisplay.from_case(SegmentationFeatureExtractor(), subject)
    assert (display.axis, display.slices) == (2, [0])
    with pytest.raises(ValueError, match="1 slices need as many axes"):
        display.plot([])


@pytest.mark.parametrize(
    ("directions", "inverted"),
    [
        ((1, 1, 1), (True, False)),  # RAS
        ((-1, -1, 1), (False, True)),  # LPS, and pictures such as PNG: their first row is above
        ((1, -1, -1), (True, True)),
    ],
)
def test_slices_lie_as_radiologists_look_at_them(directions, inverted):
    plain = make_phantoms(1, size=(20, 16, 8), spacing=(1, 1, 3))[0]
    affine = plain["image"].affine @ np.diag([*directions, 1.0])
    images = {
        key: type(plain[key])(tensor=plain[key].data, affine=affine) for key in ("image", "label")
    }
    display = SampledVoxelsDisplay.from_case(
        SegmentationFeatureExtractor(), tio.Subject(**images, case_id="turned")
    )
    for ax in display.ax_:
        assert (ax.xaxis_inverted(), ax.yaxis_inverted()) == inverted


def test_scatter_holds_the_points_and_the_agreement():
    display = CorrelationDisplay.from_scores(
        {"b": 0.8, "a": 0.7, "c": 0.9}, [-3.0, -2.0, -1.0], ["a", "b", "c"]
    )
    drawn = display.ax_.collections[0].get_offsets()
    np.testing.assert_allclose(drawn, [[-3, 0.7], [-2, 0.8], [-1, 0.9]])
    assert [t.get_text() for t in display.ax_.texts] == ["a", "b", "c"]
    assert display.result.statistic == pytest.approx(1.0)
    assert "3 models" in display.ax_.get_title()


@pytest.mark.slow
def test_of_two_hundred_points_the_best_are_named():
    scores, performance = np.arange(200.0), np.arange(200.0)[::-1]
    display = CorrelationDisplay.from_scores(performance, scores, [f"m{i}" for i in range(200)])
    named = {t.get_text() for t in display.ax_.texts}
    assert named == {"m0", "m1", "m2", "m197", "m198", "m199"}


def test_collapsed_models_are_marked_at_the_left():
    display = CorrelationDisplay.from_scores([0.7, 0.8, 0.9], [-np.inf, -2.0, -1.0])
    collapsed = display.ax_.collections[1].get_offsets()
    assert collapsed[0, 0] < -2
    assert display.ax_.get_legend().get_texts()[0].get_text() == "collapsed"


def test_drawing_writes_a_picture(tmp_path):
    display = RankingDisplay(["a", "b"], [1.0, 2.0]).plot()
    display.figure_.savefig(tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").stat().st_size > 1000


def test_a_case_whose_name_begins_with_an_underscore_is_in_the_legend():
    X = np.random.default_rng(0).normal(size=(12, 3))
    block = FeatureBlock(X, np.repeat([0, 1], 6), np.tile(["_a", "$b$"], 6))
    display = FeatureEmbeddingDisplay.from_features(FeatureSet.from_blocks([block]))
    shown = [text.get_text().strip() for text in display.ax_.get_legend().get_texts()]
    assert sorted(shown) == [r"\$b\$", "_a"]
