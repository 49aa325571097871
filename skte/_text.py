"""Text of unknown origin made safe for terminals, tables, logs and pages."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["clean_cell", "clean_text"]

# Control characters, line and paragraph separators, surrogates, and the format characters
# that reorder or hide text: bidirectional controls, zero-width characters, tags.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_LONGEST = 2_000
# What spreadsheet programs take for the beginning of a formula, full-width forms included.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def clean_text(value: object, longest: int = _LONGEST) -> str:
    r"""Return text on one line, without control or bidirectional characters, bounded.

    Every message, name and reason that leaves skte for a terminal, a file or a page passes
    through here: a checkpoint's file name may hold escape sequences, and an error may quote
    megabytes.

    Parameters
    ----------
    value : object
        Anything; its ``str`` is taken.
    longest : int, default=2000
        Characters kept; the middle of longer text is left out.

    Returns
    -------
    str
        White space is single spaces; other unsafe characters appear as escapes.

    Examples
    --------
    >>> clean_text("model\x1b[2K\nrank 1")
    'model\\x1b[2K rank 1'
    """
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


def clean_cell(value: object) -> str:
    """Return text for a cell of a CSV file, which no spreadsheet takes for a formula.

    Parameters
    ----------
    value : object
        Anything; numbers keep their sign.

    Returns
    -------
    str
        As `clean_text`; behind an apostrophe where a formula would begin.

    Examples
    --------
    >>> clean_cell("=HYPERLINK(...)"), clean_cell(-0.5)
    ("'=HYPERLINK(...)", '-0.5')
    """
    text = clean_text(value)
    if not isinstance(value, str) or not _FORMULA.match(text):
        return text
    return f"'{text}"


def _safe(character: str) -> str:
    if unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")
