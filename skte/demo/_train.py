"""A small U-Net, its training and testing, with one fixed schedule for every model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from skte._digests import versioned
from skte.datasets import read_case

_IGNORED = -100  # torch's own mark for voxels without a class


@dataclass(frozen=True)
class TrainingCase:
    """One case in memory, ready for training.

    Attributes
    ----------
    image : Tensor of shape (n_channels, x, y, z)
        The preprocessed image.
    target : Tensor of shape (x, y, z)
        Class indices 0, 1, ...; -100 for voxels to ignore.
    """

    image: torch.Tensor
    target: torch.Tensor


def prepare_cases(subjects: Sequence[Any], class_ids: Sequence[int]) -> list[TrainingCase]:
    """Load cases and normalise each image to zero mean and unit variance.

    Parameters
    ----------
    subjects : sequence of Subject
        As `skte.datasets.load_dataset` returns them.
    class_ids : sequence of int
        Label ids in the order of the network's output channels, background first.

    Returns
    -------
    list of TrainingCase
        In the order of `subjects`.
    """
    cases = []
    for subject in subjects:
        case = read_case(subject)
        target = torch.full_like(case.label, _IGNORED)
        for index, class_id in enumerate(class_ids):
            target[case.label == class_id] = index
        mean = case.image.mean(dim=(1, 2, 3), keepdim=True)
        scale = case.image.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-8)
        cases.append(TrainingCase((case.image - mean) / scale, target))
    return cases


def train_network(
    network: nn.Module,
    cases: Sequence[TrainingCase],
    *,
    n_steps: int,
    patch_size: int | Sequence[int] = 16,
    batch_size: int = 2,
    learning_rate: float = 3e-3,
    random_state: int = 0,
) -> list[float]:
    """Train a network on random patches with Dice and cross-entropy, in place.

    AdamW with a cosine schedule that ends at zero. Half of the patches are centred
    on a foreground voxel. Given a seed, every network sees the same patches.

    Parameters
    ----------
    network : nn.Module
        Maps (n, channels, *patch_size) to logits (n, n_classes, *patch_size).
    cases : sequence of TrainingCase
        The training cases; volumes smaller than a patch are padded.
    n_steps, batch_size : int
        Optimiser steps, and patches in each.
    patch_size : int or sequence of int, default=16
        Edges of a patch in voxels; two edges for a 2-D network.
    learning_rate : float, default=3e-3
        At the beginning.
    random_state : int, default=0
        Seed of the patches.

    Returns
    -------
    list of float
        Loss of every step.
    """
    edges = (patch_size,) * 3 if isinstance(patch_size, int) else tuple(patch_size)
    rng = np.random.default_rng(random_state)
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps)
    network.train()
    losses = []
    for _ in range(n_steps):
        chosen = [cases[int(rng.integers(len(cases)))] for _ in range(batch_size)]
        drawn = [_draw_patch(case, edges, rng) for case in chosen]
        images = torch.stack([image for image, _ in drawn]).to(device)
        targets = torch.stack([target for _, target in drawn]).to(device)
        loss = _dice_and_cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    network.eval()
    return losses


def mean_foreground_dice(network: nn.Module, cases: Sequence[TrainingCase]) -> float:
    """Dice averaged over the foreground classes of each case, then over cases.

    Parameters
    ----------
    network : nn.Module
        Runs on whole volumes of any size; a 2-D network is run slice by slice along z.
    cases : sequence of TrainingCase
        The test cases. Classes that a case does not hold are left out of its mean.

    Returns
    -------
    float
        In [0, 1]; higher is better.
    """
    parameter = next(network.parameters(), torch.empty(0))
    network.eval()
    per_case = []
    with torch.inference_mode():
        for case in cases:
            logits = _whole_volume(network, case.image.to(parameter.device)).cpu()
            per_case.append(_foreground_dice(logits.argmax(dim=0), case.target))
    return float(np.nanmean(per_case))


def load_body(network: nn.Module, weights: Mapping[str, torch.Tensor], head: str = "head") -> None:
    """Load a state dict into a network, but for the weights of the `head`, which stay."""
    own = {k: v for k, v in network.state_dict().items() if k.startswith(f"{head}.")}
    body = {k: v for k, v in weights.items() if not k.startswith(f"{head}.")}
    network.load_state_dict({**body, **own})


def _draw_patch(
    case: TrainingCase, edges: tuple[int, ...], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = np.array(case.target.shape)
    size = np.minimum([*edges, 1][:3], shape)  # a 2-D patch is one slice
    center = _draw_center(case.target, rng)
    first = np.clip(center - size // 2, 0, shape - size)
    window = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
    image, target = case.image[(slice(None), *window)], case.target[window]
    if len(edges) == 2:
        image, target = image[..., 0], target[..., 0]
    padding = [
        p
        for have, want in zip(target.shape[::-1], edges[::-1], strict=True)
        for p in (0, want - have)
    ]
    return functional.pad(image, padding), functional.pad(target, padding, value=_IGNORED)


def _draw_center(target: torch.Tensor, rng: np.random.Generator) -> NDArray[np.int64]:
    foreground = torch.nonzero(target > 0)
    # Always two draws, so that patches do not depend on what the case holds.
    on_foreground, position = rng.random(), rng.random(3)
    if on_foreground < 0.5 and len(foreground):
        return foreground[int(position[0] * len(foreground))].numpy()
    return (position * target.shape).astype(np.int64)


def _dice_and_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    known = (target != _IGNORED).unsqueeze(1)
    truth = functional.one_hot(target.clamp_min(0), logits.shape[1]).movedim(-1, 1) * known
    predicted = logits.softmax(dim=1) * known
    axes = (0, *range(2, logits.ndim))
    overlap = (predicted * truth).sum(axes)
    dice = (2 * overlap + 1) / (predicted.sum(axes) + truth.sum(axes) + 1)
    return functional.cross_entropy(logits, target, ignore_index=_IGNORED) + 1 - dice[1:].mean()


def _whole_volume(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    flat = any(isinstance(module, nn.Conv2d) for module in network.modules())
    if flat:  # slices become the batch
        return network(image.movedim(-1, 0)).movedim(0, -1)  # type: ignore[no-any-return]
    return network(image[None])[0]  # type: ignore[no-any-return]


def _foreground_dice(predicted: torch.Tensor, target: torch.Tensor) -> float:
    known = target != _IGNORED
    scores = []
    for index in torch.unique(target[target > 0]):
        a, b = (predicted == index) & known, target == index
        scores.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
    return float(np.mean(scores)) if scores else float("nan")


_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@versioned("small U-Net", 1)
class SmallUNet(nn.Module):
    """A small U-Net for images of any size, in 2-D or 3-D.

    Modules are named as they are spoken of: ``encoder.0`` is the finest encoder
    stage, ``decoder.0`` the coarsest decoder stage, ``head`` the final convolution.

    Parameters
    ----------
    in_channels : int, default=1
        Channels of the input.
    n_classes : int, default=2
        Channels of the output, background included.
    widths : sequence of int, default=(8, 16, 32)
        Channels of the stages, fine to coarse; every stage halves the resolution.
    spatial_dims : {2, 3}, default=3
        Dimensions of the images.

    Examples
    --------
    >>> import torch
    >>> from skte.demo import SmallUNet
    >>> network = SmallUNet(widths=(4, 8))
    >>> network(torch.zeros(1, 1, 9, 8, 7)).shape
    torch.Size([1, 2, 9, 8, 7])
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 2,
        widths: Sequence[int] = (8, 16, 32),
        spatial_dims: int = 3,
    ) -> None:
        super().__init__()
        inputs = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            _stage(a, b, spatial_dims, stride=1 if i == 0 else 2)
            for i, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        coarse_to_fine = list(widths[::-1])
        self.decoder = nn.ModuleList(
            _stage(a + b, b, spatial_dims) for a, b in itertools.pairwise(coarse_to_fine)
        )
        self.head = _CONV[spatial_dims](widths[0], n_classes, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (n, n_classes, x, y[, z]) of images (n, in_channels, x, y[, z])."""
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        for stage, skip in zip(self.decoder, skips[-2::-1], strict=True):
            # To the skip's own size, so that odd sizes need no padding.
            x = functional.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = stage(torch.cat([x, skip], dim=1))
        logits: torch.Tensor = self.head(x)
        return logits


@versioned("small U-Net by arguments", 1)
def small_unet(
    in_channels: int = 1,
    n_classes: int = 2,
    widths: Sequence[int] = (8, 16, 32),
    spatial_dims: int = 3,
) -> SmallUNet:
    """Build a `SmallUNet`; the factory that manifests name ``skte.demo:small_unet``."""
    return SmallUNet(in_channels, n_classes, widths, spatial_dims)


def _stage(in_channels: int, out_channels: int, dims: int, stride: int = 1) -> nn.Sequential:
    conv, norm = _CONV[dims], _NORM[dims]
    return nn.Sequential(
        conv(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        norm(out_channels, affine=True),
        nn.LeakyReLU(0.01),
        conv(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        norm(out_channels, affine=True),
        nn.LeakyReLU(0.01),
    )
