"""The selector: one extraction a model, the same ranking whatever the route."""

import gc
import logging
import pickle
import threading
import warnings
from contextlib import nullcontext
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import torch
import torchio as tio
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.exceptions import FitFailedWarning, NotFittedError
from torch import nn

from skte import (
    CCFV,
    GBC,
    LEEP,
    BankEntry,
    CrossCaseProbe,
    LogME,
    ModelBank,
    ModelBankSelector,
    SegmentationFeatureExtractor,
)
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.estimators import recommended_estimators
from skte.exceptions import (
    BankError,
    CollapsedFeaturesWarning,
    DatasetError,
    ExtractionError,
    SkteError,
    SkteWarning,
)
from skte.report import results_rows
from skte.selection import Engine, HalvingModelBankSelector
from skte.selection._workers import run_job


class Net(nn.Module):
    def __init__(self, width=4, seed=0, n_classes=2):
        super().__init__()
        generator = torch.random.get_rng_state()
        torch.manual_seed(seed)
        self.down = nn.Conv3d(1, width, 3, stride=2, padding=1)
        self.up = nn.Conv3d(width, width, 3, padding=1)
        self.head = nn.Conv3d(width, n_classes, 1)
        torch.random.set_rng_state(generator)

    def forward(self, x):
        y = torch.relu(self.up(torch.relu(self.down(x))))
        return self.head(nn.functional.interpolate(y, scale_factor=2))


class Angry(Net):
    def forward(self, x):
        raise RuntimeError("no thanks")


def build_net(width=4, seed=0):
    return Net(width, seed)


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(4, size=(16, 16, 16))


@pytest.fixture
def bank():
    return {f"net{i}": Net(seed=i) for i in range(4)}


@pytest.fixture
def extractor():
    return SegmentationFeatureExtractor(
        layers=("up",), window_size=16, n_class_samples=60, n_case_samples=60
    )


def select(extractor, estimator=None, *, reference=False, **kwargs):
    return ModelBankSelector(
        CCFV() if estimator is None else estimator,
        extractor=extractor,
        reference=reference,
        **kwargs,
    )


def test_fitted_attributes_agree(cases, bank, extractor):
    selector = select(extractor).fit(bank, cases)
    assert selector.names_ == list(bank)
    order = np.argsort(-selector.scores_, kind="stable")
    assert list(selector.ranking_) == [selector.names_[i] for i in order]
    np.testing.assert_array_equal(selector.ranks_[order], np.arange(1, 5))
    assert selector.best_name_ == selector.ranking_[0]
    frame = pd.DataFrame(selector.results_)
    assert len(frame) == 4
    assert {
        "name",
        "score",
        "rank",
        "layers",
        "layer_scores",
        "n_windows",
        "seconds_load",
        "seconds_forward",
        "seconds_score",
        "error",
    } <= set(frame.columns)
    assert (frame["error"] == "").all()
    assert (frame["n_windows"] == 4).all()
    for name in bank:
        assert name in repr(selector.ranking_)


def test_score_is_that_of_the_pipeline_by_hand(cases, bank, extractor):
    selector = select(extractor).fit(bank, cases)
    for name, score in zip(selector.names_, selector.scores_, strict=True):
        entry = BankEntry.from_module(name, bank[name])
        features = clone(extractor).set_params(entry=entry).fit_transform(cases)
        assert score == pytest.approx(CCFV().fit(features).score_, rel=1e-9)


@pytest.mark.slow
def test_seed_decides_the_voxels(cases, bank, extractor):
    a, b = (select(extractor, random_state=s).fit(bank, cases).scores_ for s in (1, 1))
    np.testing.assert_array_equal(a, b)
    assert (select(extractor, random_state=2).fit(bank, cases).scores_ != a).any()
    from_state = select(extractor, random_state=np.random.RandomState(0)).fit(bank, cases)
    again = select(extractor, random_state=np.random.RandomState(0)).fit(bank, cases)
    np.testing.assert_array_equal(from_state.scores_, again.scores_)


def test_several_estimators_share_one_extraction(cases, bank, extractor, monkeypatch):
    calls = []
    original = SegmentationFeatureExtractor.extract
    monkeypatch.setattr(
        SegmentationFeatureExtractor,
        "extract",
        lambda self, X, store: calls.append(1) or original(self, X, store),
    )
    chosen = {"logme": LogME(), "ccfv": CCFV(), "leep": LEEP()}
    selector = select(extractor, chosen, reference=True)
    selector.fit(bank, cases)
    assert len(calls) == len(bank) + 1  # and the untrained twin
    np.testing.assert_array_equal(selector.scores_, selector.results_["score_logme"])
    alone = select(extractor, CCFV()).fit(bank, cases)
    np.testing.assert_allclose(selector.results_["score_ccfv"], alone.scores_)
    np.testing.assert_array_equal(selector.results_["rank_ccfv"], alone.ranks_)


def test_predict_and_score(cases, bank, extractor):
    selector = select(extractor).fit(bank, cases)
    np.testing.assert_allclose(selector.predict(bank), selector.scores_)
    other = {"new": Net(seed=9), "net1": bank["net1"]}
    scores = selector.predict(other)
    assert scores[1] == pytest.approx(selector.scores_[1])
    assert selector.score(bank, selector.scores_) == pytest.approx(1.0)
    assert selector.score(bank, -selector.scores_) == pytest.approx(-1.0)
    by_name = dict(zip(selector.names_[::-1], selector.scores_[::-1], strict=True))
    assert selector.score(bank, by_name) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="net3"):
        selector.score(bank, {"net0": 1, "net1": 2, "net2": 3})
    # What is set afterwards is for the next fit.
    selector.set_params(
        estimator=LogME(), extractor=clone(extractor).set_params(n_class_samples=50),
        error_score=-5.0,
    )  # fmt: skip
    np.testing.assert_array_equal(selector.predict(other), scores)
    with pytest.raises(ValueError, match="channels"):
        selector.predict({"broken": nn.Sequential(nn.Conv3d(2, 4, 1), nn.Conv3d(4, 2, 1))})


def test_fitted_models_are_not_run_again_by_predict(cases, bank, extractor, monkeypatch):
    bank = ModelBank.from_modules(bank)
    selector = select(extractor).fit(bank, cases)
    monkeypatch.setattr(SegmentationFeatureExtractor, "fit_transform", None)
    np.testing.assert_array_equal(selector.predict(bank), selector.scores_)


def test_not_fitted(bank):
    with pytest.raises(NotFittedError):
        ModelBankSelector(CCFV()).predict(bank)


@pytest.mark.parametrize(
    ("device", "n_jobs", "expected"),
    [
        (None, 2, ["cuda:0", "cuda:1", "cuda:0"]),
        (None, None, [None] * 3),
        (None, 1, [None] * 3),
        ("cpu", 2, ["cpu"] * 3),
    ],
)
def test_several_gpus_take_turns_where_models_run_in_parallel(
    monkeypatch, device, n_jobs, expected
):
    found = []

    def catch(jobs, *_):
        found.extend(job.extractor.device for job in jobs)
        return nullcontext([])

    monkeypatch.setattr("skte.selection._engine._started", catch)
    entries = [BankEntry(f"n{i}", build_net) for i in range(3)]
    engine = Engine.from_settings(CCFV(), device=device, n_jobs=n_jobs)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    list(engine.run(entries, []))
    assert found == expected


class TestFailures:
    def test_one_broken_entry_does_not_cost_the_rest(self, cases, bank, extractor):
        bank = {"net0": bank["net0"], "broken": Angry(), "net1": bank["net1"]}
        with pytest.warns(FitFailedWarning, match=r"'broken' failed.*no thanks"):
            selector = select(extractor, error_score=np.nan).fit(bank, cases)
        assert np.isnan(selector.scores_[1])
        assert selector.ranking_[-1] == "broken"
        assert "no thanks" in selector.results_["error"][1]
        assert np.isfinite(selector.scores_[[0, 2]]).all()

    @pytest.mark.parametrize("error_score", [99.0, np.nan])
    def test_a_failed_model_is_last_and_has_no_rank(self, cases, bank, extractor, error_score):
        bank = {"net0": bank["net0"], "broken": Angry(), "net1": bank["net1"]}
        estimators = {"logme": LogME(), "ccfv": CCFV()}
        settings = {"error_score": error_score, "confidence_level": 0.9}
        with pytest.warns(FitFailedWarning):
            selector = select(extractor, estimators, **settings).fit(bank, cases)
        np.testing.assert_equal(selector.scores_[1], error_score)
        assert selector.ranking_[-1] == "broken"
        assert "broken" not in selector.answer_.short_list
        ranks = [k for k in selector.results_ if k.partition("_")[0] == "rank"]
        assert len(ranks) == 9
        *_, row = results_rows(selector.results_)
        for name in ranks:
            values = selector.results_[name]
            assert np.isnan(values).tolist() == [False, True, False]
            assert row[name] is None
        frame = selector.results_.to_frame()
        assert frame[ranks].isna().sum(axis=1).tolist() == [0, 9, 0]
        assert repr(selector.results_).splitlines()[2].split()[:2] == ["broken", "-"]
        assert str(selector.confidence_).splitlines()[3].split()[:3] == ["-", "broken", "nan"]

    def test_raise_names_the_entry(self, cases, bank, extractor):
        with pytest.raises(SkteError, match=r"'broken'.*no thanks"):
            select(extractor).fit({**bank, "broken": Angry()}, cases)

    def test_nothing_is_left_running_after_a_failure(self, cases, extractor):
        """What is closed by the garbage collector alone complains there."""
        entries = [BankEntry("broken", Angry), *(BankEntry(f"n{i}", build_net) for i in range(4))]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(SkteError, match="no thanks"):
                select(extractor).fit(entries, cases)
            gc.collect()
        assert not any(thread.name.startswith("skte-load") for thread in threading.enumerate())

    def test_missing_weights_are_a_broken_entry(self, cases, bank, extractor, tmp_path):
        entries = [
            BankEntry("ok", build_net),
            BankEntry("gone", build_net, weights=tmp_path / "gone.pt"),
        ]
        with pytest.warns(FitFailedWarning, match=r"'gone'.*gone\.pt"):
            selector = select(extractor, error_score=np.nan).fit(entries, cases)
        assert list(selector.ranking_) == ["ok", "gone"]

    def test_all_broken_is_an_error_with_all_reasons(self, cases, extractor):
        with (
            pytest.warns(FitFailedWarning, match="failed") as caught,
            pytest.raises(SkteError, match=r"(?s)Every model.*- a: .*- b: "),
        ):
            select(extractor, error_score=np.nan).fit({"a": Angry(), "b": Angry()}, cases)
        assert ["'a'" in str(w.message) for w in caught] == [True, False]

    def test_what_costs_every_estimator_is_said_once(self, cases, bank, extractor):
        with pytest.warns(FitFailedWarning) as caught:
            select(extractor, {"ccfv": CCFV(), "logme": LogME()}, error_score=np.nan).fit(
                {"net0": bank["net0"], "angry": Angry()}, cases
            )
        (one,) = [str(w.message) for w in caught if w.category is FitFailedWarning]
        assert one.startswith("Model 'angry' failed and scores nan: ")

    def test_leep_without_head_costs_leep_alone(self, cases, extractor):
        entries = [BankEntry("with", build_net), BankEntry("without", build_net, source_head=False)]
        with pytest.warns(FitFailedWarning, match=r"'without' \(leep\).*source head.*NLEEP"):
            selector = select(extractor, {"ccfv": CCFV(), "leep": LEEP()}, error_score=np.nan).fit(
                entries, cases
            )
        assert np.isfinite(selector.results_["score_ccfv"]).all()
        assert np.isnan(selector.results_["score_leep"][1])
        with pytest.raises(SkteError, match=r"'without'.*source head"):
            select(extractor, LEEP()).fit(entries, cases)

    @pytest.mark.parametrize("estimator", [CCFV(), LogME(), GBC(), LEEP()], ids=str)
    @pytest.mark.parametrize("error_score", ["raise", np.nan])
    def test_one_case_is_a_clear_error(self, cases, bank, extractor, estimator, error_score):
        selector = select(extractor, estimator, error_score=error_score)
        with pytest.raises(DatasetError, match="needs at least two labelled cases"):
            selector.fit(bank, cases[:1])

    # An error that is raised ends joblib's processes; one that is recorded comes as any record.
    @pytest.mark.parametrize(("error_score", "n_jobs"), [("raise", 1), ("raise", 2), (np.nan, 1)])
    @pytest.mark.slow
    @pytest.mark.usefixtures("forked_workers")
    def test_a_broken_case_is_told_once_and_blames_no_model(self, cases, error_score, n_jobs):
        image = tio.ScalarImage(tensor=torch.full((1, 16, 16, 16), torch.nan))
        broken = tio.Subject(image=image, label=cases[1]["label"], case_id="broken")
        selector = ModelBankSelector(CCFV(), error_score=error_score, n_jobs=n_jobs)
        entries = [BankEntry(name, build_net) for name in "abcd"]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing of the other models is left running either
            with pytest.raises(DatasetError, match=r"^Case 'broken' cannot be used") as caught:
                selector.fit(entries, [cases[0], broken])
            assert "NaN" in str(caught.value)
            assert "exclude" not in str(caught.value)  # one case would be left
            del caught
            gc.collect()

    @pytest.mark.parametrize(("n_left", "helps"), [(3, True), (1, False)])
    def test_leaving_cases_out_is_advised_where_it_helps(self, cases, bank, n_left, helps):
        label = tio.LabelMap(tensor=torch.ones(1, 8, 16, 16, dtype=torch.uint8))
        bad = tio.Subject(image=cases[0]["image"], label=label, case_id="a b")
        with pytest.raises(DatasetError, match=r"Case 'a b': .*shape") as caught:
            ModelBankSelector(CCFV()).fit(bank, [bad, *cases[:n_left]])
        assert ("exclude=['a b']" in str(caught.value)) == helps
        assert ("--exclude 'a b', or --skip-unusable" in str(caught.value)) == helps

    def test_empty_and_unknown_input(self, cases, bank, extractor, tmp_path):
        with pytest.raises(BankError):
            select(extractor).fit({}, cases)
        with pytest.raises(DatasetError):
            select(extractor).fit(bank, [])
        with pytest.raises(DatasetError, match="nowhere"):
            select(extractor).fit(bank, tmp_path / "nowhere")
        with pytest.raises(BankError, match="nowhere"):
            select(extractor).fit(tmp_path / "nowhere.json", cases)

    def test_duplicate_case_ids(self, cases, bank, extractor):
        with pytest.raises(DatasetError, match=r"phantom|case"):
            select(extractor).fit(bank, [cases[0], cases[0]])

    def test_wrong_channels_name_entry_and_case(self, bank, extractor):
        two_channels = make_phantoms(2, size=(16, 16, 16), n_channels=2)
        with pytest.raises(ExtractionError, match=r"'net0' takes 1 channels"):
            select(extractor).fit(bank, two_channels)

    @pytest.mark.parametrize("estimator", [{}, {"a": 1}, {1: CCFV()}, {"": CCFV()}])
    def test_mapping_of_estimators_is_checked(self, cases, bank, estimator):
        with pytest.raises(TypeError, match="mapping"):
            ModelBankSelector(estimator).fit(bank, cases)

    @pytest.mark.parametrize(
        "params",
        [{"estimator": "ccfv"}, {"extractor": 3}, {"error_score": "ignore"}, {"n_jobs": "two"}],
    )
    def test_parameters_are_named(self, cases, bank, params):
        selector = ModelBankSelector(CCFV()).set_params(**params)
        with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
            selector.fit(bank, cases)


def test_collapsed_models_rank_last_but_before_failures(cases, bank, extractor):
    dead = build_dead()
    with (
        pytest.warns(FitFailedWarning, match="'broken'"),
        pytest.warns(CollapsedFeaturesWarning, match="Model 'dead'"),
    ):
        selector = select(extractor, error_score=np.nan).fit(
            {"broken": Angry(), "dead": dead, "net0": bank["net0"]}, cases
        )
    assert list(selector.ranking_) == ["net0", "dead", "broken"]
    assert selector.scores_[1] == -np.inf


@pytest.mark.parametrize("estimator", [LogME(), CrossCaseProbe()], ids=str)
def test_a_collapsed_model_is_on_no_short_list_whatever_its_score(
    cases, bank, extractor, estimator
):
    networks = {"net0": bank["net0"], "dead": build_dead(), "net1": bank["net1"]}
    with pytest.warns(SkteWarning, match="Model 'dead'"):
        selector = select(extractor, estimator).fit(networks, cases)
    assert "dead" not in selector.answer_.short_list
    assert np.isfinite(selector.scores_).all()


def build_dead():
    network = Net()
    for parameter in network.up.parameters():
        parameter.data.zero_()
    return network


def test_no_more_processes_than_models(cases, bank, extractor, monkeypatch):
    asked = []

    def run_here(jobs, n_workers, timeout):
        asked.append(n_workers)
        return (run_job(job) for job in jobs)

    monkeypatch.setattr("skte.selection._engine.run_apart", run_here)
    for n_jobs in (3, 32_768, None):  # one at a time needs no process
        select(extractor, n_jobs=n_jobs, reference=False).fit(bank, cases)
    assert asked == [3, len(bank)]


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("forked_workers")
def test_warnings_name_the_model_also_from_workers(cases, extractor, n_jobs):
    entries = [BankEntry("fine", build_net), BankEntry("dead", build_dead)]
    with pytest.warns(CollapsedFeaturesWarning, match=r"Model 'dead': layer 'up'") as caught:
        selector = select(extractor, n_jobs=n_jobs).fit(entries, cases)
    assert not any("'fine'" in str(w.message) for w in caught)
    fine, dead = selector.results_["warnings"]
    assert fine == ()
    assert any("layer 'up'" in text for text in dead)


def test_layers_that_an_entry_names_are_read_whatever_the_estimators(cases):
    small = {"arguments": {"widths": [2, 4]}}
    named = BankEntry("named", small_unet, layers=("decoder.0",), **small)
    bank = [named, BankEntry("all", small_unet, **small)]
    results = ModelBankSelector(CrossCaseProbe(), reference=False).fit(bank, cases).results_
    layers = dict(zip(results["name"], results["layers"], strict=True))
    assert tuple(layers["named"]) == ("decoder.0",)
    assert len(layers["all"]) > 1


def test_clone_params_and_pickle(cases, bank, extractor):
    selector = select(extractor, GBC(n_components=2))
    again = clone(selector).set_params(estimator__n_components=3, extractor__overlap=0.5)
    assert again.estimator.n_components == 3
    assert again.get_params()["extractor__overlap"] == 0.5
    assert selector.estimator.n_components == 2
    fitted = selector.fit(bank, cases)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert list(loaded.ranking_) == list(fitted.ranking_)
    np.testing.assert_array_equal(loaded.scores_, fitted.scores_)


@pytest.mark.parametrize("kind", [ModelBankSelector, HalvingModelBankSelector])
def test_settings_are_given_by_name(kind):
    named = [p for p in signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert {p.name for p in named} == kind().get_params(deep=False).keys() - {"estimator"}


def test_verbose_prints_and_logs_one_line_a_model(cases, bank, extractor, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="skte"):
        select(extractor, verbose=1, reference=True).fit(bank, cases)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
            "[1/4]", "[2/4]", "[3/4]", "[4/4]", "[reference]",
        ]  # fmt: skip
    assert len(caplog.records) == 5


def test_sklearn_progress_callback_sees_every_model(cases, bank, extractor):
    class Recorder:
        def __init__(self):
            self.ended = []
            self.torn_down = False

        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context):
            self.ended.append(context.task_name)

        def teardown(self, estimator, context):
            self.torn_down = True

    recorder = Recorder()
    select(extractor).set_callbacks(recorder).fit(bank, cases)
    assert recorder.ended == [*(f"model {name}" for name in bank), "fit"]
    assert recorder.torn_down
    select(extractor).set_callbacks(ProgressBar()).fit(bank, cases)


def test_bank_of_entries_from_a_manifest_like_dict(cases, extractor):
    bank = ModelBank([BankEntry("a", build_net), BankEntry("b", build_net, arguments={"seed": 1})])
    assert set(select(extractor).fit(bank, cases).ranking_) == {"a", "b"}


@pytest.mark.slow
def test_the_agreement_of_estimators_is_reported_from_four_models_on(cases, extractor):
    bank = [BankEntry(f"net{i}", build_net, arguments={"seed": i}) for i in range(4)]

    def agreement(estimators, n_models=4):
        return select(extractor, estimators).fit(bank[:n_models], cases)

    same = agreement({"a": LogME(), "b": LogME()})
    assert same.agreement_ == pytest.approx(1.0)
    assert "The estimators agree at 1.00 on average" in repr(same.ranking_)
    assert agreement({"a": LogME(), "b": CCFV()}).agreement_ < 1.0
    assert np.isnan(agreement({"a": LogME()}).agreement_)
    few = agreement({"a": LogME(), "b": LogME()}, n_models=3)
    assert np.isnan(few.agreement_)
    assert "agree at" not in repr(few.ranking_)


@pytest.mark.slow
def test_without_estimators_the_recommended_ones_read_all_stages(cases):
    small = {"widths": (4, 8)}
    bank = [BankEntry(name, "skte.demo:small_unet", arguments=small) for name in ("a", "b")]
    default = ModelBankSelector(reference=False).fit(bank, cases)
    assert list(default.estimators_) == list(recommended_estimators())
    assert default.extractor_.layers == "all"
    assert not default.extractor_.taper
    chosen = SegmentationFeatureExtractor(layers="all", taper=False)
    named = ModelBankSelector(recommended_estimators(), extractor=chosen, reference=False)
    assert default.scores_.tolist() == named.fit(bank, cases).scores_.tolist()
    alone = ModelBankSelector(CCFV(), reference=False).fit(bank, cases)
    assert alone.extractor_.layers == "auto"


def test_results_print_as_a_table_and_convert(bank, cases, extractor):
    estimators = {"ccfv": CCFV(), "logme": LogME()}
    results = select(extractor, estimators).fit(bank, cases).results_
    header, *rows, rest = repr(results).splitlines()
    assert header.split() == [
        "name", "rank", "score", "score_ccfv", "rank_ccfv", "score_logme", "rank_logme", "error",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == list(bank)
    assert "seconds_forward" in rest
    assert (
        "rank_low"
        not in repr(select(extractor, confidence_level=0.9).fit(bank, cases).results_).splitlines()[
            0
        ]
    )
    frame = results.to_frame()
    assert list(frame) == list(results)
    np.testing.assert_array_equal(frame["score_logme"], results["score_logme"])
    assert "seconds_forward" in results._repr_html_()


def test_a_model_is_diagnosed_by_any_of_the_estimators(bank, cases, extractor):
    selector = select(extractor, {"logme": LogME(), "ccfv": CCFV()}).fit(bank, cases)
    assert selector.diagnose().score == pytest.approx(selector.scores_.max())
    found = selector.diagnose("net1", "ccfv")
    assert found.score == pytest.approx(selector.results_["score_ccfv"][1])
    assert {case.case for case in found.cases} == {case["case_id"] for case in cases}
    with pytest.raises(ValueError, match="did you mean 'ccfv'"):
        selector.diagnose(estimator="ccvf")
    alone = select(extractor, LogME()).fit(bank, cases)
    assert alone.diagnose("net1", "logme").score == pytest.approx(alone.scores_[1])
    with pytest.raises(ValueError, match="no estimator 'ccfv': known: logme"):
        alone.diagnose("net1", "ccfv")


def test_images_that_were_not_normalised_are_named_with_the_line_to_add(bank, cases, extractor):
    def doubts(bank):
        fitted = select(extractor, LogME(), reference=False).fit(bank, cases)
        return [line for line in fitted.answer_.doubts if "preprocessing" in line]

    (line,) = doubts(bank)
    assert line.startswith("No preprocessing for net0, net1, net2 and 1 more: ")
    assert f"{cases[0].image.data.mean():.4g}" in line
    assert 'ModelBank.from_modules(networks, preprocessing=["ZNormalization"])' in line
    assert doubts(ModelBank.from_modules(bank, preprocessing=["ZNormalization"])) == []
