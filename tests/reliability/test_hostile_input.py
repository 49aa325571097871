"""Random input at every door: a right result or a named error."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skte.exceptions import SkteError
from tests.model_folders import require_dna
from tests.reliability.outcome import require
from tests.reliability.targets import TARGETS, Target

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=sorted(TARGETS))
def door(request, tmp_path_factory):
    if request.param == "plans":
        require_dna()
    target, folder = TARGETS[request.param], tmp_path_factory.mktemp(request.param)
    return target, folder, target.prepare(folder)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.slow
@pytest.mark.no_cover
def test_a_right_result_or_a_named_error(door, seed):
    target, folder, sound = door
    outcome = target.attempt(np.random.default_rng(seed), folder, sound)
    assert outcome in ("result", "named error") or "without checksums" in outcome


def harm(how):
    """A door that does what none may."""

    def attempt(rng, folder, sound):
        if rng.integers(2) == 0:
            return "named error"
        if how == "program":
            os.system("true")
        elif how == "writes":
            Path(sound).write_text("x")
        elif how == "dies":
            os._exit(3)
        elif how == "memory":
            np.ones(2**33)
        elif how == "error":
            raise KeyError("what")
        return "result"

    return attempt


@pytest.mark.slow
@pytest.mark.parametrize("how", ["program", "writes", "dies", "memory", "error"])
def test_the_benchmark_sees_what_may_not_be(how, monkeypatch, tmp_path):
    fuzzing = pytest.importorskip("benchmarks.reliability._fuzz")
    first = iter(["named error"] * 20)  # before a door is watched it is tried a few times

    def attempt(rng, folder, sound):
        return next(first, None) or harm(how)(rng, folder, sound)

    target = Target(lambda folder: str(tmp_path / "elsewhere"), attempt, how)
    monkeypatch.setitem(TARGETS, "harm", target)
    found = fuzzing.fuzz("harm", 8, 0, 1)
    assert 1 <= found["outcomes"]["failure"] <= 7
    assert found["n_tried"] == sum(found["outcomes"].values()) == 8
    reasons = {"program": "os.system", "writes": "for writing", "dies": "died", "memory": "Memory",
               "error": "KeyError"}  # fmt: skip
    assert all(reasons[how] in problem for problem in found["problems"])


def test_requirements_are_not_named_errors():
    """What targets check must not look like what skte says."""
    with pytest.raises(Exception, match="wrong") as caught:
        require(False, "wrong")
    assert not isinstance(caught.value, (SkteError, ValueError, TypeError))


QUIET = """
import importlib, pkgutil, sys

try:
    import urllib3  # of pydicom, where it is installed: it asks whether the machine has IPv6
except ImportError:
    pass
watched = ["socket."]

def hook(event, arguments):
    if event.startswith(tuple(watched)):
        print(event, arguments)

sys.addaudithook(hook)
import numpy.testing, torch  # they ask what the machine has
watched += ["subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"]
import skte
for found in pkgutil.walk_packages(skte.__path__, "skte."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from skte.demo import small_unet
skte.bank.find_layers(small_unet(), "all", torch.zeros(1, 1, 16, 16, 16))
if "torch._dynamo" in sys.modules:
    print("torch's compiler was imported, which takes seconds")
print("done")
"""


@pytest.mark.slow
def test_importing_opens_no_socket_and_starts_nothing_and_no_compiler():
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stdout + done.stderr


def test_tests_reach_no_other_machine():
    with pytest.raises(RuntimeError, match="looks up"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)  # kept for documentation
    with socket.socket() as plain, pytest.raises(RuntimeError, match="connects to"):
        plain.connect(("192.0.2.1", 80))
