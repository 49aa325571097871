"""Telling that memory ran out, and making room again."""

from __future__ import annotations

import gc

import torch

__all__ = ["free_memory", "is_out_of_memory"]

# What torch and the libraries below it say; most of them have no exception of their own.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cannot allocate memory",
    "alloc_failed",  # of cuBLAS and cuDNN
    "bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of a forward pass is that memory ran out, of CPU or GPU.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    bool
        Whether a smaller batch may help.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _SAID)


def free_memory(device: torch.device) -> None:
    """Give back what a failed pass left, so that the next one finds it free."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
