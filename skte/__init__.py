"""Rank pre-trained segmentation networks for a new dataset without fine-tuning them."""

from skte import datasets
from skte.bank import BankEntry, ModelBank
from skte.estimators import CCFV, GBC, LEEP, LogME, TransferabilityEstimator, TransRate
from skte.extraction import SegmentationFeatureExtractor
from skte.features import FeatureBlock, FeatureSet

__version__ = "0.1.0"
