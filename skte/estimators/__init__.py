"""The mathematics: one estimator a file, one number per model. Higher is better."""

from skte.estimators._base import TransferabilityEstimator
from skte.estimators._ccfv import CCFV
from skte.estimators._cross_case_probe import CrossCaseProbe
from skte.estimators._cross_case_probe import cross_case_probe as cross_case_probe
from skte.estimators._diagnosis import Diagnosis as Diagnosis
from skte.estimators._ensemble import Ensemble
from skte.estimators._evidence import logme_evidence as logme_evidence
from skte.estimators._gbc import GBC
from skte.estimators._gbc import bhattacharyya_distances as bhattacharyya_distances
from skte.estimators._hscore import HScore
from skte.estimators._hscore import h_score as h_score
from skte.estimators._knn import KNN
from skte.estimators._leep import LEEP
from skte.estimators._leep import leep_score as leep_score
from skte.estimators._logme import LogME
from skte.estimators._nce import NCE
from skte.estimators._nce import nce_score as nce_score
from skte.estimators._nleep import NLEEP
from skte.estimators._nleep import nleep_score as nleep_score
from skte.estimators._parc import PARC
from skte.estimators._parc import parc_score as parc_score
from skte.estimators._rankme import RankMe
from skte.estimators._rankme import rankme_score as rankme_score
from skte.estimators._rcfv import RCFV
from skte.estimators._sfda import SFDA
from skte.estimators._sfda import sfda_score as sfda_score
from skte.estimators._transrate import TransRate
from skte.estimators._transrate import transrate_score as transrate_score

# The plain functions are public too; the suites iterate over the estimators named here.
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
