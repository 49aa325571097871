"""What all plots share: colours, markers, axes without pyplot, names as plain text."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, Self

#: Okabe and Ito's colours, which the colour-blind can tell apart, without the light ones
#: that vanish on white; ordered so that neighbours also differ in grey.
COLORS: tuple[str, ...] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00")
#: With every colour a shape, for print in grey.
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P")


#: Of models or cases; more names would be illegible.
MOST_ROWS = 60


class Display(ABC):
    """Base of the plots that have one pair of axes."""

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Self:
        """Draw the plot and return the display; ``ax_`` and ``figure_`` hold what was drawn.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=self._size(), layout="constrained").subplots()
        self._draw(ax)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @abstractmethod
    def _size(self) -> tuple[float, float]:
        """Width and height of a new figure in inches."""

    @abstractmethod
    def _draw(self, ax: Any) -> None:
        """Draw on axes."""


def width_of(texts: Iterable[str]) -> float:
    """Estimate the width in inches of the longest text beside an axis."""
    return 0.085 * max(map(len, texts), default=0)


def plot_name(name: object, length: int = 36) -> str:
    """Return a name as a plot can hold it."""
    return _shorten(_printable(name), length).replace("$", r"\$")


def plot_names(names: Iterable[object], length: int = 36) -> list[str]:
    """Return names as a plot can hold them; of long ones, the part in which they differ."""
    texts = [_printable(name) for name in names]
    long = [text for text in texts if len(text) > length]
    compared = sorted(set(long)) if len(set(long)) > 1 else sorted(set(texts))
    start = _common_start(compared)
    end = _common_start([text[start:][::-1] for text in compared])
    shown = [
        text if len(text) <= length else _differing(text, start, end, length) for text in texts
    ]
    return [_shorten(text, length).replace("$", r"\$") for text in shown]


def _common_start(texts: Sequence[str]) -> int:
    """Count the letters with which all of several texts begin."""
    if len(texts) < 2:
        return 0
    columns = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, columns))


def _differing(text: str, start: int, end: int, length: int) -> str:
    """Return what is between a common start and end, and as much of these as fits."""
    room = max(length - 2 - (len(text) - start - end), 0)
    before = min(start, max(2 * room // 3, room - end))
    after = min(end, room - before)
    first, last = start - before, len(text) - end + after
    return f"{'…' * (first > 0)}{text[first:last]}{'…' * (last < len(text))}"


def _shorten(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[: length - 1 - half]}…{text[-half:]}"


def _printable(name: object) -> str:
    unsafe = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    shown = ("\ufffd" if unicodedata.category(c) in unsafe else c for c in str(name))
    return "".join(shown)
