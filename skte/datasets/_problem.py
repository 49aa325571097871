"""One thing that is wrong with a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from skte.exceptions import DatasetError

__all__ = ["Flaw", "Problem", "case_problems", "raise_problems"]

#: What is wrong, and what to do.
Flaw = tuple[str, str]


class Problem(NamedTuple):
    """What is wrong, with which case, and what to do.

    Parameters
    ----------
    case_id : str or None
        The case; None: the dataset as a whole.
    what : str
        What is wrong.
    remedy : str
        What to do about it.

    Examples
    --------
    >>> from skte.datasets import Problem
    >>> print(Problem("c1", "it has no label", "add a LabelMap"))
    Case 'c1': it has no label; add a LabelMap.
    """

    case_id: str | None
    what: str
    remedy: str

    def __str__(self) -> str:
        if self.case_id is None:
            return f"{self.what}: {self.remedy}."
        return f"Case {self.case_id!r}: {self.what}; {self.remedy}."


def case_problems(case_id: str | None, flaws: Iterable[Flaw]) -> list[Problem]:
    """Name the case that has these flaws."""
    return [Problem(case_id, what, remedy) for what, remedy in flaws]


def raise_problems(title: str, problems: Sequence[Problem]) -> None:
    """Raise one `DatasetError` that lists all problems and carries them, if there are any."""
    if problems:
        lines = "\n- ".join(map(str, problems))
        raise DatasetError(f"{title}:\n- {lines}", problems=tuple(problems))
