"""Wheel and sdist, and whether they hold what they should."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Distributions", "build", "pip_of", "run"]

ROOT = Path(__file__).resolve().parents[2]
# What building adds to the files of the project.
_ADDED = {"PKG-INFO", ".gitignore"}
_FOLDERS = ("docs", "skte", "tests")
_FILES = {
    ".ci/conda/recipe.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "constraints.txt",
    "pyproject.toml",
}


@dataclass(frozen=True)
class Distributions:
    """The two files that a release has."""

    wheel: Path
    sdist: Path


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a command; where it fails, end with what it said."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def pip_of(python: Path) -> list[str | Path]:
    """Installs into another environment, which takes none of its own."""
    return [sys.executable, "-m", "pip", "--python", python]


def build(place: Path) -> Distributions:
    """Build both (the wheel from the sdist), and check their files."""
    run([sys.executable, "-m", "venv", "--without-pip", place / "builder"])
    python = place / "builder" / "bin" / "python"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tools = project["build-system"]["requires"]
    run([*pip_of(python), "install", "--quiet", "build", *tools])
    # This environment is an isolated one: no need for one more for each of the two.
    run([python, "-m", "build", "--no-isolation", "--outdir", place, ROOT])
    built = Distributions(next(place.glob("*.whl")), next(place.glob("*.tar.gz")))
    _check_wheel(built.wheel)
    _check_sdist(built.sdist)
    return built


def _present(*folders: str) -> set[str]:
    """Files there are, but for those that .gitignore names; also in a copy without history."""
    with tempfile.TemporaryDirectory() as empty:
        run(["git", "init", "--quiet", "--bare", empty])
        git = ["git", f"--git-dir={empty}", "--work-tree=.", "ls-files", "--others"]
        return set(run([*git, "--exclude-standard", "--", *folders], cwd=ROOT).splitlines())


def _check_wheel(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        files = set(archive.namelist())
    metadata = {name for name in files if ".dist-info/" in name}
    _same("The wheel", files - metadata, _present("skte"))
    assert "skte/py.typed" in files
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def _check_sdist(path: Path) -> None:
    with tarfile.open(path) as archive:
        names = {m.name.split("/", 1)[1] for m in archive.getmembers() if m.isfile()}
    _same("The sdist", names - _ADDED, _present(*_FOLDERS) | _FILES)


def _same(what: str, found: set[str], expected: set[str]) -> None:
    assert found == expected, (
        f"{what} lacks {sorted(expected - found)} and has too much: {sorted(found - expected)}."
    )
