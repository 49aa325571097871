"""Processes that begin with skte imported, which takes seconds: a server does it once, and forks.

For tests that are not about how a process starts. pytest has threads, and is not forked itself.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TextIO


@cache
def process_server() -> Any:
    """Start the server; returns multiprocessing's context of it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["skte.demo", "skte.selection", "tests.reliability.models"])
    multiprocessing.forkserver.ensure_running()
    return context


@contextmanager
def running(script: str, *arguments: object) -> Iterator[tuple[BaseProcess, TextIO, TextIO]]:
    """Run a script as ``python -c`` does; yields the process, its input and its output."""
    (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
    pipes = Connection(theirs_in, writable=False), Connection(theirs_out, readable=False)
    given = (script, [*map(str, arguments)], dict(os.environ), *pipes)
    # By its name skte knows a process of the user from a worker.
    process = process_server().Process(target=_run, args=given, name="MainProcess")
    process.start()
    for pipe in pipes:
        pipe.close()
    with open(ours_in, "w") as written, open(ours_out) as read:
        yield process, written, read
    process.join()


def output_of(script: str, *arguments: object) -> str:
    """Run a script to its end, which must be a good one; returns what it printed."""
    with running(script, *arguments) as (process, _, read):
        printed = read.read()
    assert process.exitcode == 0, printed
    return printed


def _run(
    script: str, arguments: list[str], variables: dict[str, str], given: Connection, out: Connection
) -> None:
    for pipe, places in ((given, [0]), (out, [1, 2])):
        for place in places:
            os.dup2(pipe.fileno(), place)
        pipe.close()
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), sys.modules["__main__"].__dict__)
