"""One recorded forward pass: which tensor came from which, and in which module."""

from __future__ import annotations

import dataclasses
import inspect
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from skte._isolation import check_interrupt, isolated
from skte._memory import allowed_memory, format_bytes
from skte.bank._factory import DispatchMode, MemoryLimit, OverLimitError
from skte.exceptions import BankError

__all__ = ["Call", "Node", "Trace", "main_output", "prompt_hint", "run_quietly", "trace_forward"]


_SHARE_OF_A_PASS = 0.5  # of the free memory


@dataclass(frozen=True)
class Node:
    """A tensor that descends from the input. Nodes are numbered as they are made."""

    op: str
    shape: tuple[int, ...]
    parents: tuple[int, ...]
    order: tuple[int, ...] = ()  # of the parent's axes, where the op permutes them


@dataclass(frozen=True)
class Call:
    """One call of a module that returned tensors; it made nodes start+1 to end."""

    name: str
    start: int
    end: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    is_collection: bool  # it returned a list, mapping or dataclass, and not one tensor

    @property
    def output(self) -> int | None:
        """The node of the one tensor that a hook can read."""
        return None if self.is_collection else self.outputs[0]

    def contains(self, node: int) -> bool:
        """Whether the node was made within this call."""
        return self.start < node <= self.end


@dataclass(frozen=True, eq=False)
class Trace:
    """Nodes (the input is number 0), module calls, and the node the network returned."""

    nodes: list[Node]
    calls: list[Call]
    output: int | None
    returned: dict[str, tuple[int, ...] | str]  # of every module that ran: shape, or type
    place: str | int | None = None  # of the main output among all, as `main_output` takes it


@dataclass
class _Ledger:
    """Numbers tensors. Holds no tensor alive: a trace costs no memory."""

    nodes: list[Node] = field(default_factory=list)
    known: dict[int, tuple[weakref.ref[torch.Tensor], int]] = field(default_factory=dict)

    def number(self, tensor: torch.Tensor) -> int | None:
        reference, number = self.known.get(id(tensor), (None, 0))
        return number if reference is not None and reference() is tensor else None

    def numbers(self, value: Any) -> tuple[int, ...]:
        found = (self.number(tensor) for tensor in tensors_of(value))
        return tuple(dict.fromkeys(n for n in found if n is not None))

    def add(self, tensor: torch.Tensor, op: str, parents: tuple[int, ...], args: Any = ()) -> None:
        self.known[id(tensor)] = (weakref.ref(tensor), len(self.nodes))
        self.nodes.append(Node(op, tuple(tensor.shape), parents, _order(op, args, tensor.ndim)))


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
        for tensor in tensors_of(result) if parents else ():
            # dropout in eval mode hands its input on: the same tensor, no new node
            if op.endswith("_") or self.ledger.number(tensor) is None:
                self.ledger.add(tensor, op.rstrip("_"), parents, args)
        return result


def _order(op: str, args: Sequence[Any], n_axes: int) -> tuple[int, ...]:
    """Return the order into which an operation brings the axes, () where it leaves them."""
    given = args[1:]
    axes = list(range(n_axes))
    if op == "permute" and given:
        return tuple(int(axis) % n_axes for axis in given[0])
    if op in ("t", "numpy_T", "mT", "adjoint", "matrix_H"):
        given = (-2, -1)
    elif op not in ("transpose", "swapaxes", "swapdims"):
        return ()
    if len(given) == 2 and n_axes > 1:
        a, b = (int(axis) % n_axes for axis in given)
        axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


def trace_forward(
    module: nn.Module, example: torch.Tensor, output: str | int | None = None
) -> Trace:
    """Record one forward pass, in eval mode and without gradients."""
    ledger, calls = _Ledger(), []
    returned: dict[str, tuple[int, ...] | str] = {}
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
            single = isinstance(output, torch.Tensor)
            returned[name] = tuple(output.shape) if single else type(output).__name__
            numbers = ledger.numbers(output)
            if numbers:
                end = len(ledger.nodes) - 1
                calls.append(Call(name, start, end, inputs, numbers, not single))

        return hook

    handles = []
    try:
        for name, part in module.named_modules():
            handles.append(part.register_forward_pre_hook(enter(name), with_kwargs=True))
            handles.append(part.register_forward_hook(leave(name)))
        found = _finest(run_quietly(module, example, ledger), output)
    finally:
        for handle in handles:
            handle.remove()
    # With deep supervision the head that most was computed for; the others are its aids.
    numbers = {place: ledger.number(tensor) for place, tensor in found.items()}
    sizes = {place: _n_ancestors(ledger.nodes, number) for place, number in numbers.items()}
    place = max(sizes, key=sizes.__getitem__, default=None)
    number = None if place is None else numbers[place]
    return Trace(ledger.nodes, calls, number, returned, place or output)


def _n_ancestors(nodes: Sequence[Node], number: int | None) -> int:
    """Count the tensors that one was computed from, over any number of steps."""
    found: set[int] = set()
    waiting = [] if number is None else [number]
    while waiting:
        new = set(nodes[waiting.pop()].parents) - found
        found |= new
        waiting.extend(new)
    return len(found)


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
    required = _further_inputs(module)[0]
    if required:
        return (
            f"It wants more inputs than the image ({', '.join(required)}): wrap it in a module "
            "whose forward takes the image alone and gives the rest."
        )
    hint = (
        "Check the number of channels, the window size (window_size=...) and spatial_dims=... "
        "of its entry."
    )
    return " ".join([hint, *([f"It {also}"] if (also := prompt_hint(module)) else [])])


def prompt_hint(module: nn.Module) -> str:
    """Say what a network may want beside the image, and what to do; nothing where there is none."""
    optional = _further_inputs(module)[1]
    if not optional:
        return ""
    return (
        f"also takes {_few(optional)}: if it needs one of them, wrap it in a module whose "
        "forward takes the image alone and gives the rest."
    )


def _further_inputs(module: nn.Module) -> tuple[list[str], list[str]]:
    """Name what a network's forward must and may be given beside the image."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    except (TypeError, ValueError):  # a forward that is not a function
        return [], []
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p.name for p in named if p.default is p.empty]
    return required, [p.name for p in named if p.default is None]


def _few(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def main_output(output: Any, key: str | int | None = None) -> torch.Tensor | None:
    """Return the main tensor of what a network returns."""
    return next(iter(_finest(output, key).values()), None)


def _finest(output: Any, key: str | int | None) -> dict[str, torch.Tensor]:
    """Collect the finest maps of what a network returned, by their places; all of one shape."""
    place = "" if key is None else str(key)
    output = _at(output, place)
    named = fields_of(output) or {}
    chosen = next((name for name in ("out", "logits") if named.get(name) is not None), None)
    if chosen:
        output, place = named[chosen], f"{place}.{chosen}"
    found = dict(_placed(output, place))
    maps = {where: tensor for where, tensor in found.items() if tensor.ndim > 3} or found
    first = max(maps.values(), key=lambda tensor: math.prod(tensor.shape[2:]), default=None)
    return {p: t for p, t in maps.items() if first is not None and t.shape == first.shape}


def _at(output: Any, place: str) -> Any:
    """Look up a part by its place; the longest keys come first, as they may hold dots."""
    parts = place.split(".") if place else []
    for n in range(len(parts), 0, -1):
        if (found := _item(output, ".".join(parts[:n]))) is not None:
            return _at(found, ".".join(parts[n:]))
    return None if parts else output


def _item(output: Any, key: str) -> Any:
    """Look up one part of an output by key, attribute or position; None where there is none."""
    named = fields_of(output)
    if named is not None:
        texts = {str(getattr(name, "value", name)): value for name, value in named.items()}
        return texts.get(key)
    if isinstance(output, (list, tuple)) and key.lstrip("-").isdigit():
        return output[int(key)] if -len(output) <= int(key) < len(output) else None
    return getattr(output, key, None) if isinstance(output, tuple) else None


def fields_of(output: Any) -> Mapping[Any, Any] | None:
    """Return what a mapping or dataclass holds, by name; None for anything else."""
    if isinstance(output, Mapping):
        return output
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {item.name: getattr(output, item.name) for item in dataclasses.fields(output)}
    return None


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


_DEEPEST = 20  # a list may hold itself


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield all tensors in nested lists, tuples, mappings and dataclasses, in order."""
    return (tensor for _, tensor in _placed(value))


def _placed(value: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all tensors with their places, as `main_output` takes them."""
    named = fields_of(value)
    if isinstance(value, torch.Tensor):
        yield place.removeprefix("."), value
    elif named is not None or isinstance(value, (list, tuple)):
        items = enumerate(value) if named is None else named.items()
        for name, item in items if depth < _DEEPEST else ():
            yield from _placed(item, f"{place}.{getattr(name, 'value', name)}", depth + 1)
