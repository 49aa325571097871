"""The cases that a bank is ranked on."""

from __future__ import annotations

from skte.datasets import CaseList, DatasetLike, check_dataset, load_dataset
from skte.exceptions import DatasetError

__all__ = ["usable_cases"]


def usable_cases(dataset: DatasetLike, n_needed: int, why: str) -> CaseList:
    """Load a dataset and refuse one that would spoil every model's score.

    Parameters
    ----------
    dataset : list of Subject, SubjectsDataset, list of dict, or path
        The target cases with labels.
    n_needed : int
        Fewest cases that will do.
    why : str
        What needs as many, and what to do; the rest of a sentence.

    Returns
    -------
    CaseList
        The cases.

    Raises
    ------
    DatasetError
        If it cannot be loaded, or with all problems of its cases, too few among them.
    """
    subjects = load_dataset(dataset)
    problems = check_dataset(subjects)
    if len(subjects) < n_needed:
        there = "is 1 case" if len(subjects) == 1 else f"are {len(subjects)} cases"
        problems.append(f"There {there}: {why}")
    if problems:
        raise DatasetError("The dataset cannot be used:\n- " + "\n- ".join(problems))
    return subjects
