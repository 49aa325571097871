"""Running a model over prepared cases: its facts, windows and device, and memory that runs out."""

from __future__ import annotations

import ctypes
import gc
import math
import re
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from skte._isolation import SharedSetting
from skte.bank import BankEntry, LayerInfo, examine_layers, model_in_channels, model_spatial_dims
from skte.exceptions import BankError, ExtractionError, SkteError, SkteWarning
from skte.extraction._prepare import PreparedCase, carry_voxels
from skte.extraction._reader import OUTPUT, Reading, WindowReader, inference_ready
from skte.extraction._windows import WindowPlan, default_window_size, plan_windows
from skte.features import CaseFeatures, LayerSample

_MOST_VOXELS = 2**31  # of a window


class ModelFacts(NamedTuple):
    """What running a model once on an example found."""

    layers: list[LayerInfo]  # name, stride and channels of each layer, coarse to fine
    n_axes: int  # spatial axes of the network
    n_parameters: int
    on_slice: bool  # whether a 3-D network saw a single slice
    output: str | int | None  # which of several outputs is read, as for `main_output`


def examine_model(
    entry: BankEntry,
    network: nn.Module,
    case: PreparedCase,
    layers: str | Sequence[str],
    window_size: Any,
    device: torch.device,
) -> ModelFacts:
    """Run a model once, on an example of the size of its windows."""
    n_axes = entry.spatial_dims or model_spatial_dims(network) or 3
    size = entry_window(entry, window_size, n_axes)
    image = case.image
    check_channels(entry, network, image, case.case_id)
    window = (size or default_window_size(tuple(image.shape[1:])))[:n_axes]
    on_slice = n_axes == 3 and image.shape[-1] == 1
    # Layers that an entry names, or the encoder where only that was pre-trained, are its own.
    own = isinstance(layers, str) and (layers == "auto" or entry.layers != "auto")
    names = entry.layers if own else layers
    with inference_ready(network, device):
        example = torch.zeros(1, image.shape[0], *window, device=device)
        try:
            found, output = examine_layers(network, names, example, entry.output)
        except BankError as error:
            problem = "a 3-D network cannot run on 2-D images of one slice" if on_slice else error
            raise BankError(f"Entry {entry.name!r}: {problem}") from error
    n_parameters = sum(p.numel() for p in network.parameters())
    return ModelFacts(found, n_axes, n_parameters, on_slice, output)


def entry_window(entry: BankEntry, window_size: Any, n_axes: int) -> tuple[int, ...] | None:
    """Return the edges of a model's window: the user's, or the entry's own."""
    try:
        return window_edges(entry.window_size if window_size is None else window_size, n_axes)
    except ExtractionError as error:
        raise ExtractionError(f"Entry {entry.name!r}: {error}.") from error


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device to run on, having tried that it can be used."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()  # the meta device holds nothing to copy
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExtractionError(
            f"device={str(device)!r} cannot be used here: {reason.rstrip('.')}. Give 'cpu', or "
            "leave device out to use a GPU if there is one."
        ) from error
    return chosen


def window_edges(size: Any, n_axes: int) -> tuple[int, ...] | None:
    """Bring a window to three edges, the last one 1 for a 2-D network."""
    if size is None:
        return None
    edges = (size,) * n_axes if isinstance(size, Integral) else tuple(size)
    if n_axes == 2 and len(edges) == 3 and edges[2] == 1:
        edges = edges[:2]
    whole = _positive(edges)
    if len(whole) != n_axes:
        raise ExtractionError(
            f"window_size={size!r} must be a positive integer or {n_axes} of them: the "
            f"network is {n_axes}-D"
        )
    if math.prod(whole) > _MOST_VOXELS:
        raise ExtractionError(
            f"window_size={size!r} makes windows of {math.prod(whole):.3g} voxels, more than "
            "memory holds; its edges are in voxels, 96 for instance"
        )
    return (*whole, 1)[:3]


def label_window(size: Any) -> tuple[int, ...] | None:
    """Return a user's window as three edges in the label map; None where it has fewer."""
    edges = (size,) * 3 if isinstance(size, Integral) else () if size is None else tuple(size)
    return _positive(edges) if len(edges) == 3 else None


def _positive(edges: Sequence[Any]) -> tuple[int, ...]:
    """Edges as integers, none at all where one is not a positive integer."""
    # Not int(edge) alone: it would cut 8.7 to 8 in silence.
    whole = all(isinstance(edge, Integral) and int(edge) >= 1 for edge in edges)
    return tuple(map(int, edges)) if whole else ()


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
        return plan_windows(points, shape, inner, self.overlap).widened(margin)

    def _read(self, case: PreparedCase, plan: WindowPlan, where: str) -> Reading:
        n_output = len(case.sample.labels) if self.source_head else None
        while True:
            reader = WindowReader(
                plan, self.network, self.layers, self.n_axes, self.device, self.batch_size,
                self.output,
            )  # fmt: skip
            try:
                return reader.read(case.image, n_output)
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
_SAID = re.compile(
    "(out of|not enough|can't allocate|cannot allocate) memory|alloc_failed|bad_alloc", re.I
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of a forward pass is that memory ran out, of CPU or GPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


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
