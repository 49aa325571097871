"""What file headers tell to be wrong with a dataset."""

from __future__ import annotations

from skte.datasets._checks import find_problems
from skte.datasets._load import DatasetLike, as_subjects

__all__ = ["check_dataset"]


def check_dataset(dataset: DatasetLike) -> list[str]:
    """Look for problems of all cases in file headers; no volume is loaded.

    Finds repeated case ids, missing or several label maps, missing files, files that
    cannot be opened, images and labels of different shape or affine, labels with
    several channels, and cases that differ in their number of channels. What lies in
    the values (NaN, empty labels, truncated files) is found by `read_case`.

    Parameters
    ----------
    dataset : list of Subject, SubjectsDataset, list of dict, or path
        Subjects are taken as they are, all else as `load_dataset` takes it.

    Returns
    -------
    list of str
        One sentence a problem, naming the case and the remedy. Empty: none found.

    Raises
    ------
    DatasetError
        If it is no dataset, or cannot be loaded at all.

    See Also
    --------
    read_case : Loads one case and checks its values.

    Examples
    --------
    >>> from skte.datasets import check_dataset, make_phantoms
    >>> cases = make_phantoms(2, size=(16, 16, 16))
    >>> check_dataset(cases)
    []
    >>> check_dataset([*cases, cases[0]])
    ["Case id 'ellipsoids_000' is used by 2 cases: give every case one of its own."]
    """
    return [str(problem) for problem in find_problems(as_subjects(dataset))]
