"""What all plots share: colours, markers, axes without pyplot, names as plain text."""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = ["COLORS", "MARKERS", "new_axes", "plot_name"]

#: Okabe and Ito's colours, which the colour-blind can tell apart, without the light ones
#: that vanish on white; ordered so that neighbours also differ in grey.
COLORS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00")
#: With every colour a shape, for print in grey.
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P")


def new_axes(width: float, height: float) -> Any:
    """Return the axes of a new figure.

    Parameters
    ----------
    width, height : float
        In inches.

    Returns
    -------
    matplotlib Axes
        Of a figure that pyplot does not know: nothing global, nothing to close.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()


def plot_name(name: object, length: int = 36) -> str:
    """Return a name as a plot can hold it.

    Parameters
    ----------
    name : object
        From a file, so it may hold anything.
    length : int, default=36
        Longer names lose their middle, where names of models differ least.

    Returns
    -------
    str
        One line; dollar signs are no formulas, control characters are replaced.

    Examples
    --------
    >>> plot_name("a" * 20 + "b" * 20, 11)
    'aaaaa…bbbbb'
    """
    text = "".join("\N{REPLACEMENT CHARACTER}" if _unprintable(c) else c for c in str(name))
    if len(text) > length:
        half = (length - 1) // 2
        text = f"{text[: length - 1 - half]}…{text[-half:]}"
    return text.replace("$", r"\$")


def _unprintable(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
