"""One recorded forward pass: which tensor came from which, in which module, and what are maps.

Nodes are tensors. Those that hold channels in every place of a grid are feature maps, in
whatever order their axes are.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import nn

from skte._isolation import check_interrupt, isolated
from skte._memory import allowed_memory, format_bytes
from skte.bank._factory import DispatchMode, MemoryLimit, OverLimitError
from skte.exceptions import BankError

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
    parents = [node.parents for node in ledger.nodes]
    sizes = {p: 0 if n is None else len(reached(parents, n)) for p, n in numbers.items()}
    place = max(sizes, key=sizes.__getitem__, default=None)
    number = None if place is None else numbers[place]
    return Trace(ledger.nodes, calls, number, returned, place or output)


def reached(edges: Sequence[Iterable[int]], number: int) -> set[int]:
    """Collect the nodes that edges lead to from one, over any number of steps."""
    found: set[int] = set()
    waiting = [number]
    while waiting:
        new = set(edges[waiting.pop()]) - found
        found |= new
        waiting.extend(new)
    return found


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
    wants, is_needed = further_inputs(module)
    if is_needed:
        return wants
    hint = (
        "Check the number of channels, the window size (window_size=...) and spatial_dims=... "
        "of its entry."
    )
    return f"{hint} {wants}".rstrip()


def further_inputs(module: nn.Module) -> tuple[str, bool]:
    """Say what a network wants beside the image, if anything, and whether it cannot do without."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    except (TypeError, ValueError):  # a forward that is not a function
        return "", False
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p.name for p in named if p.default is p.empty]
    names = required or [p.name for p in named if p.default is None]
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    remedy = "wrap it in a module whose forward takes the image alone and gives the rest."
    if required:
        return f"It wants more inputs than the image ({shown}): {remedy}", True
    return (f"It also takes {shown}: if it needs one of them, {remedy}" if names else ""), False


def main_output(output: Any, key: str | int | None = None) -> torch.Tensor | None:
    """Return the main tensor of what a network returns."""
    return next(iter(_finest(output, key).values()), None)


def _finest(output: Any, key: str | int | None) -> dict[str, torch.Tensor]:
    """Collect the finest maps of what a network returned, by their places; all of one shape."""
    place = "" if key is None else str(key)
    if place.lstrip("-").isdigit() and isinstance(output, (list, tuple)) and int(place) < 0:
        place = str(len(output) + int(place))
    found = _below(dict(_placed(output)), place)
    for name in ("out", "logits"):
        if chosen := _below(found, f"{place}.{name}".removeprefix(".")):
            found = chosen
            break
    maps = {where: tensor for where, tensor in found.items() if tensor.ndim > 3} or found
    first = max(maps.values(), key=lambda tensor: math.prod(tensor.shape[2:]), default=None)
    return {p: t for p, t in maps.items() if first is not None and t.shape == first.shape}


def _below(found: Mapping[str, torch.Tensor], place: str) -> dict[str, torch.Tensor]:
    """Take the tensors at a place and within it."""
    return {p: t for p, t in found.items() if not place or f"{p}.".startswith(f"{place}.")}


def fields_of(output: Any) -> Mapping[Any, Any] | None:
    """Return what a mapping, named tuple or dataclass holds, by name; None for anything else."""
    if isinstance(output, Mapping):
        return output
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        named: Mapping[str, Any] = output._asdict()
        return named
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


#: Orders of the axes that can be read: batch, channels, then x, y, z; channels last; and a row
#: of channels for each place (after others, such as class tokens).
FIRST, LAST, TOKENS = "map", "channels last", "tokens"
_MOST_EXTRA = 16  # class and register tokens


class Layout(NamedTuple):
    """Which axis of a tensor is which; "b", "c", "x", "y", "z", and "n" for all places."""

    axes: str
    grid: tuple[int, ...]
    channels: int
    n_extra: int = 0

    @property
    def form(self) -> str | None:
        """The name of the order, None for one that is not read."""
        spatial = "xyz"[: len(self.grid)]
        return {f"bc{spatial}": FIRST, f"b{spatial}c": LAST, "bnc": TOKENS}.get(self.axes)


def _is_grid(shape: Sequence[int], example: Sequence[int]) -> bool:
    return all(0 < a <= b for a, b in zip(shape, example, strict=True))


def _viewed(shape: tuple[int, ...], before: Layout) -> Layout | None:
    """Follow a view from one order into another."""
    grid, n, channels = before.grid, math.prod(before.grid), before.channels
    spatial = "xyz"[: len(grid)]
    if before.axes in (f"bc{spatial}", "bcn"):
        if shape == (1, channels, n):
            return Layout("bcn", grid, channels)
        return Layout(f"bc{spatial}", grid, channels) if shape == (1, channels, *grid) else None
    if before.axes not in (f"b{spatial}c", "bnc"):
        return None
    if shape == (1, n + before.n_extra, channels):
        return Layout("bnc", grid, channels, before.n_extra)
    # Neighbours may have been merged: fewer places, more channels.
    merged = n * channels // math.prod(shape) == 1 and shape[0] == 1 and len(shape) > 2
    factor = round((shape[-1] / channels) ** (1 / len(grid))) if merged and channels else 0
    if not factor or factor ** len(grid) * channels != shape[-1] or any(g % factor for g in grid):
        return None
    grid = tuple(g // factor for g in grid)
    axes = {grid: f"b{spatial}c", (math.prod(grid),): "bnc"}.get(shape[1:-1])
    return None if axes is None else Layout(axes, grid, shape[-1])


def _kept(shape: tuple[int, ...], before: Layout) -> Layout | None:
    """Follow an operation that leaves the order of the axes, but maybe not their lengths."""
    axes, grid = before.axes, before.grid
    if len(shape) != len(axes) or shape[0] != 1:
        return None
    channels = shape[axes.index("c")]
    if "n" not in axes:
        return Layout(axes, tuple(shape[axes.index(a)] for a in "xyz"[: len(grid)]), channels)
    extra = shape[axes.index("n")] - math.prod(grid)
    is_read = axes in ("bnc", "bcn") and 0 <= extra <= _MOST_EXTRA
    return Layout(axes, grid, channels, extra) if is_read else None


_VIEWS = ("view", "reshape", "flatten", "unflatten", "_unsafe_view", "_reshape_alias", "squeeze",
          "unsqueeze", "expand")  # fmt: skip
# What works on places beside each other has a map before and after it.
_SPATIAL = ("conv", "_conv", "upsample", "max_pool", "avg_pool", "adaptive", "pixel_shuffle")
_CONVOLUTIONS = ("conv", "_conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum")
_PADS = ("pad", "constant_pad", "reflection_pad", "replication_pad", "circular_pad")
_REDUCTIONS = {"amax", "amin", "max", "mean", "std", "sum", "var", "var_mean"}


class FeatureFlow:
    """The feature maps of a trace: channels in every place of a grid, in any known order.

    Windows and what comes from global pooling (squeeze-and-excite gates, image-level
    context) are not maps; what feeds them feeds the next map.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.layouts: list[Layout | None] = []
        self._origins: list[Layout | None] = []  # its layout, or the last one known before
        self.size: dict[int, int] = {}
        self.sources: list[set[int]] = []
        self._pooled: dict[int, int] = {}
        last = {call.name: call for call in trace.calls if call.name}
        #: Calls whose output a hook sees last, outermost first.
        self.calls = sorted(last.values(), key=lambda c: (c.start, -c.end, c.name.count(".")))
        for number, node in enumerate(trace.nodes):
            sources: set[int] = set()
            for parent in node.parents:
                sources |= {parent} if parent in self.size else self.sources[parent]
            self.sources.append(sources)
            layout = self._layout(node)
            self.layouts.append(layout)
            before = (self._origins[parent] for parent in node.parents)
            self._origins.append(layout or next((one for one in before if one), None))
            size = None if layout is None else math.prod(layout.grid)
            if not self._is_pooled(number, size) and size is not None:
                self.size[number] = size

    def _layout(self, node: Node) -> Layout | None:
        """Say which axis of a tensor is which, from where it comes."""
        shape, example = node.shape, self.trace.nodes[0].shape
        in_order = f"bc{'xyz'[: len(example) - 2]}"
        is_map = len(shape) == len(example) and shape[0] == 1 and _is_grid(shape[2:], example[2:])
        as_map = Layout(in_order, shape[2:], shape[1]) if is_map else None
        origins = [one for p in node.parents if (one := self._origins[p]) is not None]
        if not origins or node.op.startswith(_SPATIAL):
            return as_map
        known = [(one, p) for p in node.parents if (one := self.layouts[p]) is not None]
        if node.order and known:
            before = known[0][0]
            axes = "".join(before.axes[i] for i in node.order if i < len(before.axes))
            return before._replace(axes=axes) if len(axes) == len(before.axes) else None
        is_view = node.op.startswith(_VIEWS)
        found = []
        for before, parent in known:
            changed = is_view and shape != self.trace.nodes[parent].shape
            found.append((_viewed if changed else _kept)(shape, before))
        if is_view:
            found += [_viewed(shape, origin) for origin in origins]
        # What was never out of order is a map whenever it has the shape of one.
        if all(origin.axes == in_order for origin in origins):
            found.append(as_map)
        layout = next((one for one in found if one is not None), None)
        return layout if layout is not None and _is_grid(layout.grid, example[2:]) else None

    def _is_pooled(self, number: int, size: int | None) -> bool:
        node = self.trace.nodes[number]
        before = [self._pooled.get(parent) for parent in node.parents]
        inherited = [p for p in before if p is not None]
        if node.parents and len(inherited) == len(before):
            if size is None or size <= max(inherited):
                self._pooled[number] = size or max(inherited)
        elif node.op in _REDUCTIONS or "adaptive" in node.op:
            fed_by = max((self.size.get(p, 0) for p in node.parents), default=0)
            if size is None or size < fed_by:
                self._pooled[number] = size or 1
        return number in self._pooled

    def channels(self, number: int) -> int:
        """Channels of a map."""
        origin = self._origins[number]
        return 0 if origin is None else origin.channels

    def is_convolution(self, number: int) -> bool:
        """Whether the node came from a layer with weights that mix channels."""
        return self.trace.nodes[number].op.startswith(_CONVOLUTIONS)

    def raises(self, source: int, number: int) -> bool:
        """Whether one map is a finer version of the other (padding is not)."""
        if self.trace.nodes[number].op.startswith(_PADS):
            return False
        # What is made of fine and coarse maps is no finer: attention to a reduced map.
        finest = max(self.size[s] for s in self.sources[number])
        return self.size[number] >= 1.5 * max(finest, self.size[source])

    @cached_property
    def raised(self) -> set[int]:
        """The maps that were made from one of a lower resolution."""
        raised: set[int] = set()
        for n in sorted(self.size):
            if any(self.raises(s, n) or s in raised for s in self.sources[n]):
                raised.add(n)
        return raised

    @cached_property
    def head(self) -> int | None:
        """The final convolution, the first one met going back from the output."""
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
        if not heads:
            return None
        head = max(heads, key=lambda n: (self.size.get(n, 0), n))
        for s in self.sources[head] - {0} if head in self.size else ():
            # A convolution that does nothing but raise logits.
            alike = self.is_convolution(s) and self.channels(s) == self.channels(head)
            if alike and self.raises(s, head):
                return s
        return head

    def form(self, number: int) -> tuple[str, int] | None:
        """Return how a node is read as a map, and its tokens that are of no place."""
        layout = self.layouts[number]
        if layout is None or layout.form is None or number not in self.size:
            return None
        return layout.form, layout.n_extra
