"""Ranking a bank."""

from skte.selection._answer import Answer
from skte.selection._confidence import BankConfidence
from skte.selection._datasets import DatasetRanks, rank_datasets
from skte.selection._engine import Engine as Engine
from skte.selection._engine import extractor_for
from skte.selection._halving import HalvingModelBankSelector
from skte.selection._ranking import Ranking, Results
from skte.selection._reference import Reference
from skte.selection._selector import ModelBankSelector

__all__ = [
    "Answer",
    "BankConfidence",
    "DatasetRanks",
    "HalvingModelBankSelector",
    "ModelBankSelector",
    "Ranking",
    "Reference",
    "Results",
    "extractor_for",
    "rank_datasets",
]
