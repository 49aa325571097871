"""Whole float32 in convolutions and products, on GPUs too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from skte._process import SharedSetting

__all__ = ["whole_float32"]


def whole_float32(device: torch.device) -> AbstractContextManager[None]:
    """Let a GPU compute in float32 as a CPU does.

    torch lets cuDNN round the operands of convolutions to 10 bits (TF32), which moves
    features in the third digit: enough to swap models that are close. Elsewhere than on
    CUDA nothing happens. What the user had set is back afterwards.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    """
    return _whole.held() if device.type == "cuda" else nullcontext()


def _make() -> Callable[[], None]:
    backends: Any = torch.backends
    whole: Any
    if hasattr(backends.cudnn, "conv"):  # torch >= 2.9
        owners, name, whole = (backends.cudnn.conv, backends.cuda.matmul), "fp32_precision", "ieee"
    else:
        owners, name, whole = (backends.cudnn, backends.cuda.matmul), "allow_tf32", False
    before = [(owner, getattr(owner, name)) for owner in owners]

    def undo() -> None:
        for owner, value in before:
            setattr(owner, name, value)

    for owner in owners:
        setattr(owner, name, whole)
    return undo


_whole = SharedSetting(_make)
