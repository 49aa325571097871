"""Whether a ranking or an estimator is any good."""

from skte.evaluation._card import (
    Agreement,
    EvaluationCard,
    WithinArchitecture,
    evaluate_ranking,
    make_bank_scorer,
)
from skte.evaluation._comparison import (
    EstimatorComparison,
    EstimatorPair,
    compare_scores,
)
from skte.evaluation._learning_curve import RankLearningCurve, rank_learning_curve

__all__ = [
    "Agreement",
    "EstimatorComparison",
    "EstimatorPair",
    "EvaluationCard",
    "RankLearningCurve",
    "WithinArchitecture",
    "compare_scores",
    "evaluate_ranking",
    "make_bank_scorer",
    "rank_learning_curve",
]
