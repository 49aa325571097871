"""Tables: plain text for the shell, HTML for notebooks and pages, in which text is escaped."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from html import escape

from skte._text import clean_lines, clean_name, clean_text

NONE = "-"  # rank and score of a model that failed
_VOID = {"img", "input", "meta"}
_LONGEST = 2_000  # characters of a line of a page
_NARROW, _WIDE = 80, 160  # columns that a wrapped table takes at least and at most


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Align columns: numbers to the right, text to the left."""
    table = [list(row) for row in rows]
    texts = [[_text(name) for name in header], *([_text(cell) for cell in row] for row in table)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    right = [_is_numeric([row[i] for row in table]) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in texts
    )


def format_wrapped_table(header: Sequence[str], rows: Iterable[tuple[str, str, str]]) -> str:
    """Lay out a name and two texts in the width of the terminal, the second text narrower."""
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
) -> Html:
    """Lay out a table for notebooks, with floats as in `format_table`."""
    return html_table(
        [element("th", _text(name)) for name in header],
        [[element("td", _text(cell)) for cell in row] for row in rows],
        _text(caption),
    )


class Html(str):
    """Markup: the one kind of text that `element` does not escape."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element; children other than `Html` are escaped, and so are attributes."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{''.join(_lay_out(children))}</{name}>")


def html_table(
    heads: Sequence[Html], rows: Iterable[Sequence[Html]], caption: str, **attributes: object
) -> Html:
    """Return a table of ready cells; an empty caption is left out."""
    return element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", element("tr", list(heads))),
        element("tbody", [element("tr", list(row)) for row in rows]),
        **attributes,
    )


def rank_cell(rank: float) -> int | str:
    """Return a rank as a table shows it; a model that failed has none."""
    return NONE if math.isnan(rank) else int(rank)


def _is_numeric(cells: Sequence[object]) -> bool:
    """Whether a column holds numbers; dashes stand for those that there are not."""
    is_number = [isinstance(cell, (int, float)) for cell in cells]
    return any(is_number) and all(
        known or cell == NONE for known, cell in zip(is_number, cells, strict=True)
    )


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else clean_name(cell)


def _escaped(value: object) -> str:
    if isinstance(value, Html):
        return value
    return escape(clean_lines(value, _LONGEST).replace("\n", " "))


def _lay_out(children: Iterable[object]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Html):
            yield child
        elif isinstance(child, (list, tuple)):
            yield from _lay_out(child)
        elif child is not None:
            yield _escaped(child)
