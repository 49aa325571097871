"""The feature maps of a recorded forward pass, in whatever order their axes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from skte.bank._trace import Call, Node, Trace

__all__ = ["FIRST", "LAST", "TOKENS", "FeatureFlow", "Layout"]

#: Orders of the axes that can be read: batch, channels, then x, y, z; channels last; and a row
#: of channels for each place (after others, such as class tokens).
FIRST, LAST, TOKENS = "map", "channels last", "tokens"
_MOST_EXTRA = 16  # class and register tokens


class Layout(NamedTuple):
    """Which axis of a tensor is which; "b", "c", "x", "y", "z", and "n" for all places."""

    axes: str
    grid: tuple[int, ...]
    n_extra: int = 0

    @property
    def form(self) -> str | None:
        """The name of the order, None for one that is not read."""
        spatial = "xyz"[: len(self.grid)]
        forms = {f"bc{spatial}": FIRST, f"b{spatial}c": LAST, "bnc": TOKENS}
        return forms.get(self.axes)


def _is_grid(shape: Sequence[int], example: Sequence[int]) -> bool:
    return all(0 < a <= b for a, b in zip(shape, example, strict=True))


def _viewed(shape: tuple[int, ...], before: Layout, channels: int) -> Layout | None:
    """Follow a view from one order into another."""
    grid, n = before.grid, math.prod(before.grid)
    spatial = "xyz"[: len(grid)]
    if before.axes in (f"bc{spatial}", "bcn"):
        if shape == (1, channels, n):
            return Layout("bcn", grid)
        return Layout(f"bc{spatial}", grid) if shape == (1, channels, *grid) else None
    if before.axes not in (f"b{spatial}c", "bnc"):
        return None
    if shape == (1, n + before.n_extra, channels):
        return Layout("bnc", grid, before.n_extra)
    # Neighbours may have been merged: fewer places, more channels.
    merged = n * channels // math.prod(shape) == 1 and shape[0] == 1 and len(shape) > 2
    factor = round((shape[-1] / channels) ** (1 / len(grid))) if merged and channels else 0
    if not factor or factor ** len(grid) * channels != shape[-1] or any(g % factor for g in grid):
        return None
    grid = tuple(g // factor for g in grid)
    if shape[1:-1] == grid:
        return Layout(f"b{spatial}c", grid)
    return Layout("bnc", grid) if shape[1:-1] == (math.prod(grid),) else None


def _kept(shape: tuple[int, ...], before: Layout, channels: int) -> Layout | None:
    """Follow an operation that leaves the order of the axes, but maybe not their lengths."""
    axes, grid, n = before.axes, before.grid, math.prod(before.grid)
    if len(shape) != len(axes) or shape[0] != 1:
        return None
    if axes in ("bnc", "bcn"):
        extra = shape[axes.index("n")] - n
        return Layout(axes, grid, extra) if 0 <= extra <= _MOST_EXTRA else None
    if "n" in axes or not set("xyz"[: len(grid)]) <= set(axes):
        return None
    return Layout(axes, tuple(shape[axes.index(a)] for a in "xyz"[: len(grid)]))


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
        self._origins: list[tuple[Layout, int] | None] = []  # last known layout and channels
        self.size: dict[int, int] = {}
        self.sources: list[set[int]] = []
        self._pooled: dict[int, int] = {}
        for number, node in enumerate(trace.nodes):
            sources: set[int] = set()
            for parent in node.parents:
                sources |= {parent} if parent in self.size else self.sources[parent]
            self.sources.append(sources)
            layout = self._layout(node)
            self._remember(node, layout)
            size = None if layout is None else math.prod(layout.grid)
            if not self._is_pooled(number, size) and size is not None:
                self.size[number] = size

    def _layout(self, node: Node) -> Layout | None:
        """Say which axis of a tensor is which, from where it comes."""
        shape, example = node.shape, self.trace.nodes[0].shape
        spatial = "xyz"[: len(example) - 2]
        is_map = len(shape) == len(example) and shape[0] == 1 and _is_grid(shape[2:], example[2:])
        as_map = Layout(f"bc{spatial}", tuple(shape[2:])) if is_map else None
        origins = [one for p in node.parents if (one := self._origins[p]) is not None]
        if not origins or node.op.startswith(_SPATIAL):
            return as_map
        known = [(layout, p) for p in node.parents if (layout := self.layouts[p]) is not None]
        found: Layout | None = None
        if node.order and known:
            before = known[0][0]
            axes = "".join(before.axes[i] for i in node.order if i < len(before.axes))
            return before._replace(axes=axes) if len(axes) == len(before.axes) else None
        for before, parent in known:
            channels = self._origin_channels(parent)
            same = shape == self.trace.nodes[parent].shape
            view = node.op.startswith(_VIEWS) and not same
            found = (_viewed if view else _kept)(shape, before, channels)
            if found is not None:
                break
        if found is None and node.op.startswith(_VIEWS):
            found = next((f for o, c in origins if (f := _viewed(shape, o, c)) is not None), None)
        # What was never out of order is a map whenever it has the shape of one.
        in_order = all(o.axes == f"bc{spatial}" for o, _ in origins)
        if found is None and in_order:
            found = as_map
        if found is not None and not _is_grid(found.grid, example[2:]):
            return None
        return found

    def _origin_channels(self, number: int) -> int:
        origin = self._origins[number]
        return 0 if origin is None else origin[1]

    def _remember(self, node: Node, layout: Layout | None) -> None:
        self.layouts.append(layout)
        if layout is not None and "c" in layout.axes:
            self._origins.append((layout, node.shape[layout.axes.index("c")]))
        else:
            before = [o for p in node.parents if (o := self._origins[p]) is not None]
            self._origins.append(before[0] if before else None)

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
        return self._origin_channels(number)

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
        head = max(heads, key=lambda n: (self.size.get(n, 0), n), default=None)
        return head if head is None else self._first_logits(head)

    def _first_logits(self, head: int) -> int:
        """Step back from a convolution that does nothing but raise logits."""
        for s in self.sources[head]:
            alike = s > 0 and self.is_convolution(s) and self.channels(s) == self.channels(head)
            if alike and head in self.size and self.raises(s, head):
                return s
        return head

    def calls(self) -> list[Call]:
        """List the calls whose output a hook sees last, outermost first."""
        last = {call.name: call for call in self.trace.calls if call.name}
        return sorted(last.values(), key=lambda c: (c.start, -c.end, c.name.count(".")))

    def form(self, number: int) -> tuple[str, int] | None:
        """Return how a node is read as a map, and its tokens that are of no place."""
        layout = self.layouts[number]
        if layout is None or layout.form is None or number not in self.size:
            return None
        return layout.form, layout.n_extra
