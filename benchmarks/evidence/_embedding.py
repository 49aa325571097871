"""Features of one class in the plane, with and without pre-training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.manifold import TSNE

from benchmarks.evidence._protocol import Study
from benchmarks.evidence._scores import load_features

__all__ = ["embed"]

_ARCHITECTURE = "unet_w4"
_VOXELS = 60


def embed(study: Study, target: str, out: Path) -> dict[str, Any]:
    """t-SNE of the first foreground class in the finest layer, one a source task.

    Vectors have unit length, as CC-FV sees them.
    """
    panels = {}
    for model in study.bank(target):
        if model.architecture != _ARCHITECTURE or model.objective != "supervised":
            continue
        if model.n_steps not in (0, study.long):
            continue
        block = load_features(out, target, model.name)[: study.n_tune_cases].blocks()[-1]
        rng = np.random.default_rng(0)
        rows = np.concatenate(
            [
                rng.permutation(np.flatnonzero((block.y == 1) & (block.groups == case)))[:_VOXELS]
                for case in np.unique(np.asarray(block.groups))
            ]
        )
        X = block.X[rows] / np.maximum(np.linalg.norm(block.X[rows], axis=1, keepdims=True), 1e-12)
        perplexity = min(30.0, (len(X) - 1) / 3)
        points = TSNE(init="pca", perplexity=perplexity, random_state=0).fit_transform(X)
        panels[model.source or "untrained"] = {
            "points": np.round(points, 2).tolist(),
            "cases": np.asarray(block.groups)[rows].tolist(),
        }
    return panels
