"""The source head's class probabilities at single voxels."""

from __future__ import annotations

import torch

__all__ = ["source_posterior"]

# Without an activation, how far from one a row may sum: half precision rounds.
_SUM_TOLERANCE = 1e-2


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

    Raises
    ------
    ValueError
        If they cannot: the output is not finite, or without an activation it is no
        probabilities. The message names the entry's parameter.
    """
    if activation is None:
        _check_probabilities(logits)
    probabilities = _activated(logits, activation)
    if not torch.isfinite(probabilities).all():  # a logit of -inf is fine: a class ruled out
        raise ValueError("its output contains NaN or Inf; check the weights of the head")
    return probabilities


def _activated(logits: torch.Tensor, activation: str | None) -> torch.Tensor:
    if activation == "softmax" and logits.shape[1] > 1:
        return torch.softmax(logits, dim=1)
    regions = logits.clamp(0, 1) if activation is None else torch.sigmoid(logits)
    if activation is None and logits.shape[1] > 1:
        probabilities = regions
    else:
        background = 1.0 - regions.max(dim=1, keepdim=True).values
        probabilities = torch.cat([background, regions], dim=1)
    total = probabilities.sum(dim=1, keepdim=True)
    return probabilities / total.clamp_min(torch.finfo(probabilities.dtype).tiny)


def _check_probabilities(output: torch.Tensor) -> None:
    if not len(output):  # a case without sampled voxels
        return
    low, high = float(output.min()), float(output.max())
    sums = output.sum(dim=1)
    apart = 0.0 if output.shape[1] == 1 else float((sums - 1).abs().max())
    if low < -_SUM_TOLERANCE or high > 1 + _SUM_TOLERANCE or apart > _SUM_TOLERANCE:
        raise ValueError(
            f"with activation=None its output must be probabilities that sum to one, but values "
            f"go from {low:.4g} to {high:.4g} and sums from {float(sums.min()):.4g} to "
            f"{float(sums.max()):.4g}; set activation='softmax' (or 'sigmoid') of the entry for "
            "logits, or let the network divide by the sum"
        )
