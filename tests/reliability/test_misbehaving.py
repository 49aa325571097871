"""A model that changes its process costs itself alone, and the user's Ctrl-C is the user's."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skte import CCFV, BankEntry, ModelBankSelector, SegmentationFeatureExtractor
from skte.bank import find_layers
from skte.cli import main
from skte.datasets import load_dataset, make_phantoms
from skte.demo import write_msd
from skte.exceptions import SkteError
from tests.processes import output_of, running
from tests.reliability.misbehaving import IN_PROCESS, Misbehaving
from tests.reliability.models import Faulty

EXTRACTOR = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60, window_size=8)

# In a child process: some of it closes standard streams, which pytest needs.
TRIES = """
import json, sys, warnings
warnings.simplefilter("ignore")
from benchmarks.reliability._models import try_models
attacks = json.loads(sys.argv[1])
rows = [row for when in attacks for row in try_models("one process", when, attacks[when])]
print(json.dumps([len(rows), [row["attack"] for row in rows if row["held"] < row["tried"]]]))
"""


@pytest.mark.slow
def test_in_one_process_no_other_score_changes():
    """After attacks of a pass, and of each kind some from where the model is built."""
    pytest.importorskip("benchmarks", reason="not part of a source distribution")
    names = ["float64 by default", "meta device by default", "convolution replaced"]
    names += ["method of convolutions added", "forward hook of all modules", "streams closed"]
    names += ["other folder", "KeyboardInterrupt", "GeneratorExit", "alarm", "fork"]
    attacks = {"forward": list(IN_PROCESS), "init": names}
    n_tried, spoiled = json.loads(output_of(TRIES, json.dumps(attacks)).splitlines()[-1])
    assert spoiled == []
    assert n_tried == len(IN_PROCESS) + len(names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_apart_no_other_score_changes_either(forked_workers):
    models = pytest.importorskip("benchmarks.reliability._models")
    names = ["float64 by default", "streams closed", "KeyboardInterrupt", "SIGINT to itself"]
    names += ["thread that meddles", "segmentation fault", "convolution replaced"]
    rows = models.try_models("apart (timeout)", "forward", names)
    assert [row["attack"] for row in rows if row["held"] < row["tried"]] == []
    assert len(rows) == len(names)


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(2, size=(16, 16, 16))


ENDS = ["KeyboardInterrupt", "SystemExit", "GeneratorExit"]


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("when", ["forward", "init"])
class TestWhatWouldEndTheRun:
    def test_is_named_by_the_selector(self, cases, kind, when):
        bad = BankEntry("bad", Misbehaving, arguments={"attack": kind, "when": when})
        with pytest.raises(SkteError, match=f"'bad'.*{kind}"):
            ModelBankSelector(CCFV(), extractor=EXTRACTOR).fit([bad], cases)

    def test_is_named_by_the_extractor(self, cases, kind, when):
        bad = BankEntry("bad", Misbehaving, arguments={"attack": kind, "when": when})
        with pytest.raises(SkteError, match=f"'bad'.*{kind}"):
            SegmentationFeatureExtractor(bad, window_size=8).fit_transform(cases)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["forward", "init"])
def test_what_would_end_the_run_is_listed_by_the_commands(when, tmp_path, capsys):
    factory = "tests.reliability.misbehaving:Misbehaving"
    models = [
        *({"name": f"bad {kind}", "factory": factory, "arguments": {"attack": kind, "when": when}}
          for kind in ENDS),
        {"name": "sound", "factory": "skte.demo:small_unet", "arguments": {"widths": [2, 4]}},
    ]  # fmt: skip
    (tmp_path / "bank.json").write_text(
        json.dumps({"defaults": {"weights": "none", "window_size": 16}, "models": models})
    )
    trust = ["--trust-package", "tests"]
    assert main(["bank", "check", str(tmp_path / "bank.json"), "--json", *trust]) == 1
    *bad, sound = json.loads(capsys.readouterr().out)["models"]
    for kind, row in zip(ENDS, bad, strict=True):
        assert f"'bad {kind}'" in row["error"]
        assert row["error"].count(kind) > 1
    assert sound["layers"]


def test_layers_are_found_in_isolation():
    class Changing(nn.Conv3d):
        def forward(self, x):
            torch.set_default_dtype(torch.float64)
            os.chdir("/")
            return super().forward(x)

    folder = os.getcwd()
    find_layers(
        nn.Sequential(Changing(1, 4, 1), nn.Conv3d(4, 2, 1)), "auto", torch.zeros(1, 1, *[8] * 3)
    )
    assert torch.get_default_dtype() == torch.float32
    assert os.getcwd() == folder


def test_random_numbers_of_the_user_go_on_where_they_were(cases):
    state = torch.get_rng_state()
    entry = BankEntry("seeds", Misbehaving, arguments={"attack": "generators seeded"})
    extractor = SegmentationFeatureExtractor(entry, window_size=8, random_state=None)
    seeds = {extractor.fit(cases).random_state_ for _ in range(3)}
    assert len(seeds) == 3  # each fit draws its own, as scikit-learn's estimators do
    assert torch.equal(torch.get_rng_state(), state)


def test_a_dataset_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_msd(Path("data"), make_phantoms(2, size=(16, 16, 16)), "tiny")
    found = load_dataset("data")
    again = load_dataset([{"image": s["image"].path, "label": s["label"].path} for s in found])
    monkeypatch.chdir("/")
    for subjects in (found, again):
        assert subjects[0]["image"].path.is_file()
        assert subjects[0]["label"].path.is_file()


def test_relative_paths_and_a_model_that_leaves_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_msd(Path("data"), make_phantoms(2, size=(16, 16, 16)), "tiny")
    torch.save(Faulty(seed=3).state_dict(), "weights.pt")
    leaving = BankEntry("leaving", Misbehaving, arguments={"attack": "other folder"})
    bank = [leaving, BankEntry("sound", Faulty, weights="weights.pt")]
    selector = ModelBankSelector(CCFV(), extractor=EXTRACTOR, cache="cache").fit(bank, "data")
    assert np.isfinite(selector.scores_).all()
    assert Path.cwd() == tmp_path


INTERRUPTED = """
import signal, sys, time, warnings
warnings.simplefilter("ignore")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
from skte import CCFV, BankEntry, ModelBankSelector
from skte.datasets import make_phantoms
from tests.reliability.models import Faulty

class Busy(Faulty):
    def fail(self, x):
        print("ready", flush=True)
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            if how == "swallowed":
                return
            if how == "changed":
                raise ValueError("other") from None
            raise

cases = make_phantoms(2, size=(16, 16, 16))
for how in sys.argv[1:]:
    try:
        ModelBankSelector(CCFV(), error_score=0.0).fit([BankEntry("busy", Busy)], cases)
    except KeyboardInterrupt:
        print("interrupted", how, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.slow
def test_the_user_s_own_interrupt_ends_the_run():
    """Whatever the model does with it."""
    ways = ["raised", "swallowed", "changed"]
    with running(INTERRUPTED, *ways) as (process, _, printed):
        for how in ways:
            assert printed.readline() == "ready\n"
            os.kill(process.pid, signal.SIGINT)
            assert printed.readline() == f"interrupted {how}\n"
