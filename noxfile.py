"""What a contributor runs: nox -s lint tests docs smoke (pip install nox).

``nox --no-venv`` takes the environment at hand, which must have the dev and docs extras.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True

# The slowest first: two run at a time.
STUDIES = (
    "cost", "compatibility", "scale", "reliability", "evidence", "mixed_bank",
    "plans",
    "real_bank", "deepbet", "confidence", "golden", "report", "speed", "adapters", "networks",
)  # fmt: skip


def install(session: nox.Session, extras: str) -> None:
    """Install the project with some extras, unless the environment is the user's own."""
    if session.bin_paths is not None:
        session.install("-c", "constraints.txt", "-e", f".[{extras}]")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    install(session, "dev")
    session.run("python", "-m", "ruff", "check", ".")
    session.run("python", "-m", "ruff", "format", "--check", ".")
    session.run("python", "-m", "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; ``nox -s tests -- -m "not slow"`` leaves out the slow ones."""
    install(session, "dev")
    session.run("python", "-m", "pytest", "-n", "2", "--dist", "worksteal", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site; a warning is an error."""
    install(session, "docs")
    options = ("-q", "-W", "--keep-going", "-b", "html")
    session.run("python", "-m", "sphinx", *options, "docs", "docs/_build/html")


@nox.session
def smoke(session: nox.Session) -> None:
    """Run every study with small inputs, to see that it works."""
    install(session, "dev")
    python = "python" if session.bin_paths is None else str(Path(session.bin) / "python")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(study: str) -> bool:
        command = [python, "-m", f"benchmarks.{study}", "--smoke"]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        session.log(" ".join(command[1:]) if done.returncode == 0 else done.stdout)
        return done.returncode == 0

    studies = session.posargs or STUDIES
    with ThreadPoolExecutor(2) as pool:
        failed = [s for s, good in zip(studies, pool.map(run, studies), strict=True) if not good]
    if failed:
        session.error(f"benchmarks --smoke failed: {', '.join(failed)}")
