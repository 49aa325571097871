"""Plain-text tables for the shell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["format_table"]


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
    texts = [list(header), *([_text(cell) for cell in row] for row in table)]
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


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
