"""Result files: whole or not there, and nothing left beside them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from skte._files import check_writable, outside_problem, write_atomically, write_text_atomically

LEFTOVER = ".ranking.0123456789abcdef.tmp.csv"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_leaves_the_old_file_alone(tmp_path):
    path = write_text_atomically(tmp_path / "a.txt", "old")

    def half(file):
        file.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_is_swept(tmp_path):
    others = [".ranking.csv", ".other.0123456789abcdef.tmp.csv", ".ranking.0123.tmp.csv"]
    for name in [LEFTOVER, *others]:
        (tmp_path / name).write_text("half")
    write_text_atomically(tmp_path / "ranking.csv", "whole")
    assert names(tmp_path) == sorted([*others, "ranking.csv"])


def test_what_a_living_writer_has_in_work_stays(tmp_path):
    path = tmp_path / "ranking.csv"

    def write(file):
        assert check_writable(path) is None
        write_text_atomically(path, "faster")
        assert file.exists()
        file.write_text("slower")

    write_atomically(path, write)
    assert path.read_text() == "slower"
    assert names(tmp_path) == ["ranking.csv"]


KILLED = """
import sys
from skte._files import write_atomically
def write(path):
    path.write_text("x")
    print("now", flush=True)
    sys.stdin.read()  # until it is killed
write_atomically(sys.argv[1], write)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_real_kill(tmp_path):
    path = tmp_path / "report.html"
    command = [sys.executable, "-c", KILLED, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.readline()
        assert len(names(tmp_path)) == 1
        check_writable(path)
        assert len(names(tmp_path)) == 1  # it is at work
        process.kill()
    assert not path.exists()
    write_text_atomically(path, "whole")
    assert names(tmp_path) == ["report.html"]


def test_permissions_are_those_of_ordinary_files(tmp_path):
    mask = os.umask(0o027)
    try:
        path = write_text_atomically(tmp_path / "a", "")
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o640


def test_without_locks_age_decides(tmp_path, monkeypatch):
    monkeypatch.setattr("skte._files.fcntl", None)
    leftover = tmp_path / LEFTOVER
    leftover.write_text("half")
    write_text_atomically(tmp_path / "ranking.csv", "1")
    assert leftover.exists()
    os.utime(leftover, (time.time() - 100_000,) * 2)
    write_text_atomically(tmp_path / "ranking.csv", "2")
    assert names(tmp_path) == ["ranking.csv"]


def test_links_are_followed_before_a_path_is_held_to_its_roots(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    (root / "annex").mkdir(parents=True)
    other.mkdir()
    (root / "annex" / "inside").touch()
    (other / "outside").touch()
    (root / "in").symlink_to(root / "annex" / "inside")
    (root / "out").symlink_to(other / "outside")
    assert outside_problem(root / "in", [root]) == ""
    assert outside_problem(root / "out", [root, other]) == ""
    assert f"--allow-root {other}" in outside_problem(root / "out", [root])
    assert outside_problem(root / ".." / "other" / "outside", [root])
