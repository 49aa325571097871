"""Agreement of scores with true performances; numpy and scipy only."""

from skte.metrics._agreement import (
    WeightedKendallResult,
    align_performance,
    best_first,
    pearson_score,
    rank_scores,
    regret_at_k,
    relative_top1,
    spearman_score,
    weighted_kendall_rows,
    weighted_kendall_score,
    weighted_kendall_test,
)

__all__ = [
    "WeightedKendallResult",
    "align_performance",
    "best_first",
    "pearson_score",
    "rank_scores",
    "regret_at_k",
    "relative_top1",
    "spearman_score",
    "weighted_kendall_rows",
    "weighted_kendall_score",
    "weighted_kendall_test",
]
