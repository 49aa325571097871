"""A part of the benchmark's image bombs, lies and paths, each in its own process."""

import sys

import pytest

if sys.platform != "linux":
    pytest.skip("limits of memory as Linux has them", allow_module_level=True)

pytest.importorskip("benchmarks", reason="not part of a source distribution")
from benchmarks.reliability._images import ATTACKS, HONEST, try_one_image

# Of every kind its first: the benchmark itself tries all.
SHORT = [key for key in ATTACKS if key[0] == "paths"][::4] + [
    key for key in ATTACKS if "(image, 0," in key[1]
][::2]


@pytest.mark.slow
@pytest.mark.parametrize(("door", "name"), SHORT)
def test_hostile_files_end_in_a_named_error(door, name):
    problem, _, _ = try_one_image(door, name)
    # Seconds are the benchmark's: no test is decided by a clock.
    assert not problem or (problem.startswith("took") and problem.endswith(" s"))


@pytest.mark.slow
@pytest.mark.parametrize("name", HONEST)
def test_sound_files_of_the_same_kinds_load(name):
    assert try_one_image("honest", name)[0] == ""
