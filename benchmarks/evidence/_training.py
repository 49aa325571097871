"""Pre-training, fine-tuning and the Dice of a network."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from benchmarks.evidence._images import Part
from benchmarks.evidence._network import UNet

__all__ = ["FINE_TUNING", "dice_across_cases", "dice_per_case", "new_head", "train"]

FINE_TUNING: dict[str, Any] = {
    "batch_size": 4,
    "rate": 3e-2,
    "body_rate": 1e-3,
    "balanced": True,
}
#: A new head starts small: of eight channels at full size, its signs decided what came of a run.
_HEAD_SCALE = 0.1

_WARM_UP = 0.1  # share of the steps
_POWER = 0.9  # of the decay to zero
_SHIFT = 4  # voxels, either way


def train(
    network: UNet,
    part: Part,
    *,
    steps: int,
    batch_size: int,
    rate: float,
    body_rate: float | None = None,
    restore: bool = False,
    balanced: bool = False,
    seed: int = 0,
) -> float:
    """Train in place and return the mean loss of the last tenth of the steps.

    Adam, a short warm-up and a polynomial decay; the head learns at ``rate``, the rest
    at ``body_rate``. Cross-entropy (by class, if ``balanced``) and Dice, or the restoration of
    spoilt images.
    Given a seed, every network sees the same batches.
    """
    rng = np.random.default_rng(seed)
    head = list(network.head.parameters())
    body = network.body_parameters()
    optimizer = torch.optim.Adam(
        [{"params": head, "lr": rate}, {"params": body, "lr": body_rate or rate}], fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, steps))
    network.train()
    losses = []
    for _ in range(steps):
        images, labels = _batch(part, batch_size, rng)
        with torch.autocast("cpu", torch.bfloat16):  # a fifth less time on two cores
            outputs = network(_spoilt(images, rng) if restore else images).float()
        loss = functional.mse_loss(outputs, images) if restore else _loss(outputs, labels, balanced)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    network.eval()
    return float(torch.stack(losses[-max(1, steps // 10) :]).mean())


@torch.no_grad()
def dice_per_case(network: nn.Module, part: Part) -> list[float]:
    """Dice of the foreground in each case."""
    predicted = network(part.images).argmax(dim=1).flatten(1).double()
    truth = part.labels.flatten(1).double()
    overlap = 2 * (predicted * truth).sum(1)
    found: list[float] = (overlap / (predicted.sum(1) + truth.sum(1))).tolist()
    return found


def new_head(network: UNet, seed: int) -> None:
    """Replace the last convolution by a fresh one for background and foreground."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.head = type(network.head)(network.head.in_channels, 2, 1)
        network.head.weight.data *= _HEAD_SCALE


def dice_across_cases(network: UNet, support: Part, steps: int) -> list[float]:
    """Dice of each case after a short fine-tuning on the other half of the cases."""
    halves = [np.arange(i, len(support), 2) for i in (0, 1)]
    found = np.empty(len(support))
    for fitted, held_out in (halves, halves[::-1]):
        tuned = deepcopy(network)
        new_head(tuned, 0)
        train(tuned, support.at(fitted), steps=steps, seed=0, **FINE_TUNING)
        found[held_out] = dice_per_case(tuned, support.at(held_out))
    return found.tolist()


def _factor(step: int, steps: int) -> float:
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return float((1 - (step - warm) / max(1, steps - warm)) ** _POWER)


def _loss(logits: torch.Tensor, labels: torch.Tensor, balanced: bool) -> torch.Tensor:
    foreground = logits.softmax(dim=1)[:, 1]
    truth = labels.float()
    dice = (2 * (foreground * truth).sum() + 1) / (foreground.sum() + truth.sum() + 1)
    weight = None
    if balanced:  # the weights of the classes' voxels sum to the same
        share = truth.mean().clamp(1e-3, 1 - 1e-3)
        weight = 0.5 / torch.stack([1 - share, share])
    return functional.cross_entropy(logits, labels.long(), weight=weight) + 1 - dice


def _batch(
    part: Part, batch_size: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices drawn without replacement where enough exist, shifted, with another contrast."""
    chosen = rng.permutation(len(part))[:batch_size]
    if len(part) < batch_size:
        chosen = rng.integers(len(part), size=batch_size)
    images, labels = part.images[chosen], part.labels[chosen]
    dy, dx = rng.integers(-_SHIFT, _SHIFT + 1, size=2).tolist()
    images, labels = (torch.roll(t, (dy, dx), dims=(-2, -1)) for t in (images, labels))
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, size=(len(images), *[1] * (images.ndim - 1))))
    noise = torch.from_numpy(rng.normal(scale=0.1, size=images.shape))
    return (images * gain + noise).float(), labels


def _spoilt(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Images with noise, and with squares cut out."""
    noise: NDArray[np.float64] = rng.normal(scale=0.3, size=images.shape)
    squares = (len(images), 1, *[8] * (images.ndim - 2))
    kept = torch.from_numpy((rng.random(squares) > 0.3).astype(np.float32))
    kept = functional.interpolate(kept, size=images.shape[2:])
    return ((images + torch.from_numpy(noise)) * kept).float()
