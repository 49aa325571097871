"""Tables: plain text for the shell, HTML for notebooks."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from html import escape

from skte._text import clean_name, clean_text

__all__ = ["format_html_table", "format_table", "format_wrapped_table"]

_NARROW, _WIDE = 80, 160  # columns that a wrapped table takes at least and at most


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Align columns: numbers to the right, text to the left.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : iterable of sequence
        Cells; floats are shown with four significant digits.

    Returns
    -------
    str
        Lines without a final newline.

    Examples
    --------
    >>> print(format_table(["name", "score"], [["a", 0.5], ["long", -12.25]]))
    name   score
    a        0.5
    long  -12.25
    """
    table = [list(row) for row in rows]
    texts = [[_text(name) for name in header], *([_text(cell) for cell in row] for row in table)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    right = [
        bool(table) and all(isinstance(row[i], (int, float)) for row in table)
        for i in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in texts
    )


def format_wrapped_table(header: Sequence[str], rows: Iterable[tuple[str, str, str]]) -> str:
    """Lay out a name and two texts, the second shorter, in the width of the terminal.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : iterable of (str, str, str)
        Cells.

    Returns
    -------
    str
        Lines without a final newline.

    Examples
    --------
    >>> print(format_wrapped_table(["case", "problem", "what to do"], [("a", "NaN", "mend it")]))
    case  problem  what to do
    a     NaN      mend it
    """
    table = [(_text(name), clean_text(what), clean_text(do)) for name, what, do in rows]
    width = min(max(shutil.get_terminal_size((120, 24)).columns, _NARROW), _WIDE)
    first = min(max((len(row[0]) for row in table), default=1), width // 4)
    rest = width - first - 4
    sizes = (first, rest - rest // 3, rest // 3)
    lines: list[list[str]] = []
    for row in table:
        cells = [textwrap.wrap(text, size) or [""] for text, size in zip(row, sizes, strict=True)]
        height = max(map(len, cells))
        lines += [[cell[i] if i < len(cell) else "" for cell in cells] for i in range(height)]
    return format_table(header, lines)


def format_html_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = ""
) -> str:
    """Lay out a table as HTML; whatever names hold is shown as text.

    Parameters
    ----------
    header : sequence of str
        Names of the columns.
    rows : iterable of sequence
        Cells; floats are shown with four significant digits.
    caption : str, default=""
        Above the table.

    Returns
    -------
    str
        The markup.

    Examples
    --------
    >>> format_html_table(["name"], [["a<b"]])
    '<table><thead><tr><th>name</th></tr></thead><tbody><tr><td>a&lt;b</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(_text(name))}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    above = f"<caption>{escape(_text(caption))}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else clean_name(cell)
