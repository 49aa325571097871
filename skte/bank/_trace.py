"""One recorded forward pass: which tensor came from which, and in which module."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from skte._isolation import check_interrupt, isolated
from skte._memory import allowed_memory, format_bytes
from skte.bank._factory import DispatchMode, MemoryLimit, OverLimitError
from skte.exceptions import BankError

__all__ = ["Call", "FeatureFlow", "Node", "Trace", "main_output", "run_quietly", "trace_forward"]


_SHARE_OF_A_PASS = 0.5  # of the free memory


@dataclass(frozen=True)
class Node:
    """A tensor that descends from the input. Nodes are numbered as they are made."""

    op: str
    shape: tuple[int, ...]
    parents: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of a module that returned a tensor; it made nodes start+1 to end."""

    name: str
    start: int
    end: int
    inputs: tuple[int, ...]
    output: int

    def contains(self, node: int) -> bool:
        """Whether the node was made within this call."""
        return self.start < node <= self.end


@dataclass(frozen=True, eq=False)
class Trace:
    """Nodes (the input is number 0), module calls, and the node the network returned."""

    nodes: list[Node]
    calls: list[Call]
    output: int | None


@dataclass
class _Ledger:
    """Numbers tensors. Holds no tensor alive: a trace costs no memory."""

    nodes: list[Node] = field(default_factory=list)
    known: dict[int, tuple[weakref.ref[torch.Tensor], int]] = field(default_factory=dict)

    def number(self, tensor: torch.Tensor) -> int | None:
        reference, number = self.known.get(id(tensor), (None, 0))
        return number if reference is not None and reference() is tensor else None

    def numbers(self, value: Any) -> tuple[int, ...]:
        found = (self.number(tensor) for tensor in _tensors(value))
        return tuple(dict.fromkeys(n for n in found if n is not None))

    def add(self, tensor: torch.Tensor, op: str, parents: tuple[int, ...]) -> None:
        self.known[id(tensor)] = (weakref.ref(tensor), len(self.nodes))
        self.nodes.append(Node(op, tuple(tensor.shape), parents))


class _Recorder(DispatchMode):
    """Sees every tensor operation, functional ones included, which hooks do not."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = ledger

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        parents = self.ledger.numbers((args, kwargs))
        op = getattr(func, "__name__", str(func)).partition(".")[0]
        for tensor in _tensors(result) if parents else ():
            # dropout in eval mode hands its input on: the same tensor, no new node
            if op.endswith("_") or self.ledger.number(tensor) is None:
                self.ledger.add(tensor, op.rstrip("_"), parents)
        return result


def trace_forward(module: nn.Module, example: torch.Tensor) -> Trace:
    """Record one forward pass, in eval mode and without gradients."""
    ledger, calls = _Ledger(), []
    open_calls: list[tuple[str, int, tuple[int, ...]]] = []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            open_calls.append((name, len(ledger.nodes) - 1, ledger.numbers((args, kwargs))))

        return hook

    def leave(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            # A block that caught an exception inside left calls open: drop them.
            while open_calls and open_calls[-1][0] != name:
                open_calls.pop()
            _, start, inputs = open_calls.pop()
            number = ledger.number(output) if isinstance(output, torch.Tensor) else None
            if number is not None:
                calls.append(Call(name, start, len(ledger.nodes) - 1, inputs, number))

        return hook

    handles = []
    try:
        for name, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(enter(name), with_kwargs=True))
            handles.append(part.register_forward_hook(leave(name)))
        output = main_output(run_quietly(module, example, ledger))
    finally:
        for handle in handles:
            handle.remove()
    return Trace(ledger.nodes, calls, None if output is None else ledger.number(output))


def run_quietly(module: nn.Module, example: torch.Tensor, ledger: _Ledger | None = None) -> Any:
    """Run a network in eval mode without gradients and put its mode back."""
    check_interrupt()
    most, why = allowed_memory(_SHARE_OF_A_PASS)
    shape = tuple(example.shape)
    with isolated(type(module).__name__):
        try:
            return _run_in_eval_mode(module, example, ledger, most)
        except OverLimitError as error:
            raise BankError(
                f"The model was stopped on an example of shape {shape}: its tensors would take "
                f"{error} of memory, more than {format_bytes(most)}, {why}. Check sizes and "
                "paddings among its arguments, give a smaller window (window_size=...), or raise "
                "the limit with --max-memory or skte.memory_limit(...)."
            ) from error
        except (Exception, SystemExit) as error:
            raise BankError(
                f"The model failed on an example of shape {shape}: "
                f"{type(error).__name__}: {error}. {_remedy(module)}"
            ) from error


def _run_in_eval_mode(
    module: nn.Module, example: torch.Tensor, ledger: _Ledger | None, max_bytes: int
) -> Any:
    # Other devices refuse what does not fit; the system would end the process.
    limit = MemoryLimit(max_bytes) if example.device.type == "cpu" else nullcontext()
    with _eval_mode(module), torch.inference_mode(), limit:
        first = example.clone()  # a first layer may work in place
        if ledger is None:
            return module(first)
        ledger.add(first, "input", ())
        with _Recorder(ledger):
            return module(first)


def _remedy(module: nn.Module) -> str:
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if kinds:
        found = ", ".join(sorted(str(kind) for kind in kinds))
        return f"Its parameters are {found}, but images are torch.float32: give network.float()."
    return (
        "Check the number of channels, the window size (window_size=...) and spatial_dims=... "
        "of its entry."
    )


def main_output(output: Any) -> torch.Tensor | None:
    """Return the main tensor of what a network returns.

    Parameters
    ----------
    output : object
        A tensor; a list or tuple, whose first item counts (deep supervision puts the
        finest map there); or a mapping, whose ``"out"``, ``"logits"`` or else first value
        counts. They may be nested.

    Returns
    -------
    Tensor or None
        None where there is no tensor in that place.

    Examples
    --------
    >>> import torch
    >>> from skte.bank import main_output
    >>> main_output({"out": [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)]}).shape
    torch.Size([1, 2, 8, 8])
    """
    while isinstance(output, (list, tuple)) and output:  # a str holds itself, for ever
        output = output[0]
    if isinstance(output, Mapping):
        named = [output[key] for key in ("out", "logits") if key in output]
        return main_output((named or list(output.values()))[0]) if output else None
    return output if isinstance(output, torch.Tensor) else None


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


_CONVOLUTIONS = ("conv", "_conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum")
_PADS = ("pad", "constant_pad", "reflection_pad", "replication_pad", "circular_pad")
_REDUCTIONS = {"amax", "amin", "max", "mean", "std", "sum", "var", "var_mean"}


class FeatureFlow:
    """The feature maps of a trace: tensors laid out as (1, channels, *size).

    Tokens, windows and what comes from global pooling (squeeze-and-excite gates,
    image-level context) are not maps; what feeds them feeds the next map.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.size: dict[int, int] = {}
        self.sources: list[set[int]] = []
        self._pooled: dict[int, int] = {}
        for number, node in enumerate(trace.nodes):
            sources: set[int] = set()
            for parent in node.parents:
                sources |= {parent} if parent in self.size else self.sources[parent]
            self.sources.append(sources)
            size = self._map_size(number)
            if not self._is_pooled(number, size) and size is not None:
                self.size[number] = size

    def _map_size(self, number: int) -> int | None:
        shape, example = self.trace.nodes[number].shape, self.trace.nodes[0].shape
        if len(shape) != len(example) or shape[0] != example[0]:
            return None
        if any(not 0 < a <= b for a, b in zip(shape[2:], example[2:], strict=True)):
            return None
        return math.prod(shape[2:])

    def _is_pooled(self, number: int, size: int | None) -> bool:
        node = self.trace.nodes[number]
        before = [self._pooled.get(parent) for parent in node.parents]
        inherited = [p for p in before if p is not None]
        if node.parents and len(inherited) == len(before):
            grown = size is not None and size > max(inherited)
            if not grown:
                self._pooled[number] = size or max(inherited)
        elif node.op in _REDUCTIONS or "adaptive" in node.op:
            fed_by = max((self.size.get(p, 0) for p in node.parents), default=0)
            if size is None or size < fed_by:
                self._pooled[number] = size or 1
        return number in self._pooled

    def channels(self, number: int) -> int:
        """Channels of a map."""
        return self.trace.nodes[number].shape[1]

    def is_convolution(self, number: int) -> bool:
        """Whether the node came from a layer with weights that mix channels."""
        return self.trace.nodes[number].op.startswith(_CONVOLUTIONS)

    def raises(self, source: int, number: int) -> bool:
        """Whether one map is a finer version of the other (padding is not)."""
        if self.trace.nodes[number].op.startswith(_PADS):
            return False
        return self.size[number] >= 1.5 * self.size[source]

    def ancestors(self, number: int) -> set[int]:
        """Collect the maps a node was made from, over any number of steps."""
        found: set[int] = set()
        waiting = [number]
        while waiting:
            for source in self.sources[waiting.pop()] - found:
                found.add(source)
                waiting.append(source)
        return found

    def head(self) -> int | None:
        """Find the final convolution, the first one met going back from the output."""
        if self.trace.output is None:
            return None
        heads, seen, waiting = [], {0}, [self.trace.output]
        while waiting:
            number = waiting.pop()
            if number in seen:
                continue
            seen.add(number)
            if self.is_convolution(number):
                heads.append(number)
            else:
                waiting.extend(self.trace.nodes[number].parents)
        return max(heads, key=lambda n: (self.size.get(n, 0), n), default=None)
