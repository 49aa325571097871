"""The source head's class probabilities at single voxels."""

from __future__ import annotations

import torch

__all__ = ["source_posterior"]


def source_posterior(logits: torch.Tensor, activation: str | None) -> torch.Tensor:
    """Turn a source head's output into probabilities that sum to one.

    Parameters
    ----------
    logits : Tensor of shape (n_points, n_source_classes)
        The head's output.
    activation : {"softmax", "sigmoid"} or None
        "softmax": exclusive classes. "sigmoid": independent regions; what none of
        them claims becomes a background class, and rows are divided by their sum.
        None: the network already returns probabilities. A single channel is
        always a foreground logit (or probability, with None).

    Returns
    -------
    Tensor of shape (n_points, n_classes)
        Rows sum to one.
    """
    if activation == "softmax" and logits.shape[1] > 1:
        return torch.softmax(logits, dim=1)
    regions = logits if activation is None else torch.sigmoid(logits)
    if activation is None and logits.shape[1] > 1:
        probabilities = regions
    else:
        background = 1.0 - regions.max(dim=1, keepdim=True).values
        probabilities = torch.cat([background, regions], dim=1)
    total = probabilities.sum(dim=1, keepdim=True)
    return probabilities / total.clamp_min(torch.finfo(probabilities.dtype).tiny)
