"""How the feature maps of a traced network feed each other."""

from __future__ import annotations

import math

from skte.bank._trace import Trace

__all__ = ["FeatureFlow"]

_CONVOLUTIONS = ("conv", "_conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum")
_PADS = ("pad", "constant_pad", "reflection_pad", "replication_pad", "circular_pad")
_REDUCTIONS = {"amax", "amin", "max", "mean", "std", "sum", "var", "var_mean"}


class FeatureFlow:
    """The feature maps of a trace: tensors laid out as (1, channels, *size).

    Tokens, windows and what comes from global pooling (squeeze-and-excite gates,
    image-level context) are no maps; what feeds them feeds the next map.

    Parameters
    ----------
    trace : Trace
        A recorded forward pass.

    Attributes
    ----------
    size : dict of int to int
        Voxels of each map, by node.
    sources : list of set of int
        The maps each node was made from, without maps between.
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
