"""Fixtures of all rooms. Threads are pinned before anything imports numpy or torch."""

import os
import sys

# One thread each: results do not depend on the machine, and pytest-xdist's workers do
# not fight for cores. Must stand before the first import of numpy or torch.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["MPLBACKEND"] = "Agg"

import gc
import importlib
import locale
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples on every run, and no failure because a shared machine was slow.
settings.register_profile("skte", deadline=None, derandomize=True)
settings.load_profile("skte")

# Filters that name classes, hence not in pyproject.toml (see there).
WARNING_FILTERS = [
    # Our warnings are results about the data; tests assert them where they matter.
    "default::skte.exceptions.SkteWarning",
    # scikit-learn's conformance suite says which of its checks do not apply.
    "ignore::sklearn.exceptions.SkipTestWarning",
]


# Tests talk to servers of their own on this machine, and to no other.
_HERE = {"localhost", "127.0.0.1", "::1", "", None}


def _refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in _HERE:
            raise RuntimeError(f"a test connects to {address}")
    elif event == "socket.getaddrinfo" and arguments[0] not in _HERE:
        raise RuntimeError(f"a test looks up {arguments[0]!r}")


def pytest_configure(config: pytest.Config) -> None:
    sys.addaudithook(_refuse_network)
    if config.getoption("dist", "no") != "no":  # this process only hands out tests
        return
    gc.disable()  # a third of the time of collecting tests
    import sklearn.mixture  # noqa: F401 - what skte imports, before coverage slows imports down
    import torchio  # noqa: F401

    for line in WARNING_FILTERS:
        config.addinivalue_line("filterwarnings", line)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Measure how skte is imported, and not how tests are: coverage doubles the time of that."""
    coverage = getattr(session.config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if coverage is None or session.config.getoption("dist", "no") != "no":  # workers collect
        return (yield)
    import skte

    for module in pkgutil.walk_packages(skte.__path__, "skte."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    coverage.pause()
    try:
        return (yield)
    finally:
        coverage.resume()


def pytest_collection_finish() -> None:
    """Half a million objects stay until the end: the garbage collector need not visit them."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "dna" in getattr(item, "fixturenames", ()):
            item.add_marker("dna")  # by which .ci/run finds what README's environment skips


@pytest.fixture(scope="session")
def dna() -> Any:
    """Package of nnU-Net's networks; skips the test where it is not installed."""
    from tests.model_folders import require_dna  # it imports torch

    return require_dna()


@pytest.fixture(scope="module")
def forked_workers() -> Iterator[None]:
    """Let joblib's workers begin with skte imported, which takes each of them seconds.

    How workers begin is tested in ``tests/reliability/test_current_folder.py``.
    """
    from tests.processes import process_server

    method = process_server().get_start_method()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("joblib.externals.loky.backend.context._DEFAULT_START_METHOD", method)
        # The server, and not this process, is their parent.
        patch.setattr("skte.selection._workers._die_with_parent", abs)
        yield


@pytest.fixture(autouse=True)
def _kept_locale() -> Iterator[None]:
    """ITK sets the locale to C where it writes DICOM, and open() then decodes as ASCII."""
    before = locale.setlocale(locale.LC_CTYPE)
    yield
    locale.setlocale(locale.LC_CTYPE, before)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real images; skips the test where there is none."""
    folder = Path(
        os.environ.get("SKTE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
    ).resolve()
    if not folder.is_dir():
        pytest.skip("no real images here: set SKTE_DATA to their folder")
    return folder
