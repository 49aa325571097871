"""Ranking a bank."""

from skte.selection._cases import usable_cases
from skte.selection._confidence import BankConfidence
from skte.selection._halving import HalvingModelBankSelector
from skte.selection._jobs import common_cells
from skte.selection._ranking import Ranking
from skte.selection._resampling import combined_scores
from skte.selection._selector import ModelBankSelector

__all__ = [
    "BankConfidence",
    "HalvingModelBankSelector",
    "ModelBankSelector",
    "Ranking",
    "combined_scores",
    "common_cells",
    "usable_cases",
]
