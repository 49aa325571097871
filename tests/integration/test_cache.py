"""The cache in use: nothing runs twice, nothing changes, whatever was interrupted."""

import hashlib
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from skte import CCFV, LEEP, BankEntry, LogME, ModelBankSelector, SegmentationFeatureExtractor
from skte.cli import main
from skte.datasets import load_dataset, make_phantoms
from skte.demo import small_unet, write_msd
from skte.extraction import FeatureCache
from tests.processes import running


def build_unet(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_unet(widths=(4, 8))


class NoMap(nn.Module):
    """Its features are sound, its output is not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 3, 3, padding=1)

    def forward(self, x):
        return torch.full_like(self.conv(x), torch.nan)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_msd(tmp_path_factory.mktemp("data"), make_phantoms(4, size=(20, 20, 16)), "tiny")


def entries(n=2):
    return [BankEntry(f"net{i}", build_unet, arguments={"seed": i}) for i in range(n)]


def fit(data, cache, estimator=None, bank=None, **params):
    extractor = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60, **params)
    selector = ModelBankSelector(
        CCFV() if estimator is None else estimator,
        extractor=extractor,
        cache=cache,
        reference=False,
    )
    return selector.fit(entries() if bank is None else bank, data)


def files(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.slow
def test_a_second_estimator_loads_and_runs_no_network(data, tmp_path, monkeypatch):
    first = fit(data, tmp_path / "cache")
    assert first.results_["n_cached"].tolist() == [0, 0]
    plain = fit(data, None, {"logme": LogME(), "leep": LEEP()})
    monkeypatch.setattr(BankEntry, "load", lambda self: pytest.fail("a network was loaded"))
    second = fit(data, tmp_path / "cache", {"logme": LogME(), "leep": LEEP()})
    assert second.results_["n_cached"].tolist() == [4, 4]
    assert second.results_["n_windows"].tolist() == [0, 0]
    for key in ("logme", "leep"):
        np.testing.assert_array_equal(
            second.results_[f"score_{key}"], plain.results_[f"score_{key}"]
        )
    assert fit(data, tmp_path / "cache").scores_.tolist() == first.scores_.tolist()
    assert fit(data, tmp_path / "cache", CCFV(s=2.0)).scores_.tolist() != first.scores_.tolist()


@pytest.mark.slow
def test_changed_settings_and_cases_are_extracted_anew(data, tmp_path):
    cache = tmp_path / "cache"
    fit(data, cache)
    for params in (
        {"overlap": 0.5},
        {"window_size": 16},
        {"taper": False},
    ):
        assert fit(data, cache, **params).results_["n_cached"].tolist() == [0, 0]
    assert fit(data, cache).results_["n_cached"].tolist() == [4, 4]
    subjects = load_dataset(data)
    subjects[1]["image"].set_data(subjects[1]["image"].data * 2 + 1)
    assert fit(subjects, cache).results_["n_cached"].tolist() == [3, 3]


def test_other_weights_are_another_model(data, tmp_path):
    for seed, expected in ((0, 0), (0, 4), (1, 0)):
        torch.save(build_unet(seed).state_dict(), tmp_path / "w.pt")
        bank = [BankEntry("net", build_unet, weights=tmp_path / "w.pt")]
        assert fit(data, tmp_path / "cache", bank=bank).results_["n_cached"].tolist() == [expected]


def test_a_model_without_identity_runs_uncached_and_says_so(data, tmp_path):
    network = build_unet()
    network.register_forward_hook(lambda *a: None)
    bank = {"hooked": network}
    with pytest.warns(UserWarning, match="'hooked' is not cached: "):
        selector = fit(data, tmp_path / "cache", bank=bank)
    assert np.isfinite(selector.scores_).all()
    assert (
        not (tmp_path / "cache").exists()
        or FeatureCache(tmp_path / "cache").describe()["n_entries"] == 0
    )


def test_an_unusable_head_is_remembered(data, tmp_path):
    bank = [BankEntry("blind", NoMap, layers=("conv",))]
    for n_cached in (0, 4):
        selector = fit(data, tmp_path / "cache", bank=bank)
        assert selector.results_["n_cached"].tolist() == [n_cached]
        features = selector.extractor_.set_params(entry=bank[0]).fit_transform(data)
        assert "NaN" in features[0].no_posterior


def test_shell(data, tmp_path, capsys):
    torch.save(build_unet().state_dict(), tmp_path / "w.pt")
    (tmp_path / "bank.json").write_text(
        '{"models": [{"name": "a", "factory": "skte.demo:small_unet", "weights": "w.pt",'
        ' "arguments": {"widths": [4, 8]}}]}'
    )
    command = ["rank", "--bank", str(tmp_path / "bank.json"), "--data", str(data), "--json"]
    command.append("--no-reference")
    printed = []
    for estimator in ("ccfv", "logme", "ccfv"):
        options = ["--cache", str(tmp_path / "cache"), "--estimator", estimator, "--samples"]
        assert main([*command, *options, "all"]) == 0
        printed.append(capsys.readouterr().out)
    assert '"n_cached": 0' in printed[0]
    assert '"n_cached": 4' in printed[1]
    assert main(["cache", "info", str(tmp_path / "cache")]) == 0
    assert "4" in capsys.readouterr().out


RUNS = """
import os, sys, traceback
from skte import CCFV, BankEntry, ModelBankSelector, SegmentationFeatureExtractor
unet = {"factory": "skte.demo:small_unet", "arguments": {"widths": (4, 8)}}
bank = [BankEntry(f"net{i}", **unet) for i in range(3)]
extractor = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60)
while cache := sys.stdin.readline().strip():
    pid = os.fork()
    if not pid:
        try:
            ModelBankSelector(CCFV(), extractor=extractor, cache=cache).fit(bank, sys.argv[1])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(pid, flush=True)
    sys.stdin.readline()  # until the test asks how it ended
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_and_ends_byte_identical(data, tmp_path):
    cache = tmp_path / "killed"
    rng = np.random.default_rng(0)
    with running(RUNS, data) as (_, told, answers):

        def ask(line):
            print(line, file=told, flush=True)
            return int(answers.readline())

        ask(tmp_path / "whole")
        begun = time.perf_counter()
        assert ask("ended?") == 0
        seconds = time.perf_counter() - begun
        expected = files(tmp_path / "whole")
        assert len(expected) >= 3 * 4
        for _ in range(4):
            pid = ask(cache)
            time.sleep(rng.uniform(0.1, 0.9) * seconds)
            os.kill(pid, signal.SIGKILL)
            ask("ended?")
            found = files(cache) if cache.exists() else {}
            for name in set(found) & set(expected):
                assert found[name] == expected[name]
        ask(cache)
        assert ask("ended?") == 0
    found = files(cache)
    assert {name: found.get(name) for name in expected} == expected
