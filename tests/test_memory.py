"""What a file may take is known before it is read."""

import os

import pytest

from skte import memory_limit
from skte._memory import free_memory, memory_problem, parse_bytes  # serve every room
from skte.exceptions import SkteError

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("1", 1), (7, 7), ("2k", 2048), ("1.5 MB", 3 * MIB // 2), ("8GiB", 8 * 2**30), ("1T", 2**40)],
)
def test_sizes_are_read_in_powers_of_1024(text, n_bytes):
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "8 gigs", "GB"])
def test_other_text_is_refused_by_name(text):
    with pytest.raises(SkteError, match="not a size in bytes"):
        parse_bytes(text)


def test_small_files_may_take_the_floor_and_no_more():
    assert memory_problem(200 * MIB, 400) is None
    assert "may take" in memory_problem(300 * MIB, 400)


def test_larger_files_may_take_more_in_proportion():
    assert memory_problem(300 * MIB, 10 * MIB) is None
    assert "500 MiB" in memory_problem(501 * MIB, 10 * MIB)


def test_nothing_may_take_all_that_is_free():
    assert "free" in memory_problem(2 * free_memory(), 2 * free_memory())
    assert "free" in memory_problem(2 * free_memory())


def test_a_limit_that_is_set_replaces_the_rule_and_ends_with_its_block():
    before = dict(os.environ)
    with memory_limit("1GB"):
        assert memory_problem(1000 * MIB, 400) is None
        assert "limit that was set" in memory_problem(1025 * MIB, 400)
        with memory_limit(None):
            assert memory_problem(1000 * MIB, 400) is None
        with memory_limit(10):
            assert "would take 11 bytes of memory, more than 10 bytes" in memory_problem(11, 1)
    assert dict(os.environ) == before
