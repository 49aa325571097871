"""A network compiled for windows of one size, with frozen weights and its layers as outputs."""

from __future__ import annotations

import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from skte.exceptions import SkteWarning
from skte.extraction._taps import Outputs, first_tensor

__all__ = ["CompiledNetwork"]

# Compiled outputs may differ from the network's own by this share of their largest value.
_MOST_APART = 1e-4


class CompiledNetwork:
    """Runs a network as one compiled function, where that can be done.

    Layers are outputs of the function, so what comes after the last one is not
    computed (unless the head is wanted), and weights are constants of it. The first
    batch decides the size that is compiled, and is run uncompiled too: where the two
    disagree, or anything fails, a warning says so and the network runs as it is.

    Use it as a context manager, within ``torch.inference_mode``; afterwards the network
    is as it was.

    Parameters
    ----------
    network : nn.Module
        Ready for inference.
    names : sequence of str
        Layers, as in ``named_modules()``.
    head : bool
        Whether the network's own output is wanted.
    entry_name : str
        What warnings call the model.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str], *, head: bool, entry_name: str
    ) -> None:
        self.network, self.names, self.head, self.entry_name = network, names, head, entry_name
        self.seconds = 0.0  # spent compiling, and on the comparison
        self._found: dict[str, Any] = {}
        self._plain = False
        self._size: torch.Size | None = None
        self._function: Callable[[torch.Tensor], Any] | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> CompiledNetwork:
        modules = dict(self.network.named_modules(remove_duplicate=False))
        # Hooks stay while compiled code is in use: it was made of a network that has them.
        self._handles = [
            modules[name].register_forward_hook(self._hook(name)) for name in self.names
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._function = None
        self._found.clear()

    def run(self, batch: torch.Tensor) -> Outputs | None:
        """Run the network.

        Parameters
        ----------
        batch : Tensor of shape (n_windows, n_channels, *window_size)
            Windows.

        Returns
        -------
        Outputs or None
            None where there is no compiled code for a batch of this size.
        """
        if self._size is None:
            self._size = batch.shape
            return self._first(batch)
        if self._function is None or batch.shape != self._size:
            return None
        return self._called(self._function, batch)

    def _first(self, batch: torch.Tensor) -> Outputs | None:
        begun = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the compiler, about itself
                # Weights become constants: they are packed once, not in every pass.
                function = torch.compile(
                    _own_code(self._traced),
                    fullgraph=True,
                    dynamic=False,
                    options={"freezing": True},
                )
                outputs = self._called(function, batch)
                problem = self._disagreement(outputs, batch)
        except Exception as error:
            problem, outputs = _reason(error), None
        self.seconds += time.perf_counter() - begun
        if problem is None:
            self._function = function
            return outputs
        warnings.warn(
            f"Entry {self.entry_name!r} runs uncompiled: {problem}.", SkteWarning, stacklevel=2
        )
        return None

    def _called(self, function: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> Outputs:
        try:
            layers, head = function(batch)
        finally:
            self._found.clear()  # full-size features must not outlive their window
        return Outputs(dict(zip(self.names, layers, strict=True)), head)

    def _traced(self, batch: torch.Tensor) -> tuple[list[Any], Any]:
        """Run one batch; what is compiled."""
        output = self.network(batch)
        return [self._found[name] for name in self.names], (
            first_tensor(output) if self.head else None
        )

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def store(module: nn.Module, args: Any, output: Any) -> None:
            if torch.compiler.is_compiling() or self._plain:
                # A copy, as operations in place may follow; the compiler drops needless ones.
                self._found[name] = output.clone()

        return store

    def _disagreement(self, outputs: Outputs, batch: torch.Tensor) -> str | None:
        """Tell what differs from the network run as it is."""
        self._plain = True
        try:
            expected = self._called(self._traced, batch)
        finally:
            self._plain = False
        pairs = [(f"layer {n!r}", outputs.layers[n], expected.layers[n]) for n in self.names]
        if outputs.head is not None and expected.head is not None:
            pairs.append(("the output", outputs.head, expected.head))
        for what, ours, theirs in pairs:
            scale = float(theirs.abs().max()) or 1.0
            apart = float((ours - theirs).abs().max()) / scale
            if not apart <= _MOST_APART:  # NaN, too
                return f"compiled, {what} differs by {apart:.2g} of its largest value"
        return None


def _own_code(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method's twin with code of its own.

    Compiled code is kept with the code it was made of, a few versions at most: models
    would crowd each other out, and stay in memory for good.
    """
    function = method.__func__  # type: ignore[attr-defined]
    twin = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return types.MethodType(twin, method.__self__)  # type: ignore[attr-defined]


def _reason(error: BaseException) -> str:
    inner = getattr(error, "inner_exception", None) or error
    lines = [line.strip() for line in str(inner).splitlines() if line.strip()]
    text = f"{type(inner).__name__}: {lines[0]}" if lines else type(inner).__name__
    return text.rstrip(".:")
