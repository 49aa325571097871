"""Run every study with small inputs, to see that it works.

    python -m benchmarks [STUDY ...]

This process imports what most studies need and forks, so that each of them starts with it.
"""

from __future__ import annotations

import os
import resource
import runpy
import sys
import tempfile
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# The slowest first: two run at a time.
STUDIES = (
    "compatibility", "reliability", "cost", "evidence", "scale", "mixed_bank", "plans",
    "real_bank", "deepbet", "confidence", "golden", "report", "speed", "adapters", "networks",
    "bundles",
)  # fmt: skip


def smoke(study: str, said: Path) -> None:
    """Run a study as ``python -m benchmarks.STUDY --smoke`` does, in a process of its own."""
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [study, "--smoke"]
    runpy.run_module(f"benchmarks.{study}", run_name="__main__", alter_sys=True)


def main(waiting: list[str], folder: Path) -> None:
    """Run the studies, two at a time; what a study says is shown where it fails."""
    import monai.inferers
    import monai.networks.nets  # noqa: F401

    import skte.cli  # noqa: F401

    fork = get_context("fork")
    running: dict[Any, tuple[str, Any]] = {}
    failed = []
    while waiting or running:
        while waiting and len(running) < 2:
            study = waiting.pop(0)
            process = fork.Process(target=smoke, args=(study, folder / study))
            process.start()
            running[process.sentinel] = study, process
        for sentinel in connection.wait(list(running)):
            study, process = running.pop(sentinel)
            before = _seconds()
            process.join()
            print(f"{study}: {_seconds() - before:.0f} s of processor time", flush=True)
            if process.exitcode:
                failed.append(study)
                print((folder / study).read_text(errors="replace"), flush=True)
    if failed:
        sys.exit(f"benchmarks --smoke failed: {', '.join(failed)}")


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(sys.argv[1:] or list(STUDIES), Path(name))
