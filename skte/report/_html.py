"""Parts of a page: tables that scroll and sort, pictures, sections."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from skte._table import Html, element, html_table

_LONG = 8  # characters from which text keeps a width of its own on narrow screens
_NAME_WIDTH = 30  # digits that fit beside each other in the first column, on wide screens


class Cell(NamedTuple):
    """Text of a table, and the number that sorts it."""

    text: str
    order: float
    weight: float = 0.0  # from 0 to 1, how strongly it is tinted


def number(value: float) -> str:
    """Return a number as people read it: four digits, and words where it is not finite."""
    if math.isnan(value):
        return "failed"
    if math.isinf(value):
        return "-∞ (collapsed)" if value < 0 else "∞"
    return f"{value:.4g}"


def table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str, sortable: bool = False
) -> Html:
    """Return a table that scrolls by itself where it is too wide."""
    body: list[list[Html]] = []
    longest = 0
    first: list[Html] = [Html("")] * len(header)
    for row in rows:
        named, cells = False, []
        for value in row:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                shown = number(value) if isinstance(value, float) else str(value)
                order = "-1e999" if isinstance(value, float) and math.isnan(value) else repr(value)
                cells.append(element("td", shown, class_="n", data_sort=order))
            elif isinstance(value, Cell):
                order = repr(value.order).replace("inf", "1e999")
                tint = f"--tint-share:{30 * value.weight:.0f}%" if value.weight else None
                cells.append(element("td", value.text, class_="n", data_sort=order, style=tint))
            elif named or isinstance(value, Html):
                is_long = not isinstance(value, Html) and len(str(value)) > _LONG
                cells.append(element("td", value, class_="text" if is_long else None))
            else:
                cells.append(element("th", value, scope="row"))
                named, longest = True, max(longest, len(str(value)))
        first = first if body else cells
        body.append(cells)
    # Headings stand above their numbers.
    right = ['class="n"' in str(cell) for cell in first]
    heads = [
        element("th", name, scope="col", class_="n" if to_right else None)
        for name, to_right in zip(header, right, strict=True)
    ]
    whole = html_table(
        heads,
        body,
        caption,
        class_="sortable" if sortable else None,
        # Long names may break anywhere, and would then take a line for every few letters.
        style=f"--name:{min(longest, _NAME_WIDTH)}ch",
    )
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def picture(figure: Any, alt: str, caption: str, *, kind: str = "svg", narrow: Any = None) -> Html:
    """Return a matplotlib figure as an image inside the page, with another for narrow windows."""
    wide = _image(figure, alt, kind, "wide" if narrow else None)
    images = [wide, _image(narrow, alt, kind, "narrow")] if narrow else [wide]
    return element("figure", images, element("figcaption", caption))


def _image(figure: Any, alt: str, kind: str, shown: str | None) -> Html:
    import matplotlib as mpl

    buffer = io.BytesIO()
    options: Any = {"svg.fonttype": "none", "svg.hashsalt": "skte", "font.family": "sans-serif"}
    with mpl.rc_context(options), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has the font
        if kind == "svg":
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        else:
            figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    width = round(figure.get_size_inches()[0] * 96)
    source = Html(f"data:{mime};base64,{data}")
    return element("img", src=source, alt=alt, width=width, class_=shown)


def section(key: str, title: str, *children: object) -> Html:
    """Return a part of the page with a heading that links lead to."""
    heading = element("h2", title, id=f"{key}-title")
    return element("section", heading, children, id=key, aria_labelledby=f"{key}-title")
