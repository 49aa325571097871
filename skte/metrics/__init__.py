"""Agreement of scores with true performances; numpy and scipy only."""

from skte.metrics._agreement import (
    WeightedKendallResult,
    pearson_score,
    rank_scores,
    regret_at_k,
    relative_top1,
    spearman_score,
    weighted_kendall_score,
    weighted_kendall_test,
)
from skte.metrics._agreement import align_performance as align_performance
from skte.metrics._agreement import best_first as best_first
from skte.metrics._agreement import weighted_kendall_rows as weighted_kendall_rows

__all__ = [
    "WeightedKendallResult",
    "pearson_score",
    "rank_scores",
    "regret_at_k",
    "relative_top1",
    "spearman_score",
    "weighted_kendall_score",
    "weighted_kendall_test",
]
