"""Ranking a bank, and judging a ranking."""

from skte.selection._compare_estimators import compare_estimators, compare_scores
from skte.selection._comparison import EstimatorComparison, EstimatorPair
from skte.selection._confidence import BankConfidence
from skte.selection._correlation import pearson_score, spearman_score
from skte.selection._evaluate_ranking import evaluate_ranking
from skte.selection._evaluation_card import Agreement, EvaluationCard, WithinArchitecture
from skte.selection._halving import HalvingModelBankSelector
from skte.selection._kendall import (
    WeightedKendallResult,
    weighted_kendall_score,
    weighted_kendall_test,
)
from skte.selection._learning_curve import RankLearningCurve, rank_learning_curve
from skte.selection._performance import align_performance
from skte.selection._ranking import Ranking, rank_scores
from skte.selection._regret import regret_at_k, relative_top1
from skte.selection._scorers import (
    BankScorer,
    make_bank_scorer,
    pearson_scorer,
    spearman_scorer,
    weighted_kendall_scorer,
)
from skte.selection._selector import ModelBankSelector

__all__ = [
    "Agreement",
    "BankConfidence",
    "BankScorer",
    "EstimatorComparison",
    "EstimatorPair",
    "EvaluationCard",
    "HalvingModelBankSelector",
    "ModelBankSelector",
    "RankLearningCurve",
    "Ranking",
    "WeightedKendallResult",
    "WithinArchitecture",
    "align_performance",
    "compare_estimators",
    "compare_scores",
    "evaluate_ranking",
    "make_bank_scorer",
    "pearson_score",
    "pearson_scorer",
    "rank_learning_curve",
    "rank_scores",
    "regret_at_k",
    "relative_top1",
    "spearman_score",
    "spearman_scorer",
    "weighted_kendall_score",
    "weighted_kendall_scorer",
    "weighted_kendall_test",
]
