"""Nothing is imported from the current folder, or from that of a bank or dataset."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from skte.datasets import make_phantoms
from skte.demo import write_msd

ROOT = Path(__file__).parents[2]
# Python itself imports these before ``python -m`` looks for what it is to run.
BEFORE_SKTE = ["contextlib", "importlib", "keyword", "operator", "reprlib", "functools", "types"]
BEFORE_SKTE += ["warnings", "collections", "skte"]
NAMES = [
    *BEFORE_SKTE, "argparse", "cloudpickle", "codecs", "dask", "distributed", "encodings", "io",
    "joblib", "json", "logging", "loky", "matplotlib", "monai", "multiprocessing", "nibabel",
    "numpy", "os", "pandas", "pickle", "pkgutil", "re", "resource", "scipy", "signal", "site",
    "sitecustomize", "sklearn", "subprocess", "tempfile", "threading", "torch", "torchio",
    "triton", "usercustomize", "yaml", "__future__", "_posixsubprocess", "SimpleITK",
]  # fmt: skip
SPY = "import pathlib; pathlib.Path({marks!r}, __name__).touch()\nraise SystemExit(__file__)\n"
MODELS = [
    {"name": name, "factory": "beside:network", "arguments": {"seed": seed}, "weights": "none"}
    for seed, name in enumerate("ab")
]
TRUST = ["--trust-package", "beside"]
OPTIONS = ["--bank", "bank.json", "--data", "data", "--json", *TRUST]
OPTIONS += ["--estimator", "ccfv", "--no-reference"]


@pytest.fixture
def place(tmp_path):
    """A folder that holds data and a bank, each beside modules with well-known names."""
    return make_place(tmp_path)


def make_place(tmp_path):
    (tmp_path / "marks").mkdir()
    data = write_msd(tmp_path / "here" / "data", make_phantoms(3, size=(16, 16, 16)), "tiny")
    for folder in (tmp_path / "here", Path(data)):
        for name in NAMES:
            (folder / f"{name}.py").write_text(SPY.format(marks=str(tmp_path / "marks")))
    (tmp_path / "here" / "bank.json").write_text(json.dumps({"models": MODELS}))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "beside.py").write_text(
        "from tests.reliability.models import Dying, Faulty, Killed\n"
        "def network(seed):\n    return Faulty(seed=seed)\n"
    )
    return tmp_path


def run(place, *command, **environment):
    paths = os.pathsep.join([str(place / "home"), str(ROOT)])
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=place / "here",
        env={**variables, "PYTHONPATH": paths, "SKTE_DATA": "", **environment},
        capture_output=True,
        text=True,
    )
    assert [path.name for path in (place / "marks").iterdir()] == []
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_command(place):
    found = run(place, "-P", "-m", "skte", "bank", "check", "bank.json", "--json", *TRUST)
    assert all(row["layers"] for row in json.loads(found)["models"])


@pytest.mark.slow
def test_python_m_skte(place):
    """What Python imports before skte is its own affair; all else is found where it belongs."""
    for name in BEFORE_SKTE:
        (place / "here" / f"{name}.py").unlink()
    assert json.loads(run(place, "-m", "skte", "rank", *OPTIONS, "--n-jobs", "2"))


SCRIPT = """
import os, sys
here, sys.path[:] = os.getcwd(), [p for p in sys.path if p]
import joblib
import numpy as np
from beside import Dying, Faulty
from skte import CCFV, BankEntry, ModelBankSelector
from skte.datasets import make_phantoms
from skte.selection import HalvingModelBankSelector

class OfScript(Faulty):
    pass

def fitted(how, bank, cases):
    alone = {"error_score": np.nan, "reference": False}
    if how == "loky":
        with joblib.parallel_config("loky", n_jobs=2):
            return ModelBankSelector(CCFV(), **alone).fit(bank, cases)
    if how == "race":
        race = HalvingModelBankSelector(CCFV(), timeout=36_000, min_cases=4, **alone)
        return race.fit(bank, cases)
    import dask
    import distributed
    dask.config.set({"distributed.scheduler.allowed-failures": 0})  # two deaths are enough
    os.chdir("/")
    with distributed.LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        os.chdir(here)
        with distributed.Client(cluster), joblib.parallel_config("dask"):
            return ModelBankSelector(CCFV(), **alone).fit(bank, cases)

if __name__ == "__main__":
    cases = make_phantoms(4, size=(16, 16, 16))
    bank = [BankEntry(f"n{i}", k, arguments={"seed": i}) for i, k in enumerate([OfScript, Faulty])]
    dying = BankEntry("dying", Dying)
    for how in sys.argv[1:]:
        selector = fitted(how, [dying, *bank] if how == "race" else [*bank, dying], cases)
        assert "PYTHONSAFEPATH" not in os.environ, how
        table = selector.rung_results_ if how == "race" else selector.results_
        errors = dict(zip(table["name"], table["error"], strict=True))
        assert list(selector.ranking_)[-1] == "dying", (how, errors)
        assert " died" in errors["dying"], (how, errors)
        assert np.isfinite(selector.scores_).sum() == 2, how
"""


@pytest.mark.slow
def test_a_script_of_the_user(place):
    """Modules beside the script and classes in it are found; the current folder is not looked at.

    A worker that dies is started again. One process, as starting one takes the most time.
    """
    ways = ["loky", "race", *(["dask"] if find_spec("distributed") else [])]
    script = place / "home" / "script.py"
    script.write_text(SCRIPT)
    run(place, "-W", "ignore", script, *ways)
