"""What a person sees of a ranking: plots and files."""

from skte.report._correlation_display import ScorePerformanceDisplay
from skte.report._evaluation_display import EvaluationDisplay
from skte.report._learning_curve_display import LearningCurveDisplay
from skte.report._ranking_display import RankingDisplay
from skte.report._results_file import results_rows, write_results

__all__ = [
    "EvaluationDisplay",
    "LearningCurveDisplay",
    "RankingDisplay",
    "ScorePerformanceDisplay",
    "results_rows",
    "write_results",
]
