"""What a person sees of a ranking: plots and files."""

from skte.report._ranking_display import RankingDisplay
from skte.report._results_file import results_rows, write_results
from skte.report._scatter_display import ScorePerformanceDisplay

__all__ = ["RankingDisplay", "ScorePerformanceDisplay", "results_rows", "write_results"]
