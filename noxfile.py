"""What a contributor runs: nox -s lint tests coverage docs smoke (pip install nox).

``nox --no-venv`` takes the environment at hand, which must have the dev and docs extras.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True


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
def coverage(session: nox.Session) -> None:
    """Measure which lines run: in the quick tests, and in the slow ones of what those leave out."""
    install(session, "dev")
    measured = ("python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "--cov")
    session.run(*measured, "-m", "not slow", "--cov-fail-under=0", "--cov-report=")
    rooms = ("tests/demo", "tests/datasets", "tests/bank/test_hub.py")
    session.run(*measured, "--cov-append", "-m", "slow", *rooms)


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
    session.run("python", "-m", "benchmarks", *session.posargs)
