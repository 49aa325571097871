"""Rank pre-trained segmentation networks for a new dataset without fine-tuning them."""

# First: until it has run, ``python -m skte`` imports from the current folder.
from skte import _process  # noqa: F401, I001
from skte import datasets
from skte._memory import memory_limit
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
