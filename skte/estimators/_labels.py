"""Labels as class indices: only classes present count, whatever their ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_plain", "encode_labels"]


def as_plain(label: Any) -> Any:
    """Return a label or case as Python's own type; in object arrays they are that already.

    Parameters
    ----------
    label : object
        An element of an array.

    Returns
    -------
    object
        Without numpy's type.
    """
    return label.item() if isinstance(label, np.generic) else label


def encode_labels(y: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.intp]]:
    """Return the distinct labels, sorted, and the index of each row's label.

    Parameters
    ----------
    y : ndarray of shape (n_voxels,)
        Labels of any kind; {0, 2, 7} is as good as {0, 1, 2}.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        The labels present.
    codes : ndarray of shape (n_voxels,)
        ``classes[codes]`` equals `y`.

    Raises
    ------
    ValueError
        If there is one class only: nothing can be told apart.
    """
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"The labels hold one class only ({classes[0]!r}); this score compares "
            "classes and needs at least two. Sample another class, such as background "
            "(samples='all' of the extractor)."
        )
    return classes, codes
