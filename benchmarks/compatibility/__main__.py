"""Does what is released work, on which Pythons, and with the lowest versions it asks for?

    python -m benchmarks.compatibility --python python3.11 python3.12 --work DIR
    python -m benchmarks.compatibility --python python3.11 --lowest --work DIR
    python -m benchmarks.compatibility --smoke

Builds wheel and sdist, installs one of them into an environment of its own, and runs the
sdist's tests there, outside the checkout. Environments are kept in DIR and used again. Each
run adds its row to the result file and to ``docs/compatibility.md``. ``--smoke`` takes what
is installed already, and a few tests.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._provenance import provenance, write_json
from benchmarks.compatibility._distributions import Distributions, build
from benchmarks.compatibility._environments import (
    make_environment,
    run_tests,
    see_running_one,
)
from benchmarks.compatibility._page import write_page

RESULT = Path(__file__).parent / "results" / "compatibility.json"
_FEW_TESTS = ("tests/test_public_api.py", "tests/features")


def check(
    built: Distributions, python: str, work: Path, *, source: str, lowest: bool, jobs: int
) -> dict[str, Any]:
    """Install and test in one environment."""
    pins = "lowest" if lowest else "pinned"
    folder = work / f"{Path(python).name}-{pins}-{source}"
    distribution = built.sdist if source == "sdist" else built.wheel
    environment = make_environment(folder, python, distribution, lowest=lowest)
    told = environment.describe()
    with tempfile.TemporaryDirectory() as place:
        counts = run_tests(environment, built.sdist, Path(place), jobs=jobs, strict=not lowest)
    seen = provenance()
    return {
        "commit": seen["commit"],
        "uncommitted_changes": seen["uncommitted_changes"],
        "machine": seen["machine"],
        "installed": source,
        "dependencies": pins,
        **told,
        **counts,
    }


def add(row: dict[str, Any]) -> None:
    """Put a row into the result file, in the place of an earlier one like it."""
    known = json.loads(RESULT.read_text(encoding="utf-8"))["runs"] if RESULT.is_file() else []
    rows = {_key(one): one for one in [*known, row]}
    result = {
        "command": "python -m benchmarks.compatibility",
        "runs": [rows[key] for key in sorted(rows)],
    }
    write_json(RESULT, result)
    write_page(result)


def _key(row: dict[str, Any]) -> tuple[int, str, str]:
    return int(row["python"].split(".")[1]), row["dependencies"], row["installed"]


def smoke() -> None:
    """Build, install without dependencies, and run a few tests."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        built = build(place)
        for distribution in (built.wheel, built.sdist):
            environment = see_running_one(place / distribution.suffix[1:], distribution)
            environment.describe()
        outside = place / "outside"
        outside.mkdir()
        counts = run_tests(environment, built.sdist, outside, tests=_FEW_TESTS, jobs=0)
    assert counts["passed"] > 50, counts
    assert not counts["failed"], counts["failed"]
    print(f"wheel and sdist: fine, {counts['passed']} tests outside the checkout")


def main() -> None:
    """Check every environment asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters")
    parser.add_argument("--sdist", action="store_true", help="install the sdist, not the wheel")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions declared")
    parser.add_argument("--work", help="folder where environments are kept")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if args.smoke:
        smoke()
        return
    work = Path(args.work or tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        built = build(Path(place))
        source = "sdist" if args.sdist else "wheel"
        for python in args.python:
            row = check(built, python, work, source=source, lowest=args.lowest, jobs=args.jobs)
            print(json.dumps(row, indent=1), flush=True)
            add(row)
    if not args.work:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
