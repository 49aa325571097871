"""Environments of their own, and the project's tests in them, outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compatibility._distributions import ROOT, pip_of, run

__all__ = ["Environment", "lowest_versions", "make_environment", "run_tests", "see_running_one"]

# Holds the result file, which the run is about to write, to the page.
_ABOUT_ITSELF = "tests/reliability/test_page.py::test_table_of_compatibility"
_PACKAGES = ("joblib", "numpy", "scikit-learn", "scipy", "torch", "torchio")
# Every public name is imported, and counted.
_DESCRIBE = """
import importlib, json, pkgutil, platform, sys
from importlib.metadata import version
import skte

rooms = [m.name for m in pkgutil.iter_modules(skte.__path__) if not m.name.startswith("_")]
modules = [skte, *(importlib.import_module(f"skte.{room}") for room in rooms)]
names = [getattr(module, name) for module in modules for name in module.__all__]
print(json.dumps({
    "python": platform.python_version(), "skte": skte.__file__, "release": version("skte"),
    "names": len(names), "versions": {name: version(name) for name in sys.argv[1:]},
}))
"""


@dataclass(frozen=True)
class Environment:
    """Where skte is installed from one of its distributions.

    Parameters
    ----------
    folder : Path
        The virtual environment.
    """

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def describe(self) -> dict[str, Any]:
        """Tell versions, and make sure that the installed package is in use, and whole."""
        told = json.loads(run([self.python, "-c", _DESCRIBE, *_PACKAGES], cwd=self.folder))
        place = Path(told.pop("skte")).resolve()
        assert place.is_relative_to(self.folder.resolve()), f"skte comes from {place}"
        names = told.pop("names")
        assert names > 100, f"{names} public names were found"
        said = run([self.folder / "bin" / "skte", "--version"], cwd=self.folder)
        assert said.split() == ["skte", told.pop("release")], said
        found: dict[str, Any] = told
        return found


def lowest_versions() -> list[str]:
    """Pin every direct dependency of skte and of its tests to the lowest that it declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = []
    for requirement in (*project["dependencies"], *project["optional-dependencies"]["test"]):
        name, lowest = requirement.split(">=")
        pins.append(f"{name.strip()}=={lowest.split(',')[0].strip()}")
    return sorted(pins)


def make_environment(folder: Path, python: str, distribution: Path, *, lowest: bool) -> Environment:
    """Install one of the distributions, with what the tests need.

    What they need is kept, for as long as interpreter and versions stay what they were.
    """
    pins = "\n".join(lowest_versions()) + "\n"
    known = [run([python, "-VV"]), pins]
    if not lowest:
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        known.append(pins)
    done = folder / "installed"
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    if not done.is_file() or done.read_text(encoding="utf-8") != "".join(known):
        shutil.rmtree(folder, ignore_errors=True)
        run([python, "-m", "venv", folder])
        (folder / "pins.txt").write_text(pins, encoding="utf-8")
        run([*pip, "-c", folder / "pins.txt", f"{distribution}[test]"])
        done.write_text("".join(known), encoding="utf-8")
    run([*pip, "--no-deps", "--force-reinstall", distribution])
    return Environment(folder)


def see_running_one(folder: Path, distribution: Path) -> Environment:
    """Install a distribution alone; what it needs is looked up in the running environment."""
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    own = next(folder.glob("lib/python*/site-packages"))
    # Paths that a .pth names are searched, their own .pth files are not: an editable
    # install of the checkout stays out.
    (own / "running.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    run([*pip_of(folder / "bin" / "python"), "install", "--quiet", "--no-deps", distribution])
    return Environment(folder)


def run_tests(
    environment: Environment,
    sdist: Path,
    place: Path,
    *,
    tests: Sequence[str] = ("tests", "--pyargs", "skte"),
    jobs: int = 2,
    strict: bool = True,
) -> dict[str, Any]:
    """Run the tests that the sdist has on the installed package, and count.

    Its folder of the package is taken away, so that nothing but the installed one can be
    imported. `strict` leaves warnings the errors that they are in the project's settings.
    """
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (folder,) = (p for p in place.iterdir() if p.is_dir())
    shutil.rmtree(folder / "skte")
    report = place / "report.xml"
    command = [environment.python, "-m", "pytest", "-q", "-n", str(jobs), f"--junitxml={report}"]
    command += ["--deselect", _ABOUT_ITSELF]
    command += [] if strict else ["-o", "filterwarnings=default"]
    # Real images are not part of a release; without them, runs are the same everywhere.
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SKTE_DATA")}
    begun = time.perf_counter()
    done = subprocess.run(
        [*command, *tests], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    if not report.is_file():
        sys.exit(f"{done.stdout}{done.stderr}")
    if done.returncode:
        print(done.stdout[-20_000:])
    return {**_counts(report), "seconds": round(time.perf_counter() - begun)}


def _counts(report: Path) -> dict[str, Any]:
    counts = {"passed": 0, "skipped": 0}
    failed = []
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        else:
            counts["passed" if case.find("skipped") is None else "skipped"] += 1
    return {**counts, "failed": sorted(failed)}
