"""A model that hangs, dies or takes all memory costs itself, and its reason is listed."""

import os
import time
from concurrent.futures import wait as futures_wait
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import FitFailedWarning

from skte import CCFV, BankEntry, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.exceptions import ExtractionError, SkteError, SkteWarning
from tests.processes import output_of, running
from tests.reliability.models import Dying, Faulty, Greedy, Hanging, Killed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

EXTRACTOR = SegmentationFeatureExtractor(n_class_samples=60, n_case_samples=60, window_size=8)
GOOD = [BankEntry("a", Faulty), BankEntry("b", Faulty, arguments={"seed": 1})]


@pytest.fixture(scope="module")
def cases():
    return make_phantoms(4, size=(16, 16, 16))


@pytest.fixture(scope="module")
def expected(cases):
    """Scores of the good ones, from a run without any fault."""
    return dict(zip("ab", select().fit(GOOD, cases).scores_, strict=True))


def select(*, batch_size=1, **params):
    extractor = SegmentationFeatureExtractor(**{**EXTRACTOR.get_params(), "batch_size": batch_size})
    return ModelBankSelector(CCFV(), extractor=extractor, **{"reference": False, **params})


def check(selector, expected, reasons):
    """Good models score as ever; the others are last, each with its reason."""
    found = dict(zip(selector.names_, selector.scores_, strict=True))
    assert {name: found[name] for name in expected} == expected
    errors = dict(zip(selector.names_, selector.results_["error"], strict=True))
    assert set(selector.ranking_[len(expected) :]) == set(reasons)
    for name, reason in reasons.items():
        assert reason in errors[name]
        assert np.isnan(found[name])
    assert not any(errors[name] for name in expected)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_a_timeout_ends_what_hangs_and_what_dies_is_named(cases, expected, tmp_path, monkeypatch):
    """The hour of the timeout is over when the model says that it hangs, not by the clock."""
    marker = tmp_path / "hangs"

    def wait_for_end_or_marker(futures, limit):
        assert limit == 3600
        while not (result := futures_wait(futures, 0.05)).done and not marker.exists():
            pass
        marker.unlink(missing_ok=True)
        return result

    monkeypatch.setattr("skte.selection._workers.wait", wait_for_end_or_marker)
    hanging = BankEntry("hangs", Hanging, arguments={"after": 2, "marker": str(marker)})
    bank = [GOOD[0], hanging, BankEntry("dies", Dying), GOOD[1]]
    selector = select(error_score=np.nan, timeout=3600).fit(bank, cases)
    reasons = {"hangs": "longer than timeout=3600 seconds", "dies": "its process died (EXIT(7))"}
    check(selector, expected, reasons)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_workers_that_die_cost_their_model_alone(cases, expected):
    bank = [GOOD[0], BankEntry("killed", Killed), BankEntry("dies", Dying), GOOD[1]]
    selector = select(error_score=np.nan, n_jobs=2, reference=True).fit(bank, cases)
    check(selector, expected, {"killed": "SIGKILL", "dies": "EXIT(7)"})


def test_a_timeout_by_the_clock_names_the_model(cases):
    with pytest.raises(SkteError, match=r"Model 'bad': .*longer than timeout=0\.5 seconds"):
        select(timeout=0.5).fit([BankEntry("bad", Hanging), *GOOD], cases)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "10"])
def test_a_timeout_is_checked(cases, timeout):
    with pytest.raises(ValueError, match="'timeout' parameter"):
        select(timeout=timeout).fit(GOOD, cases)


ORPHAN = """
import sys
from pathlib import Path
from skte import CCFV, BankEntry, ModelBankSelector
from skte.datasets import make_phantoms
from tests.reliability.models import Hanging

class Telling(Hanging):
    def fail(self, x):
        import os
        Path(sys.argv[1]).write_text(str(os.getpid()))
        super().fail(x)

cases = make_phantoms(2, size=(16, 16, 16))
ModelBankSelector(CCFV(), timeout=500_000).fit([BankEntry("hangs", Telling)], cases)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_worker_outlives_a_run_that_was_killed(tmp_path):
    told = tmp_path / "pid"
    with running(ORPHAN, told) as (process, _, _):
        assert wait_until(lambda: told.exists() and told.read_text())
        process.kill()
    worker = Path("/proc", told.read_text())
    assert wait_until(lambda: not worker.exists() or "(zombie)" in (worker / "status").read_text())


def wait_until(holds, seconds=6000):
    for _ in range(seconds * 10):
        if holds():
            return True
        time.sleep(0.1)
    return False


# Memory


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        (RuntimeError, "DefaultCPUAllocator: not enough memory: you tried to allocate"),
        (RuntimeError, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
        (torch.cuda.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
        (MemoryError, "std::bad_alloc"),
    ],
)
def test_a_smaller_batch_is_tried(cases, kind, words):
    """Of 8 windows at a time, 2 fit; later cases begin with what fitted."""
    bank = {"greedy": Greedy(2, words, kind)}
    with pytest.warns(SkteWarning, match="memory ran out") as caught:
        selector = select(batch_size=8).fit(bank, cases)
    assert selector.scores_ == select(batch_size=2).fit(bank, cases).scores_
    said = [str(w.message) for w in caught if "memory ran out" in str(w.message)]
    assert len(said) == 2
    assert all("Entry 'greedy', case '" in text for text in said)
    assert said[1].endswith("4 at a time; continuing with 2.")


def test_batches_are_halved_down_to_one(cases, tmp_path):
    log = tmp_path / "log"
    look = 1 + 7  # passes: a trace, and the probe of its layers
    settings = {"most": 0, "after": look, "log": str(log)}
    bank = [BankEntry("greedy", Greedy, arguments=settings), *GOOD]
    with pytest.warns(FitFailedWarning, match="'greedy' failed.*memory ran out.*one at a time"):
        selector = select(batch_size=5, error_score=np.nan).fit(bank, cases)
    assert np.isfinite(selector.scores_[1:]).all()
    assert log.read_text() == "5 2 1 "


def test_other_errors_are_not_tried_again(cases, monkeypatch):
    again = "skte.extraction._runner.free_memory"
    monkeypatch.setattr(again, lambda device: pytest.fail("tried again"))
    greedy = Greedy(1, "no thanks")
    with pytest.raises(ExtractionError, match="no thanks"):
        select(batch_size=4).fit({"greedy": greedy}, cases)


LIMITED = """
import resource, warnings
warnings.simplefilter("ignore")
import numpy as np
from torch import nn
from skte import CCFV, BankEntry, ModelBankSelector, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet

cases = make_phantoms(2, size=(64, 64, 64))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
wide = nn.Sequential(nn.Conv3d(1, 3000, 1), nn.Conv3d(3000, 2, 1))  # 3 GB a window
extractor = SegmentationFeatureExtractor(window_size=64, n_class_samples=60)
bank = {"wide": wide, "small": small_unet(widths=(2, 4))}
selector = ModelBankSelector(CCFV(), extractor=extractor, error_score=np.nan).fit(bank, cases)
print([bool(error) for error in selector.results_["error"]], selector.results_["error"][0])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_a_real_limit_of_memory_costs_the_model_that_meets_it():
    printed = output_of(LIMITED)
    assert printed.startswith("[True, False]"), printed
    assert "memory" in printed
