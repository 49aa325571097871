"""The one loop that pre-trains and fine-tunes: schedule, patches and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from skte.demo import TrainingCase

__all__ = ["train"]

_IGNORED = -100
_WARM_UP = 0.1  # share of the steps
_CLIP = 1.0  # norm of the gradient

Batch = tuple[torch.Tensor, torch.Tensor]


def train(
    network: nn.Module,
    cases: Sequence[TrainingCase],
    *,
    objective: str,
    n_classes: int,
    n_steps: int,
    patch: tuple[int, ...],
    batch_size: int,
    rate: float,
    body_rate: float | None = None,
    head: str = "",
    seed: int = 0,
) -> list[float]:
    """Train in place and return the loss of each step.

    AdamW, a short warm-up and a cosine to zero; gradients are clipped. Each patch is
    centred on a voxel of a class that is drawn first, so that small classes are seen
    as often as large ones. Given a seed, every network sees the same patches.

    ``objective`` is "supervised" (cross-entropy weighted by class, and Dice),
    "restoration" (of patches with noise and cubes cut out) or "collapse" (every voxel
    is background: features lose what they knew). The modules of the head learn at
    ``rate``, the others at ``body_rate``.
    """
    rng = np.random.default_rng(seed)
    device = next(network.parameters()).device
    loss_of = _losses(objective, cases, n_classes, rng, device)
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        groups[not head or name.startswith(f"{head}.")].append(parameter)
    slow = rate if body_rate is None else body_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[is_head], "lr": rate if is_head else slow}
            for is_head in groups
            if groups[is_head]
        ],
        weight_decay=1e-4,
        fused=device.type == "cuda",
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, n_steps))
    places = [_places(case, n_classes) for case in cases]
    losses: list[torch.Tensor] = []
    network.train()
    for _ in range(n_steps):
        drawn = []
        for _ in range(batch_size):
            i = int(rng.integers(len(cases)))
            drawn.append(_draw(cases[i], places[i], patch, rng))
        images = torch.stack([image for image, _ in drawn])
        targets = torch.stack([target for _, target in drawn])
        loss = loss_of(network, images.to(device), targets.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())  # no number yet: a GPU would have to be waited for
    network.eval()
    return [float(loss) for loss in losses]


def _factor(step: int, n_steps: int) -> float:
    warm = max(1, round(_WARM_UP * n_steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, n_steps - warm))))


def _losses(
    objective: str,
    cases: Sequence[TrainingCase],
    n_classes: int,
    rng: np.random.Generator,
    device: torch.device,
) -> Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]:
    if objective == "restoration":
        return lambda network, images, _: _restoration(network, images, rng)
    if objective == "collapse":
        return lambda network, images, targets: functional.cross_entropy(
            network(images), torch.zeros_like(targets)
        )
    weights = _class_weights(cases, n_classes).to(device)
    return lambda network, images, targets: _supervised(network(images), targets, weights)


def _class_weights(cases: Sequence[TrainingCase], n_classes: int) -> torch.Tensor:
    """Inverse root of the class frequencies, mean one."""
    counts = torch.zeros(n_classes)
    for case in cases:
        counts += torch.bincount(case.target[case.target >= 0].flatten(), minlength=n_classes)
    weights = counts.clamp_min(1).rsqrt()
    return weights / weights.mean()


def _supervised(logits: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    known = (target != _IGNORED).unsqueeze(1)
    truth = functional.one_hot(target.clamp_min(0), logits.shape[1]).movedim(-1, 1) * known
    predicted = logits.softmax(dim=1) * known
    axes = (0, *range(2, logits.ndim))
    overlap = (predicted * truth).sum(axes)
    dice = (2 * overlap + 1) / (predicted.sum(axes) + truth.sum(axes) + 1)
    entropy = functional.cross_entropy(logits, target, weight=weights, ignore_index=_IGNORED)
    return entropy + 1 - dice[1:].mean()


def _restoration(network: nn.Module, clean: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    noise = torch.from_numpy(rng.normal(scale=0.3, size=clean.shape).astype(np.float32))
    coarse = rng.random((len(clean), 1, *(max(1, edge // 8) for edge in clean.shape[2:]))) > 0.3
    kept = functional.interpolate(torch.from_numpy(coarse).float(), size=clean.shape[2:])
    spoilt = (clean + noise.to(clean.device)) * kept.to(clean.device)
    return functional.mse_loss(network(spoilt), clean)


def _places(case: TrainingCase, n_classes: int) -> list[NDArray[np.int64]]:
    """Voxels of each class that the case holds."""
    found = [np.argwhere(case.target.numpy() == k) for k in range(n_classes)]
    return [voxels for voxels in found if len(voxels)]


def _draw(
    case: TrainingCase,
    places: Sequence[NDArray[np.int64]],
    patch: tuple[int, ...],
    rng: np.random.Generator,
) -> Batch:
    """A patch around a voxel of a class drawn first; small volumes are padded."""
    voxels = places[int(rng.integers(len(places)))]
    centre = voxels[int(rng.integers(len(voxels)))]
    shape = np.array(case.target.shape)
    size = np.minimum(patch, shape)
    # Anywhere in the patch but its outer quarter, so that position tells nothing.
    shift = ((rng.random(3) - 0.5) * size / 2).astype(int)
    first = np.clip(centre + shift - size // 2, 0, shape - size)
    window = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    missing = [
        p for have, want in zip(size[::-1], patch[::-1], strict=True) for p in (0, want - have)
    ]
    image = functional.pad(case.image[(slice(None), *window)], missing)
    return image, functional.pad(case.target[window], missing, value=_IGNORED)
