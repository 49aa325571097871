"""A bound on the memory that building a network may take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["MemoryLimit", "OverLimitError"]


class OverLimitError(Exception):
    """A tensor would have been larger than the memory left."""


class MemoryLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses, before any memory is taken, tensors beyond a number of bytes in all.

    Parameters
    ----------
    max_bytes : int
        What new tensors may take together. Memory given back meanwhile is not counted
        off.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.max_bytes = max_bytes
        self.n_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten" and not any(isinstance(a, torch.Tensor) for a in args):
            shape = args[0] if args and isinstance(args[0], Sequence) else ()
            if all(isinstance(edge, int) for edge in shape):
                kind = kwargs.get("dtype") or torch.get_default_dtype()
                self.n_bytes += math.prod(shape) * kind.itemsize
        if self.n_bytes > self.max_bytes:
            raise OverLimitError(
                f"its arguments ask for tensors of {self.n_bytes:.3g} bytes, far more than its "
                "file of weights holds; check sizes and numbers of channels among them"
            )
        return func(*args, **kwargs)
