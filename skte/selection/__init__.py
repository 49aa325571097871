"""Ranking a bank."""

from skte.selection._answer import Answer
from skte.selection._confidence import BankConfidence
from skte.selection._datasets import DatasetRanks, rank_datasets
from skte.selection._engine import Engine, extractor_for
from skte.selection._halving import HalvingModelBankSelector
from skte.selection._ranking import Ranking, Results
from skte.selection._reference import Reference
from skte.selection._selector import ModelBankSelector
from skte.selection._workers import ModelRecord

__all__ = [
    "Answer",
    "BankConfidence",
    "DatasetRanks",
    "Engine",
    "HalvingModelBankSelector",
    "ModelBankSelector",
    "ModelRecord",
    "Ranking",
    "Reference",
    "Results",
    "extractor_for",
    "rank_datasets",
]
