"""Result files and temporary folders: whole or not there, and nothing left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from skte import CCFV, _files
from skte._files import (  # serve every room
    check_writable,
    outside_problem,
    scratch_folder,
    write_atomically,
    write_text_atomically,
)
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.selection import HalvingModelBankSelector

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


# The file alone: skte itself imports torch, which takes seconds.
PRELUDE = f"""
import runpy, sys
globals().update(runpy.run_path({_files.__file__!r}))
"""
KILLED = f"""{PRELUDE}
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


HOLD = f"""{PRELUDE}
with scratch_folder("skte-test-") as folder:
    (folder / "features").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def hold():
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def end(process, how):
    process.send_signal(how) if how else process.stdin.close()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()


def test_a_killed_process_s_folder_goes_with_the_next_one_and_a_living_one_s_stays(place):
    killed, left = hold()
    living, kept = hold()
    end(killed, signal.SIGKILL)
    assert (left / "features").exists()
    with scratch_folder("skte-test-") as mine:
        assert sorted(place.iterdir()) == sorted([kept, mine])
    end(living, None)
    assert list(place.iterdir()) == []


def test_other_folders_files_and_links_are_left_alone(place):
    (place / "skte-other-a").mkdir()
    (place / "skte-test-file").touch()
    (place / "elsewhere").mkdir()
    (place / "skte-test-link").symlink_to(place / "elsewhere")
    before = sorted(place.iterdir())
    with scratch_folder("skte-test-"):
        pass
    assert sorted(place.iterdir()) == before


def test_without_locks_the_age_of_folders_decides(place, monkeypatch):
    monkeypatch.setattr("skte._files.fcntl", None)
    old, young = place / "skte-test-old", place / "skte-test-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (1, 1))
    with scratch_folder("skte-test-") as mine:
        assert sorted(place.iterdir()) == sorted([young, mine])


def test_folders_go_after_an_error_too(place):
    def use():
        with scratch_folder("skte-test-") as folder:
            (folder / "a").touch()
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_a_race_leaves_nothing_and_sweeps_what_a_killed_one_left(place):
    left = Path(tempfile.mkdtemp(prefix="skte-race-"))
    (left / "features").write_text("x")
    bank = {name: small_unet(widths=(2, 4)) for name in "ab"}
    HalvingModelBankSelector(CCFV(), min_cases=3).fit(bank, make_phantoms(4, size=(16, 16, 16)))
    assert list(place.glob("skte-*")) == []
