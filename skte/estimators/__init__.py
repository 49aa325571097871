"""The mathematics: one estimator per file, one number per model. Higher is better."""

from __future__ import annotations

from typing import Any

from skte._registry import RECOMMENDED, load_plugins
from skte.estimators._base import Diagnosis as Diagnosis
from skte.estimators._base import EstimatorTags as EstimatorTags
from skte.estimators._base import TransferabilityEstimator
from skte.estimators._ccfv import CCFV
from skte.estimators._cross_case_probe import CrossCaseProbe
from skte.estimators._ensemble import Ensemble
from skte.estimators._gbc import GBC
from skte.estimators._hscore import HScore
from skte.estimators._knn import KNN
from skte.estimators._leep import LEEP
from skte.estimators._logme import LogME
from skte.estimators._nce import NCE
from skte.estimators._nleep import NLEEP
from skte.estimators._parc import PARC
from skte.estimators._rankme import RankMe
from skte.estimators._rcfv import RCFV
from skte.estimators._sfda import SFDA
from skte.estimators._transrate import TransRate

# The registry: `all_estimators` and the suites iterate over the estimators named here.
__all__ = [
    "CCFV",
    "CrossCaseProbe",
    "Ensemble",
    "GBC",
    "HScore",
    "KNN",
    "LEEP",
    "LogME",
    "NCE",
    "NLEEP",
    "PARC",
    "RCFV",
    "RankMe",
    "SFDA",
    "TransRate",
    "TransferabilityEstimator",
]


def all_estimators() -> dict[str, type[TransferabilityEstimator]]:
    """Return every estimator by its name in lower case: those of skte, then third parties'.

    Other packages add theirs by an entry point of the group ``skte.estimators``, whose name
    in lower case is the key and whose object is a subclass of `TransferabilityEstimator`.

    Returns
    -------
    dict of str to type
        In alphabetical order within skte and within the entry points.

    Warns
    -----
    SkteWarning
        For each entry point that cannot be imported, is not a `TransferabilityEstimator`, or
        has the name of another estimator. It is left out; the others are not affected.

    Examples
    --------
    >>> from skte.estimators import all_estimators
    >>> all_estimators()["logme"].__name__
    'LogME'

    An entry point in the ``pyproject.toml`` of another package::

        [project.entry-points."skte.estimators"]
        meangap = "my_package:MeanGap"
    """
    return load_plugins("skte.estimators", _own(), _name_of)


def recommended_estimators() -> dict[str, TransferabilityEstimator]:
    """Return the estimators that rank a bank where none are given; the first one decides.

    On the banks of the evidence page, `CrossCaseProbe` orders models best among the scores of
    features. Where `LogME`, `HScore` and `KNN` disagree with it, its order is worth less.

    Returns
    -------
    dict of str to TransferabilityEstimator
        New instances by their names in `all_estimators`.

    Examples
    --------
    >>> from skte.estimators import recommended_estimators
    >>> list(recommended_estimators())
    ['crosscaseprobe', 'logme', 'hscore', 'knn']
    """
    own = _own()
    return {name: own[name]() for name in RECOMMENDED}


def _own() -> dict[str, type[TransferabilityEstimator]]:
    """Return the estimators of skte itself."""
    return {name.lower(): globals()[name] for name in __all__ if name != "TransferabilityEstimator"}


def _name_of(point: str, estimator: Any) -> str:
    if not (isinstance(estimator, type) and issubclass(estimator, TransferabilityEstimator)):
        raise TypeError(f"{estimator!r} is not a subclass of TransferabilityEstimator")
    if getattr(estimator._score_block, "__isabstractmethod__", False):
        raise TypeError(f"{estimator!r} does not implement _score_block")
    return point.lower()
