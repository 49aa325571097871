"""Errors and warnings that skte raises, so that callers can catch them by kind.

Every error is also a `ValueError`, so code that follows scikit-learn's habits
keeps working. Messages name the case, entry, layer or parameter and the remedy.
"""

from typing import Any

from skte._text import clean_lines

__all__ = [
    "BankError",
    "CollapsedFeaturesWarning",
    "DatasetError",
    "ExtractionError",
    "GuessedLayersWarning",
    "SaturatedScoreWarning",
    "SkteError",
    "SkteWarning",
    "UnusableClassWarning",
]


class SkteError(ValueError):
    """Base class of all errors raised by skte.

    Messages quote file names, names of layers and errors of others; printed, they hold no
    control or text-reordering characters, whatever was quoted.
    """

    def __str__(self) -> str:
        """Return the message, cleaned."""
        return clean_lines(super().__str__())


class DatasetError(SkteError):
    """A dataset, case or label map cannot be used; the message names it.

    Attributes
    ----------
    problems : tuple of skte.datasets.Problem
        What is wrong, one by one, where several things may be.
    """

    def __init__(self, message: str = "", *, problems: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class BankError(SkteError):
    """A model bank, manifest or entry cannot be used; the message names it."""


class ExtractionError(SkteError):
    """Features of one entry on one case could not be extracted."""


class SkteWarning(UserWarning):
    """Base class of all warnings raised by skte; cleaned as errors are."""

    def __str__(self) -> str:
        """Return the message, cleaned."""
        return clean_lines(super().__str__())


class CollapsedFeaturesWarning(SkteWarning):
    """Features of a layer coincide, so its score says little or is ``-inf``."""


class GuessedLayersWarning(SkteWarning):
    """Layers were found that may not be maps of the image; what was read may mean nothing."""


class SaturatedScoreWarning(SkteWarning):
    """A score sits at the end of its range, where models can no longer be told apart."""


class UnusableClassWarning(SkteWarning):
    """A class or case has too few voxels and is left out of a score."""
