"""What a person sees of a ranking: plots and files."""

from skte.report._agreement_displays import (
    CorrelationDisplay,
    EvaluationDisplay,
    LearningCurveDisplay,
)
from skte.report._feature_displays import CaseDistanceDisplay, FeatureEmbeddingDisplay
from skte.report._next_step import fine_tuning as fine_tuning
from skte.report._next_step import next_step
from skte.report._page import write_report
from skte.report._ranking_displays import LayerScoreDisplay, RankingDisplay, StabilityDisplay
from skte.report._results import SeenTable, results_rows, write_results
from skte.report._results import finite as finite
from skte.report._sampled_voxels_display import SampledVoxelsDisplay

__all__ = [
    "CaseDistanceDisplay",
    "CorrelationDisplay",
    "EvaluationDisplay",
    "FeatureEmbeddingDisplay",
    "LayerScoreDisplay",
    "LearningCurveDisplay",
    "RankingDisplay",
    "SampledVoxelsDisplay",
    "SeenTable",
    "StabilityDisplay",
    "next_step",
    "results_rows",
    "write_report",
    "write_results",
]
