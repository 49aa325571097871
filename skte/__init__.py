"""Rank pre-trained segmentation networks for a new dataset without fine-tuning them."""

# First: until it has run, ``python -m skte`` imports from the current folder.
from skte import _process  # noqa: F401, I001

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skte._memory import memory_limit

if TYPE_CHECKING:
    from skte import datasets
    from skte.bank import BankEntry, ModelBank
    from skte.estimators import (
        CCFV,
        GBC,
        KNN,
        LEEP,
        NCE,
        NLEEP,
        PARC,
        RCFV,
        SFDA,
        CrossCaseProbe,
        Ensemble,
        HScore,
        LogME,
        RankMe,
        TransferabilityEstimator,
        TransRate,
    )
    from skte.extraction import SegmentationFeatureExtractor
    from skte.features import FeatureBlock, FeatureSet
    from skte.metrics import weighted_kendall_score
    from skte.selection import ModelBankSelector

__version__ = "0.2.0"

__all__ = [
    "BankEntry",
    "CCFV",
    "CrossCaseProbe",
    "Ensemble",
    "FeatureBlock",
    "FeatureSet",
    "GBC",
    "HScore",
    "KNN",
    "LEEP",
    "LogME",
    "ModelBank",
    "ModelBankSelector",
    "NCE",
    "NLEEP",
    "PARC",
    "RCFV",
    "RankMe",
    "SFDA",
    "SegmentationFeatureExtractor",
    "TransRate",
    "TransferabilityEstimator",
    "__version__",
    "datasets",
    "memory_limit",
    "weighted_kendall_score",
]

_ROOMS = (
    "bank", "cli", "datasets", "demo", "estimators", "evaluation", "exceptions", "extraction",
    "features", "metrics", "report", "selection",
)  # fmt: skip
#: Where names of ``__all__`` come from; the others are estimators.
_ORIGINS = {
    "BankEntry": "bank",
    "FeatureBlock": "features",
    "FeatureSet": "features",
    "ModelBank": "bank",
    "ModelBankSelector": "selection",
    "SegmentationFeatureExtractor": "extraction",
    "weighted_kendall_score": "metrics",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch and scikit-learn take seconds, and no help needs them."""
    if name in _ROOMS:
        return import_module(f"skte.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'skte' has no attribute {name!r}")
    value = getattr(import_module(f"skte.{_ORIGINS.get(name, 'estimators')}"), name)
    globals()[name] = value  # and not again
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
