"""The columns of a selector's results."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from skte._table import Html, format_html_table, format_table
from skte._text import clean_lines

__all__ = ["Results"]

# One number or one word per model; the rest is lists and seconds.
_SHOWN = ("name", "rank", "score")


class Results(dict[str, "NDArray[Any]"]):
    """Columns of equal length by name, one entry per model, that print as a short table.

    It is a dict in every other way: ``pandas.DataFrame(results)`` has all columns.

    Examples
    --------
    >>> import numpy as np
    >>> from skte.selection import Results
    >>> Results(name=np.array(["a"]), score=np.array([0.5]), seconds_load=np.array([1.2]))
    name  score
    a       0.5
    and 1 more column: seconds_load
    """

    def to_frame(self) -> Any:
        """Convert to a pandas DataFrame with all columns.

        Returns
        -------
        pandas.DataFrame
            In bank order.
        """
        import pandas as pd

        return pd.DataFrame(self)

    def __repr__(self) -> str:
        table = format_table(self._shown(), self._rows())
        return clean_lines("\n".join([table, *self._rest()]))

    def _repr_html_(self) -> str:
        rest = "".join(Html(f"<p>{line}</p>") for line in self._rest())
        return f"{format_html_table(self._shown(), self._rows())}{rest}"

    def _shown(self) -> list[str]:
        own = [name for name in self if name.startswith(("score_", "rank_"))]
        return [name for name in (*_SHOWN, *own, "error") if name in self]

    def _rows(self) -> list[list[Any]]:
        columns = [self[name].tolist() for name in self._shown()]
        return [list(row) for row in zip(*columns, strict=True)]

    def _rest(self) -> list[str]:
        rest = [name for name in self if name not in self._shown()]
        if not rest:
            return []
        count = "1 more column" if len(rest) == 1 else f"{len(rest)} more columns"
        return [f"and {count}: {', '.join(rest)}"]
