"""What a person sees of a ranking: plots and files."""

from skte.report._case_distance_display import CaseDistanceDisplay
from skte.report._correlation_display import CorrelationDisplay
from skte.report._evaluation_display import EvaluationDisplay
from skte.report._feature_embedding_display import FeatureEmbeddingDisplay
from skte.report._layer_score_display import LayerScoreDisplay
from skte.report._learning_curve_display import LearningCurveDisplay
from skte.report._ranking_display import RankingDisplay
from skte.report._results_file import results_rows, write_results
from skte.report._sampled_voxels_display import SampledVoxelsDisplay
from skte.report._stability_display import StabilityDisplay
from skte.report._write_report import write_report

__all__ = [
    "CaseDistanceDisplay",
    "CorrelationDisplay",
    "EvaluationDisplay",
    "FeatureEmbeddingDisplay",
    "LayerScoreDisplay",
    "LearningCurveDisplay",
    "RankingDisplay",
    "SampledVoxelsDisplay",
    "StabilityDisplay",
    "results_rows",
    "write_report",
    "write_results",
]
