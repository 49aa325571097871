"""Text that leaves skte is one clean line, whatever it came from."""

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from skte._text import (  # serve every room
    clean_cell,
    clean_text,
    complain,
    name_problem,
    read_cell,
    say,
)


@given(st.text(max_size=3000))
def test_text_is_one_bounded_line_without_control_characters(text):
    cleaned = clean_text(text, longest=200)
    assert len(cleaned) <= 200
    categories = {unicodedata.category(character) for character in cleaned}
    assert not categories & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    cleaned.encode("utf-8")


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), max_size=100))
def test_printable_text_is_left_as_it_is(text):
    assert clean_text(text) == text


def test_bidirectional_controls_are_shown_not_obeyed():
    assert clean_text("a\u202eb") == "a\\u202eb"


def test_megabytes_keep_their_ends():
    cleaned = clean_text("begin " + "x" * 4_000_000 + " end", longest=100)
    assert cleaned.startswith("begin")
    assert cleaned.endswith("end")
    assert len(cleaned) <= 100


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\r=", "\n@", "\uff1d"])
def test_no_cell_begins_a_formula(start):
    assert clean_cell(f"{start}1+1").startswith("'")


@pytest.mark.parametrize("value", [-0.5, -1, float("-inf"), "a-b", "x=1"])
def test_numbers_and_plain_text_are_no_formulas(value):
    assert clean_cell(value) == str(value)


@given(st.text(max_size=200))
def test_a_name_is_found_again_in_a_csv_file(name):
    assume(not name_problem(name))
    assert read_cell(clean_cell(name)) == name


@pytest.mark.parametrize("name", ["=1", "'=1", "''=1", "'a", "- x", "\uff1da"])
def test_apostrophes_are_taken_off_as_they_were_put(name):
    assert read_cell(clean_cell(name)) == name


def test_further_lines_of_a_message_are_indented(capsys):
    complain("error", "first\nskte: error: forged\r\x1b[2K")
    assert capsys.readouterr().err == "skte: error: first\n  skte: error: forged\\r\\x1b[2K\n"


def test_a_message_of_many_lines_is_cut(capsys):
    complain("error", "\n".join(map(str, range(10_000))))
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) < 300
    assert shown[-1] == "  ... and 9799 more lines"


def test_a_terminal_without_the_letter_shows_its_escape(tmp_path):
    with (tmp_path / "ascii.txt").open("w", encoding="ascii") as file:
        say("score -∞", file=file)
    assert (tmp_path / "ascii.txt").read_text() == "score -\\u221e\n"
