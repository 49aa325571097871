"""Text of unknown origin made safe for terminals, tables, logs and pages.

All that skte prints passes through `say`, `say_json` or `complain`; all that it logs from the
command line through `CleanFormatter`; every cell of a table, a page or a CSV file through
`clean_text` or `clean_cell`. What a *model* prints is the model's, and goes to stderr as it is.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

# Control characters, line and paragraph separators, surrogates, and the format characters
# that reorder or hide text: bidirectional controls, zero-width characters, tags.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST = 2_000
_LONGEST_LINE = 20_000  # of a table: hundreds of columns
_MOST_LINES = 200  # of one message
_LONGEST_NAME = 500
_MOST_KNOWN = 20
_MOST_COMPARED, _LONGEST_COMPARED = 500, 100
_PADDING = re.compile(r"(?<!\d)0+(?=\d)")  # case_1 and case_001
# What spreadsheet programs take for the beginning of a formula, full-width forms included.
# Apostrophes before it count as well, so that taking one away is the exact inverse.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def clean_text(value: object, longest: int = _LONGEST) -> str:
    """Return text on one line of at most `longest` characters, unsafe ones as escapes."""
    text = str(value)
    if len(text) > 2 * longest:  # cleaning megabytes takes time, and most would be cut
        text = f"{text[:longest]}\n{text[-longest:]}"
        cut = True
    else:
        cut = False
    text = " ".join(text.split())
    if not text.isascii() or not text.isprintable():
        text = "".join(map(_safe, text))
    if cut or len(text) > longest:
        half = (longest - 5) // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text


def clean_lines(value: object, longest: int = _LONGEST_LINE) -> str:
    """Return lines with their spaces; only a newline breaks them, unsafe characters are escapes."""
    # Foreign text in them is cleaned by `clean_text` first, so that it cannot begin a line.
    text = str(value)
    if text.isascii() and text.isprintable() and len(text) <= longest:
        return text
    return "\n".join(_clean_line(line, longest) for line in text.split("\n"))


def clean_name(value: object) -> str:
    """Return a name as a table can hold it: on one line, with line breaks as escapes."""
    return _clean_line(str(value), _LONGEST_NAME)


def clean_cell(value: object) -> str:
    """Return text for a CSV cell, behind an apostrophe where a formula would begin."""
    if not isinstance(value, str):
        return clean_text(value)
    # Spaces stay as they are: a name must be found again.
    text = _clean_line(" ".join(re.split(r"[\r\n]+", value)), _LONGEST)
    return f"'{text}" if _FORMULA.match(text) else text


def read_cell(text: str) -> str:
    """Return the text that `clean_cell` put behind an apostrophe."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def name_problem(name: str) -> str:
    """Return why text cannot name a model or case, empty if it can: tables show names exactly."""
    if len(name) > _LONGEST_NAME:
        return f"is longer than {_LONGEST_NAME} characters"
    if any(unicodedata.category(character) in _UNSAFE for character in name):
        return "holds control, invisible or text-reordering characters"
    return ""


def did_you_mean(word: object, known: Iterable[str], *, listed: bool = True) -> str:
    """Return "did you mean 'ccfv'?", what is known where `listed` and nothing is near, or ""."""
    words = list(known)
    # Comparing takes the product of the lengths, and a file may hold names made for that.
    short = [one for one in words[:_MOST_COMPARED] if len(one) <= _LONGEST_COMPARED]
    text = str(word)[:_LONGEST_COMPARED]
    padded = [one for one in short if _PADDING.sub("", one) == _PADDING.sub("", text)]
    near = padded[:3] or difflib.get_close_matches(text, short, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    if not listed:
        return ""
    more = f" and {len(words) - _MOST_KNOWN} more" if len(words) > _MOST_KNOWN else ""
    return f"known: {', '.join(words[:_MOST_KNOWN]) or 'none'}{more}"


def say(
    text: object = "",
    *,
    file: TextIO | None = None,
    begin: str = "",
    end: str = "\n",
    flush: bool = False,
) -> None:
    """Print clean lines, between `begin` and `end` as they are: all that skte prints."""
    stream = sys.stdout if file is None else file
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # A terminal that lacks a letter shows its escape instead of ending the run.
    shown = clean_lines(text).encode(encoding, "backslashreplace").decode(encoding)
    print(f"{begin}{shown}", end=end, file=stream, flush=flush)


def say_json(value: Any, *, indent: int = 1) -> None:
    """Print JSON in ASCII; its own escapes leave no character to clean."""
    print(json.dumps(value, indent=indent))


def complain(kind: str, text: object) -> None:
    """Print an error, warning or problem to stderr, further lines indented against forgery."""
    first, *more = clean_lines(text, _LONGEST).split("\n")
    lines = [f"skte: {kind}: {first}" if kind else f"skte: {first}"]
    lines += [f"  {line}" for line in more[:_MOST_LINES]]
    if len(more) > _MOST_LINES:
        lines.append(f"  ... and {len(more) - _MOST_LINES} more lines")
    say("\n".join(lines), file=sys.stderr)


class CleanFormatter(logging.Formatter):
    """Log records on one clean, bounded line each."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, cleaned."""
        return clean_text(super().format(record))


def _clean_line(line: str, longest: int) -> str:
    if len(line) > longest:
        half = (longest - 5) // 2
        line = f"{line[:half]} ... {line[-half:]}"
    if line.isascii() and line.isprintable():
        return line
    return "".join(map(_safe, line.replace("\t", " ")))


def _safe(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")
