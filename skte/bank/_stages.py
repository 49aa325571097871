"""Stages of any network, found in one traced forward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from skte.bank._trace import Call, FeatureFlow, Trace

__all__ = ["traced_decoder_stages", "traced_encoder_stages"]


def traced_decoder_stages(trace: Trace) -> list[str]:
    """Names of the modules at whose end the decoder stages end, coarse to fine.

    The decoder is what lies between the lowest resolution and the final
    convolution. A stage ends where its map is about to be raised to a higher
    resolution, and the last one at the final convolution. Of the modules that return
    that map the outermost is named that holds no other stage.
    """
    flow = FeatureFlow(trace)
    head = flow.head()
    features = {n for n in flow.sources[head] if n > 0} if head is not None else set()
    if head is None or not features:
        return []
    feature = max(features, key=lambda n: (flow.size[n], n))
    return _Decoder(flow, feature, head).stage_names()


class _Decoder:
    """The maps between the lowest resolution and the final convolution."""

    def __init__(self, flow: FeatureFlow, feature: int, head: int) -> None:
        self.flow, self.feature, self.head = flow, feature, head
        self.calls = self._usable_calls()
        self.named = {call.output for call in self.calls}
        maps = sorted(flow.ancestors(feature) | {feature})
        self.lowest = min(flow.size[n] for n in maps)
        self.maps: set[int] = set()
        self.work: dict[int, int] = {}  # convolutions since the resolution last rose
        self.learned: set[int] = set()  # the same, the raising convolution included
        for n in maps:
            if n > 0 and (flow.size[n] == self.lowest or flow.sources[n] & self.maps):
                self._add(n)

    def _usable_calls(self) -> list[Call]:
        # A hook keeps what a module returned last; earlier calls cannot be read.
        last = {call.name: call for call in self.flow.trace.calls}
        calls = [call for name, call in last.items() if name]
        return sorted(calls, key=lambda call: (call.start, -call.end, call.name.count(".")))

    def _add(self, n: int) -> None:
        flow = self.flow
        same = [s for s in flow.sources[n] & self.maps if not flow.raises(s, n)]
        convolution = flow.is_convolution(n)
        raised = any(flow.raises(s, n) for s in flow.sources[n] & self.maps)
        self.maps.add(n)
        self.work[n] = max((self.work[s] for s in same), default=0)
        self.work[n] += convolution and not raised
        if convolution or any(s in self.learned for s in same):
            self.learned.add(n)

    def stage_names(self) -> list[str]:
        ends = self._ends()
        names: dict[str, None] = {}
        coarser: set[int] = set()
        for size in sorted(ends):
            name = self._name(ends[size], coarser)
            coarser.add(ends[size])
            if name is not None and (size > self.lowest or len(ends) == 1):
                names[name] = None
        return list(names)

    def _ends(self) -> dict[int, int]:
        """Find the map at which the stage of each resolution ends."""
        flow = self.flow
        candidates: dict[int, set[int]] = defaultdict(set)
        for n in self.maps:
            for source in flow.sources[n] & self.maps & self.learned:
                if flow.raises(source, n):
                    candidates[flow.size[source]].add(self._before_exit(source, n))
        ends = {
            size: max(found, key=lambda n: (flow.channels(n), n))
            for size, found in candidates.items()
        }
        # Nothing but an upsampled copy of the stage before is not a stage of its own.
        if self.feature in self.learned or not ends:
            ends[flow.size[self.feature]] = self._before_exit(self.feature, self.head)
        return ends

    def _before_exit(self, end: int, following: int) -> int:
        """Step back over what belongs to the way up (or the head), not to the stage."""
        flow = self.flow
        for call in self.calls:
            if not (call.contains(end) and call.contains(following)):
                continue
            inside = range(call.start + 1, end + 1)
            if any(flow.size.get(n, flow.size[end]) != flow.size[end] for n in inside):
                continue
            for entry in call.inputs:
                if (
                    entry in self.maps
                    and flow.size[entry] == flow.size[end]
                    and self.work[entry]
                    and entry in self.named
                ):
                    return entry
        return end

    def _name(self, end: int, coarser: set[int]) -> str | None:
        """Name the outermost module that returns the map, or the nearest before it."""
        flow = self.flow
        current: int | None = end
        while current is not None:
            for call in self.calls:
                if call.output == current and not any(map(call.contains, coarser)):
                    return call.name
            before = [
                s
                for s in flow.sources[current] & self.maps & self.learned
                if flow.size[s] == flow.size[end]
            ]
            current = max(before, key=lambda n: (self.work[n], n), default=None)
        return None


def traced_encoder_stages(trace: Trace) -> list[str]:
    """Name the modules at whose end the encoder's stages end, coarse to fine.

    The encoder is all that the first map of the lowest resolution was made from, and
    what follows it at that resolution. A stage ends with the last map of its resolution.
    """
    flow = FeatureFlow(trace)
    maps = [n for n in flow.size if n > 0]
    if not maps:
        return []
    lowest = min(flow.size[n] for n in maps)
    first = min(n for n in maps if flow.size[n] == lowest)
    trunk = {n for n in flow.ancestors(first) if n > 0}
    trunk |= {n for n in maps if flow.size[n] == lowest and n <= _bottleneck_end(flow, first)}
    names: dict[str, None] = {}
    ends: list[int] = []
    for size in sorted({flow.size[n] for n in trunk}):
        # A map that was padded is not a stage of its own.
        if ends and size < 1.5 * flow.size[ends[-1]]:
            continue
        found = _named_end(flow, [n for n in trunk if flow.size[n] == size], ends)
        if found is not None:
            names[found[0]] = None
            ends.append(found[1])
    return list(names)


def _bottleneck_end(flow: FeatureFlow, first: int) -> int:
    """Return the last map of the lowest resolution that no part of the way up made.

    The way up often begins with a convolution that narrows the map: the outermost call
    that raises the resolution, and did not make the first map of the lowest one, got the
    bottleneck as its input.
    """
    low = [n for n in flow.size if flow.size[n] == flow.size[first]]
    raised = [n for n in flow.size if any(s in low and flow.raises(s, n) for s in flow.sources[n])]
    if not raised:
        return max(low)
    for call in sorted(flow.trace.calls, key=lambda c: (c.start, -c.end)):
        inputs = [n for n in call.inputs if n in low]
        if call.contains(raised[0]) and not call.contains(first) and inputs:
            return max(inputs)
    return max(n for n in flow.sources[raised[0]] if n in low)


def _named_end(
    flow: FeatureFlow, maps: Sequence[int], coarser: Sequence[int]
) -> tuple[str, int] | None:
    """Return the outermost module that returns the last of these maps, and the map."""
    last = {call.name: call for call in flow.trace.calls if call.name}
    calls = sorted(last.values(), key=lambda c: (c.start, -c.end, c.name.count(".")))
    for n in sorted(maps, reverse=True):
        for call in calls:
            if call.output == n and not any(map(call.contains, coarser)):
                return call.name, n
    return None
