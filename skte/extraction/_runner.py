"""Running one model over prepared cases; smaller batches where memory runs out."""

from __future__ import annotations

import ctypes
import gc
import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from skte._isolation import SharedSetting
from skte.bank import BankEntry, LayerInfo, model_in_channels
from skte.exceptions import ExtractionError, SkteError, SkteWarning
from skte.extraction._prepare import PreparedCase, carry_voxels
from skte.extraction._reader import OUTPUT, Reading, WindowReader
from skte.extraction._windows import WindowPlan, default_window_size, plan_windows
from skte.features import CaseFeatures, LayerSample


@dataclass(eq=False)
class CaseRunner:
    """Turns prepared cases into features of one model."""

    entry: BankEntry  # the model's recipe
    network: nn.Module  # ready for inference, on `device`
    layers: Sequence[LayerInfo]  # coarse to fine
    n_axes: int  # spatial axes of the network
    device: torch.device  # where the network is
    batch_size: int  # windows in one forward pass; halved where memory runs out
    window_size: tuple[int, ...] | None  # three edges; None: fitted to each volume
    overlap: float
    windows: str
    output: str | int | None  # which of several outputs is the main one
    source_head: bool  # whether the head's probabilities are read
    taper: bool  # whether layers near the bottleneck keep fewer voxels

    def run(self, case: PreparedCase, waited: float) -> CaseFeatures:
        """Read the features of one case."""
        begun = time.perf_counter()
        where = f"Entry {self.entry.name!r}, case {case.case_id!r}"
        check_channels(self.entry, self.network, case.image, case.case_id)
        plan = self._plan(case)
        read = self._read(case, plan, where)
        info = {
            "n_windows": len(plan.starts),
            "n_windows_planned": plan.n_planned,
            "class_voxels": {str(k): n for k, n in case.sample.class_voxels.items()},
            "seconds_load": waited,
            "seconds_forward": time.perf_counter() - begun,
            "seconds_tap": read.seconds,
        }
        try:
            return self._assemble(case, read, info)
        except ValueError as error:
            raise ExtractionError(f"Entry {self.entry.name!r}: {error}") from error

    def _plan(self, case: PreparedCase) -> WindowPlan:
        shape = tuple(case.image.shape[1:])
        where = f"entry {self.entry.name!r}, case {case.case_id!r}"
        points = carry_voxels(case.sample.voxels, case.to_image, shape, where)
        if self.n_axes == 2:  # a 2-D network sees one slice at a time
            points[:, 2] = np.round(points[:, 2])
        size = self.window_size or (*default_window_size(shape[: self.n_axes]), 1)[:3]
        margin = [max(n) for n in zip(*(layer.margin for layer in self.layers), strict=True)]
        margin += [0] * (3 - self.n_axes)
        inner = [n - 2 * m for n, m in zip(size, margin, strict=True)]
        if min(inner) < 1:
            raise ExtractionError(
                f"{where}: its layers leave out {max(margin)} voxels at every face of a window, "
                f"and windows have {' x '.join(map(str, size))}; give a larger window_size."
            )
        return plan_windows(points, shape, inner, self.overlap, self.windows).widened(margin)

    def _read(self, case: PreparedCase, plan: WindowPlan, where: str) -> Reading:
        n_output = len(case.sample.labels) if self.source_head else None
        while True:
            problem = None
            try:
                return self._reader().read(case.image, plan, n_output)
            except SkteError as error:
                raise ExtractionError(f"{where}: {error}.") from error
            except (Exception, SystemExit) as error:
                problem = f"{type(error).__name__}: {error}"
                if not is_out_of_memory(error):
                    raise ExtractionError(
                        f"{where}: the model failed on windows of {plan.window_size} with "
                        f"{case.image.shape[0]} channels: {problem}"
                    ) from error
            # Only here is the error gone, and with it what its frames held.
            free_memory(self.device)
            self._halve_batch(f"{where}: memory ran out on windows of {plan.window_size}", problem)

    def _reader(self) -> WindowReader:
        return WindowReader(
            self.network, self.layers, self.n_axes, self.device, self.batch_size, self.output
        )

    def _halve_batch(self, what: str, problem: str) -> None:
        """Go on with smaller batches, in later cases as well."""
        if self.batch_size == 1:
            raise ExtractionError(
                f"{what}, one at a time. Use a smaller window_size, another device, or fewer "
                f"n_jobs. {problem}"
            )
        smaller = self.batch_size // 2
        warnings.warn(
            f"{what}, {self.batch_size} at a time; continuing with {smaller}.",
            SkteWarning,
            stacklevel=2,
        )
        self.batch_size = smaller

    def _assemble(self, case: PreparedCase, read: Reading, info: dict[str, Any]) -> CaseFeatures:
        sample = case.sample
        strides = [math.prod(layer.stride) ** (1 / self.n_axes) for layer in self.layers]
        layers = {}
        for layer, stride in zip(self.layers, strides, strict=True):
            share = 0.5 ** round(math.log2(stride / min(strides))) if self.taper else 1.0
            rows, case_rows = sample.rows(share)
            X = read.features[layer.name]
            layers[layer.name] = LayerSample(X[rows], sample.labels[rows], X[case_rows])
        posterior, reason = None, ""
        if OUTPUT in read.features:
            output = torch.from_numpy(read.features[OUTPUT]).double()
            try:
                probabilities = source_posterior(output, self.entry.activation).numpy()
                posterior = LayerSample(probabilities, sample.labels, probabilities[:0])
            except ValueError as error:  # costs the scores of the head, no others
                reason = str(error)
        return CaseFeatures(case.case_id, layers, posterior, info, reason)


def check_channels(entry: BankEntry, network: nn.Module, image: torch.Tensor, case_id: str) -> None:
    """Refuse an image with other channels than the network takes."""
    expected = entry.in_channels or model_in_channels(network)
    if expected is not None and expected != image.shape[0]:
        raise ExtractionError(
            f"Entry {entry.name!r} takes {expected} channels, but case {case_id!r} has "
            f"{image.shape[0]}. Leave the entry out, or give cases the channels it was trained on"
            + (", or it the preprocessing step RepeatChannels." if image.shape[0] == 1 else ".")
        )


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
    """Tell whether an error of a forward pass is that memory ran out, of CPU or GPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _SAID)


def free_memory(device: torch.device) -> None:
    """Give back what a failed pass left, so that the next one finds it free."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


# Without an activation, how far from one a row may sum: half precision rounds.
_SUM_TOLERANCE = 1e-2


def source_posterior(logits: torch.Tensor, activation: str | None) -> torch.Tensor:
    """Turn a source head's output into probabilities that sum to one."""
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


def whole_float32(device: torch.device) -> AbstractContextManager[None]:
    """Let a GPU compute in float32 as a CPU does."""
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


# Parameters of mallopt(3), as glibc's malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
_MIB = 2**20
# glibc's own values, but for the thresholds: setting anything ends their adjustment to what
# a program frees, so they stay where that adjustment ends.
_AFTERWARDS = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 32 * _MIB), (_TRIM_THRESHOLD, 64 * _MIB))


def memory_kept(device: torch.device) -> AbstractContextManager[None]:
    """Let activations reuse memory from one layer, and one window, to the next."""
    return _kept.held() if device.type == "cpu" and _glibc() else nullcontext()


def _keep() -> Callable[[], None]:
    _set(((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER)))
    return lambda: _set(_AFTERWARDS)


_kept = SharedSetting(_keep)


def _set(values: tuple[tuple[int, int], ...]) -> None:
    libc = _glibc()
    if libc is None:
        return
    for parameter, value in values:
        libc.mallopt(parameter, value)
    libc.malloc_trim(0)  # at the beginning too: what others freed would add to the peak


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return None
    return libc
