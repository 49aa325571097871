"""The mathematics: one estimator a file, one number per model. Higher is better."""

from skte.estimators._base import TransferabilityEstimator
from skte.estimators._ccfv import CCFV
from skte.estimators._diagnosis import Diagnosis as Diagnosis
from skte.estimators._evidence import logme_evidence as logme_evidence
from skte.estimators._gbc import GBC
from skte.estimators._gbc import bhattacharyya_distances as bhattacharyya_distances
from skte.estimators._leep import LEEP
from skte.estimators._leep import leep_score as leep_score
from skte.estimators._logme import LogME
from skte.estimators._transrate import TransRate
from skte.estimators._transrate import transrate_score as transrate_score

# The plain functions are public too; the suites iterate over the estimators named here.
__all__ = ["CCFV", "GBC", "LEEP", "LogME", "TransRate", "TransferabilityEstimator"]
