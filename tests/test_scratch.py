"""Temporary folders: gone at the end, and swept where their process was killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from skte import CCFV
from skte._files import scratch_folder
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.selection import HalvingModelBankSelector

HOLD = """
import sys
from skte._files import scratch_folder
with scratch_folder("skte-test-") as folder:
    (folder / "features").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
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


@pytest.mark.slow
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


def test_without_locks_the_age_tells(place, monkeypatch):
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


def test_a_race_leaves_nothing_and_sweeps_what_a_killed_one_left(place):
    left = Path(tempfile.mkdtemp(prefix="skte-race-"))
    (left / "features").write_text("x")
    bank = {name: small_unet(widths=(2, 4)) for name in "ab"}
    HalvingModelBankSelector(CCFV(), min_cases=3).fit(bank, make_phantoms(4, size=(16, 16, 16)))
    assert list(place.glob("skte-*")) == []
