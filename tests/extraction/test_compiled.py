"""Compiled networks: the same features, the network untouched, and never a ranking lost."""

import copy
import gc
import pickle
import shutil
import warnings
import weakref

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skte import CCFV, BankEntry, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.exceptions import ExtractionError, SkteWarning
from skte.extraction import _compiled

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler here"
)


def make_entry(network=None, name="net", **kwargs):
    torch.manual_seed(0)
    network = small_unet(widths=(4, 8)) if network is None else network
    return BankEntry.from_module(name, network, window_size=16, **kwargs)


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(2, size=(24, 20, 16))


@pytest.fixture
def uncompiled(monkeypatch):
    """Take the compiler's place by what runs the function as it is, slowly."""

    def stand_in(function, **options):
        assert options["options"] == {"freezing": True}
        return lambda batch: compiled_by_hand(function, batch)

    def compiled_by_hand(function, batch):
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            return function(batch)

    monkeypatch.setattr(torch, "compile", stand_in)


def assert_close(features, expected, rel=1e-5):
    for one, other in zip(features, expected, strict=True):
        pairs = [(one.layers[name], other.layers[name]) for name in other.layers]
        if other.posterior is not None:
            pairs.append((one.posterior, other.posterior))
        for ours, theirs in pairs:
            scale = np.abs(theirs.X).max()
            np.testing.assert_allclose(ours.X, theirs.X, rtol=0, atol=rel * scale)
            np.testing.assert_allclose(ours.X_case, theirs.X_case, rtol=0, atol=rel * scale)


@needs_compiler
def test_features_are_the_same_and_the_network_is_untouched(cases):
    torch.manual_seed(0)
    network = small_unet(widths=(4, 8)).train()
    before = copy.deepcopy(network.state_dict())
    attributes = {name: set(vars(module)) for name, module in network.named_modules()}
    extractor = SegmentationFeatureExtractor(make_entry(network), batch_size=3, moments="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = clone(extractor).set_params(compile=True).fit_transform(cases)
    assert_close(features, extractor.fit_transform(cases))
    assert features[0].info["seconds_compile"] > 0
    assert features[1].info["seconds_compile"] == 0
    assert network.training
    for name, module in network.named_modules():
        assert set(vars(module)) == attributes[name]
        assert not module._forward_hooks
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    assert len(pickle.dumps(network))  # holds no code
    network(torch.zeros(1, 1, 16, 16, 16)).sum().backward()  # and can still be trained


@needs_compiler
def test_more_models_than_the_compiler_keeps_versions_of(cases):
    """Each has code of its own, which goes when the model does."""
    gone = []
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    with warnings.catch_warnings(), config.patch({limit: 1}):
        warnings.simplefilter("error")
        for seed in range(3):
            torch.manual_seed(seed)
            network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(2, 2, 1))
            entry = BankEntry(f"n{seed}", lambda n=network: n, layers=("0",), window_size=16)
            extractor = SegmentationFeatureExtractor(entry, source_head=False)
            features = clone(extractor).set_params(compile=True).fit_transform(cases)
            assert_close(features, extractor.fit_transform(cases))
            gone.append(weakref.ref(network))
            del network, entry, extractor
    gc.collect()
    assert sum(ref() is not None for ref in gone) <= 1


class InPlace(nn.Module):
    """What a layer returned is changed afterwards, and a layer runs twice."""

    def __init__(self):
        super().__init__()
        self.up = nn.Conv3d(1, 3, 3, padding=1)
        self.twice = nn.Conv3d(3, 3, 1)
        self.head = nn.Conv3d(3, 2, 1)

    def forward(self, x):
        y = self.up(x)
        y += 1.0
        y = torch.relu_(y)
        return self.head(self.twice(self.twice(y)))


@needs_compiler
def test_layers_are_read_as_they_return(cases):
    entry = make_entry(InPlace(), layers=("up", "twice"))
    extractor = SegmentationFeatureExtractor(entry, source_head=False)
    features = clone(extractor).set_params(compile=True).fit_transform(cases)
    assert_close(features, extractor.fit_transform(cases))


@pytest.mark.usefixtures("uncompiled")
def test_other_sizes_run_as_they_are(cases):
    """Of four windows in batches of three, the last one is alone."""
    extractor = SegmentationFeatureExtractor(make_entry(), batch_size=3)
    features = clone(extractor).set_params(compile=True).fit_transform(cases)
    assert features[0].info["n_windows"] % 3
    assert_close(features, extractor.fit_transform(cases))
    torch.manual_seed(0)  # a model that names no window has one for each size of image
    extractor = SegmentationFeatureExtractor(BankEntry.from_module("net", small_unet()))
    varied = [*cases, make_phantoms(3, size=(40, 16, 16))[2]]
    features = clone(extractor).set_params(compile=True).fit_transform(varied)
    assert_close(features, extractor.fit_transform(varied))


def fails_to_compile(function, **options):
    raise RuntimeError("no compiler is there\nand more of it")


def compiles_wrongly(function, **options):
    def wrong(batch):
        outputs, head = _as_traced(function, batch)
        return [output * 1.01 for output in outputs], head

    return wrong


def compiles_to_nan(function, **options):
    def wrong(batch):
        outputs, head = _as_traced(function, batch)
        return outputs, head * float("nan")

    return wrong


def _as_traced(function, batch):
    function.__self__._plain = True
    try:
        return function(batch)
    finally:
        function.__self__._plain = False


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        (fails_to_compile, r"RuntimeError: no compiler is there\.$"),
        (compiles_wrongly, r"compiled, layer 'decoder.0' differs by 0\.01 of its largest value\.$"),
        (compiles_to_nan, r"compiled, the output differs by nan of its largest value\.$"),
    ],
)
def test_what_cannot_be_compiled_runs_as_it_is(cases, monkeypatch, compiler, reason):
    monkeypatch.setattr(torch, "compile", compiler)
    entry = make_entry()
    network = entry.load()
    extractor = SegmentationFeatureExtractor(entry)
    with pytest.warns(SkteWarning, match=f"^Entry 'net' runs uncompiled: {reason}") as caught:
        features = clone(extractor).set_params(compile=True).fit_transform(cases)
    assert len(caught) == 1
    expected = extractor.fit_transform(cases)
    for one, other in zip(features, expected, strict=True):
        np.testing.assert_array_equal(one.layers["decoder.0"].X, other.layers["decoder.0"].X)
    assert not any(module._forward_hooks for module in network.modules())


def test_without_a_compiler(cases, monkeypatch):
    """As on a machine that has none."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    network = nn.Sequential(nn.Conv3d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv3d(5, 2, 1))
    extractor = SegmentationFeatureExtractor(make_entry(network, layers=("1",)))
    with (
        torch._inductor.config.patch(force_disable_caches=True),
        pytest.warns(SkteWarning, match="runs uncompiled: InvalidCxxCompiler"),
    ):
        features = clone(extractor).set_params(compile=True).fit_transform(cases)
    assert_close(features, extractor.fit_transform(cases))


class Printing(nn.Module):
    """Asks its data what to do: no single graph."""

    def __init__(self):
        super().__init__()
        self.up = nn.Conv3d(1, 3, 3, padding=1)
        self.head = nn.Conv3d(3, 2, 1)

    def forward(self, x):
        y = self.up(x)
        if float(y.mean()) > 1e6:
            y = y * 2
        return self.head(y)


class Broken(Printing):
    def forward(self, x):
        if x.abs().max() > 0:  # not on the example
            raise RuntimeError("no thanks")
        return super().forward(x)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_a_model_with_branches_and_a_broken_one(cases):
    bank = [
        make_entry(Printing(), "branching", layers=("up",)),
        make_entry(Broken(), "broken", layers=("up",)),
    ]
    selector = ModelBankSelector(
        LogME(), extractor=SegmentationFeatureExtractor(compile=True), error_score=np.nan
    )
    with pytest.warns(SkteWarning, match="'branching' runs uncompiled"):
        selector.fit(bank, cases)
    assert np.isfinite(selector.scores_[0])
    assert "no thanks" in selector.results_["error"][1]
    with pytest.raises(ExtractionError, match="no thanks"):
        SegmentationFeatureExtractor(bank[1], compile=True).fit_transform(cases)


def test_the_cache_serves_both(cases, tmp_path, monkeypatch):
    extractor = SegmentationFeatureExtractor(make_entry(), cache=tmp_path)
    extractor.fit_transform(cases)
    monkeypatch.setattr(_compiled.CompiledNetwork, "run", None)
    features = clone(extractor).set_params(compile=True).fit_transform(cases)
    assert np.isfinite(CCFV().fit(features).score_)
