"""Networks that the timings run."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from skte import BankEntry
from skte.demo import small_unet


def unet_entry(name: str, *, widths: Sequence[int], seed: int = 0) -> BankEntry:
    """A U-Net with random weights: time does not depend on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BankEntry.from_module(name, small_unet(widths=tuple(widths)))
