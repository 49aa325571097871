"""How far two fine-tuning seeds agree: what no estimator can be judged beyond."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, weightedtau

from benchmarks.evidence._driver import record_of
from benchmarks.evidence._jobs import Job
from benchmarks.evidence._protocol import Study

__all__ = ["ENOUGH", "LEARNT", "seed_agreement"]

#: Below this weighted Kendall, the ground truth is too noisy to judge an estimator by.
ENOUGH = 0.8
#: Seeds that agree on zeros agree on nothing: the best model must reach this mean Dice.
LEARNT = 0.5


def seed_agreement(study: Study, target: str, out: Path) -> dict[str, Any] | None:
    """Agreement of the first two seeds on one target; None where it is not fine-tuned yet.

    Also of each class by itself: a class that a seed fails to learn in every model shows
    here.
    """
    jobs = [[Job("tune", model, target, seed) for seed in (0, 1)] for model in study.bank(target)]
    records = [[record_of(job, out) for job in pair] for pair in jobs]
    if any(record is None for pair in records for record in pair):
        return None
    # (n_models, n_seeds, n_classes)
    dice = np.array(
        [
            [np.nanmean(np.array(r["dice"], dtype=float), axis=0) for r in pair if r is not None]
            for pair in records
        ]
    )
    first, second = dice.mean(axis=2).T
    return {
        "target": target,
        "n_models": len(dice),
        "weighted_kendall": round(float(weightedtau(first, second).statistic), 3),
        "best_dice": round(float(dice.mean(axis=(1, 2)).max()), 3),
        "pearson": round(float(pearsonr(first, second).statistic), 3),
        "weighted_kendall_by_class": [
            round(float(weightedtau(*dice[:, :, k].T).statistic), 3) for k in range(dice.shape[2])
        ],
        "mean_dice_by_seed_and_class": np.round(dice.mean(axis=0), 3).tolist(),
        "dice": {
            model.name: np.round(values.mean(axis=1), 4).tolist()
            for model, values in zip(study.bank(target), dice, strict=True)
        },
    }
